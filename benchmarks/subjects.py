"""The networks that are compared: ours in the bundled size, and diffusers' of equal MACs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from common import Table, count_macs, perturb

# isort: split
import torch
from torch import Tensor, nn

from izograf.core.types import Condition
from izograf.models.unet import UNetConfig, build_unet

diffusers: Any = importlib.import_module("diffusers")  # it carries no usable types

NUM_CLASSES = 6
OURS = UNetConfig(
    image_size=64, num_classes=NUM_CLASSES, width=96, depth=2, multipliers=(1, 2), patch_size=4
)

Opponent = Literal["pixels", "patches"]
OPPONENTS: tuple[Opponent, ...] = ("pixels", "patches")

THEIRS: dict[Opponent, dict[str, Any]] = {
    # as its users build one for 64 px pictures: full resolution down to 8x8, attention in the two
    # lower resolutions. Of the widths tried that meet our MACs within 3 %, the fastest on a CPU.
    "pixels": {
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (32, 32, 32, 192),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    },
    # our own shape, fed with unshuffled pictures: nothing but the implementation differs
    "patches": {
        "sample_size": 16,
        "in_channels": 48,
        "out_channels": 48,
        "block_out_channels": (96, 192),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 64,
    },
}


@dataclass(frozen=True)
class Size:
    """What one picture costs in one evaluation, and the parameters behind it."""

    macs: int
    parameters: int


def build_ours() -> nn.Module:
    """Our U-Net with every branch alive, float32, as initialised otherwise."""
    torch.manual_seed(0)
    network = build_unet(OURS)
    perturb(network)
    return network


def build_theirs(opponent: Opponent) -> nn.Module:
    """diffusers' U-Net, class-conditional through `num_class_embeds`, float32."""
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(num_class_embeds=NUM_CLASSES, **THEIRS[opponent])
    assert isinstance(network, nn.Module)
    return network


def evaluate_theirs(network: nn.Module, x: Tensor, timesteps: Tensor, class_ids: Tensor) -> Tensor:
    """The predicted noise, like x."""
    predicted: Tensor = network(x, timesteps, class_labels=class_ids).sample
    return predicted


def noise_shape(opponent: Opponent) -> tuple[int, int, int]:
    """[C,H,W] of what the opponent denoises."""
    config = THEIRS[opponent]
    return config["in_channels"], config["sample_size"], config["sample_size"]


def size_of_ours() -> Size:
    """Counted on the meta device: shapes suffice."""
    with torch.device("meta"):
        network = build_unet(OURS)
        x, level, ids = torch.empty(1, 3, 64, 64), torch.empty(1), torch.zeros(1).long()
    return _size(network, lambda: network(x, level, Condition(class_ids=ids)))


def size_of_theirs(opponent: Opponent) -> Size:
    """Counted on the meta device: shapes suffice."""
    with torch.device("meta"):
        network = build_theirs(opponent)
        x, zero = torch.empty(1, *noise_shape(opponent)), torch.zeros(1).long()
    return _size(network, lambda: evaluate_theirs(network, x, zero, zero))


def _size(network: nn.Module, run: Callable[[], object]) -> Size:
    return Size(count_macs(run), sum(p.numel() for p in network.parameters()))


def size_table() -> Table:
    """What is compared, with the excess of each opponent's MACs over ours."""
    ours = size_of_ours()
    sizes = {"izograf": ours} | {f"diffusers {o}": size_of_theirs(o) for o in OPPONENTS}
    return Table(
        "networks, one evaluation of one 64 px picture",
        [
            {
                "network": name,
                "MMACs": size.macs / 1e6,
                "M parameters": size.parameters / 1e6,
                "MACs / ours": round(size.macs / ours.macs, 3),
            }
            for name, size in sizes.items()
        ],
    )
