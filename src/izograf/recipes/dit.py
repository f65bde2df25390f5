"""A diffusion transformer, trained as a rectified flow."""

from __future__ import annotations

from dataclasses import replace

from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.models.transformer import TransformerConfig
from izograf.recipes.denoising import DEFAULTS, TAKES, denoising_job
from izograf.recipes.registry import RunRequest, recipe
from izograf.training.run import Job

NAME = "dit"
PAPER = "Peebles & Xie 2023 (arXiv:2212.09748); rectified flow after Lipman et al. 2023"
MOST_TOKENS = 32  # along a side


def dit_config(image_size: int, num_classes: int) -> TransformerConfig:
    """The default network for a picture size: patches of 4 pixels, larger from 128 pixels on."""
    return TransformerConfig(
        image_size=image_size,
        num_classes=num_classes,
        patch_size=default_patch(image_size),
        width=256,
        depth=8,
    )


def default_patch(image_size: int) -> int:
    """The largest divisor of the picture's size up to 4 pixels, or up to a 16th of the size.

    Raises:
        ValueError: too small a picture, or one whose size has no such divisor.
    """
    if image_size < 4:
        raise ValueError(f"image_size must be at least 4, got {image_size}")
    most = max(4, image_size // 16)
    patch = max(size for size in range(1, most + 1) if image_size % size == 0)
    if image_size // patch > MOST_TOKENS:
        raise ValueError(
            f"image_size must be divisible into at most {MOST_TOKENS} patches along a side, and "
            f"{image_size} has no divisor for that"
        )
    return patch


@recipe(
    NAME,
    summary="diffusion transformer with adaLN-zero, rectified flow, class-conditional",
    paper=PAPER,
    objectives=PRECONDITIONERS,
    takes=TAKES,
)
def dit(request: RunRequest) -> Job:
    """`--objective` names what the network predicts, rectified flow by default."""
    return denoising_job(
        request, name=NAME, paper=PAPER, network="dit", config=dit_config,
        defaults=replace(DEFAULTS, learning_rate=5e-4), summary="diffusion transformer",
    )  # fmt: skip
