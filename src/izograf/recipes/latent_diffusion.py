"""Diffusion in the latents of an autoencoder: a picture's meaning at a fraction of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from izograf.core.registry import unknown_name
from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.models.transformer import TransformerConfig
from izograf.models.unet import UNetConfig
from izograf.recipes.denoising import DEFAULTS, TAKES, denoising_job
from izograf.recipes.latents import Latents
from izograf.recipes.registry import RunRequest, recipe
from izograf.training.run import Job

NAME = "latent-diffusion"
PAPER = "Rombach et al. 2022 (arXiv:2112.10752); rectified flow after Esser et al. 2024"
GRID = 8  # positions along a side that patches and bottlenecks aim at
WIDTH = 128


@dataclass(frozen=True)
class Backbone:
    """A network of the registry, its default config for latents, and its learning rate."""

    network: str
    config: Callable[[int, int], Any]
    learning_rate: float


def latent_unet(side: int, num_classes: int) -> UNetConfig:
    """Two levels, more down to an 8x8 bottleneck where the latent is large; no stem."""
    levels = 1
    while side % 2**levels == 0 and (levels == 1 or side // 2**levels >= GRID):
        levels += 1
    return UNetConfig(
        image_size=side,
        num_classes=num_classes,
        patch_size=1,
        width=WIDTH,
        multipliers=(1, *(2,) * (levels - 1)),
        depth=2,
        attention=(side // 2 ** (levels - 1),),
        head_dim=64,
    )


def latent_transformer(side: int, num_classes: int) -> TransformerConfig:
    """About 8 x 8 tokens, as the transformers of pixels have; of one latent up to 8 x 8."""
    most = max(1, side // GRID)
    patch = max(size for size in range(1, most + 1) if side % size == 0)
    return TransformerConfig(
        image_size=side, num_classes=num_classes, patch_size=patch, width=256, depth=8
    )


def latent_uvit(side: int, num_classes: int) -> TransformerConfig:
    """As `latent_transformer`, with learned positions and an odd depth."""
    return replace(latent_transformer(side, num_classes), depth=9, positions="learned")


BACKBONES: Mapping[str, Backbone] = {
    "unet": Backbone("unet", latent_unet, 1e-3),
    "dit": Backbone("dit", latent_transformer, 5e-4),
    "uvit": Backbone("uvit", latent_uvit, 5e-4),
}


@recipe(
    NAME,
    summary="diffusion in the latents of a KL autoencoder, over unet, dit or uvit",
    paper=PAPER,
    objectives=PRECONDITIONERS,
    takes=(*TAKES, "autoencoder", "backbone"),
    needs=("autoencoder",),
)
def latent_diffusion(request: RunRequest) -> Job:
    """`--autoencoder` is the model whose latents are learned, `--backbone` the network, unet.

    The model holds a copy of the autoencoder, and needs nothing else to be sampled.
    """
    asked = request.hyperparameters
    backbone_name = asked.backbone or "unet"
    if backbone_name not in BACKBONES:
        raise unknown_name("backbone", backbone_name, BACKBONES)
    backbone = BACKBONES[backbone_name]
    latents = Latents.open(
        asked.autoencoder or "", request.image_size, asked.placement(width=WIDTH)
    )
    return denoising_job(
        request,
        name=NAME,
        paper=PAPER,
        network=backbone.network,
        config=backbone.config,
        defaults=replace(
            DEFAULTS,
            noise_law="logit-normal",
            backbone=backbone_name,
            learning_rate=backbone.learning_rate,
        ),
        summary=f"latent diffusion, {backbone_name} over {latents.card.name}",
        latents=latents,
    )
