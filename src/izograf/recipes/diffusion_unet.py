"""The recommended recipe: a class-conditional diffusion U-Net trained as a rectified flow."""

from __future__ import annotations

from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.models.unet import UNetConfig
from izograf.recipes.denoising import TAKES, denoising_job
from izograf.recipes.registry import RunRequest, recipe
from izograf.training.run import Job

NAME = "diffusion-unet"
WIDTH = 96
PAPER = "Lipman et al. 2023 (arXiv:2210.02747); U-Net after Dhariwal & Nichol 2021"


def unet_config(image_size: int, num_classes: int) -> UNetConfig:
    """The default network for a picture size: an 8x8 bottleneck under a 4x4 pixel-unshuffle stem.

    Pictures too small for that stem get a finer one.
    """
    patch_size = 4 if image_size >= 64 else 2
    top = image_size // patch_size
    levels = 1
    while top // 2**levels >= 8 and top % 2**levels == 0:
        levels += 1
    multipliers = (1, 2, 2, 2, 2, 2)[:levels]
    bottom = top // 2 ** (levels - 1)
    return UNetConfig(
        image_size=image_size,
        num_classes=num_classes,
        patch_size=patch_size,
        width=WIDTH,
        multipliers=multipliers,
        depth=2,
        attention=(bottom,),
        head_dim=64 if levels > 1 else 32,  # must divide the channels, 96 with one level
    )


@recipe(
    NAME,
    summary="diffusion U-Net, rectified flow, class-conditional",
    paper=PAPER,
    objectives=PRECONDITIONERS,
    takes=TAKES,
)
def diffusion_unet(request: RunRequest) -> Job:
    """`--objective` names what the network predicts, rectified flow by default."""
    return denoising_job(
        request, name=NAME, paper=PAPER, network="unet", config=unet_config,
        summary="diffusion U-Net",
    )  # fmt: skip
