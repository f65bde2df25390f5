"""Tiny real models, made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch

from izograf.checkpoints.files import save_model
from izograf.core.config import config_to_json
from izograf.core.rng import generator, seeded_layers
from izograf.generators.diffusion import preconditioner_to_json
from izograf.generators.diffusion_options import diffusion_options
from izograf.models.unet import UNetConfig, build_unet
from izograf.schema.card import ModelCard
from izograf.schema.labels import ClassLabel

CLASSES = ("mountain", "sea", "forest")


def save_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """A 16 px class-conditional diffusion U-Net with random weights; its pictures are noise."""
    config = UNetConfig(
        image_size=16, num_classes=len(CLASSES), patch_size=2, width=16, multipliers=(1, 2),
        depth=1, attention=(4,), head_dim=16,
    )  # fmt: skip
    with seeded_layers("tests", "tiny", seed):
        network = build_unet(config)
    rng = generator("tests", "tiny", seed)
    with torch.no_grad():  # blocks that start at zero come to life
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=rng)
    card = ModelCard(
        name=folder.name,
        family="diffusion",
        network={"name": "unet", "config": config_to_json(config)},
        image_size=16,
        conditions=("class",),
        classes=tuple(ClassLabel(name) for name in CLASSES),
        options=diffusion_options(num_inference_steps=6),
        sampling={
            "preconditioner": preconditioner_to_json("flow"), "sigma_min": 0.02, "sigma_max": 80.0,
        },
    )  # fmt: skip
    save_model(folder, network.state_dict(), card, dtype=torch.float16)
    return folder
