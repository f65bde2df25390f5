"""A transformer with long skips, everything a token, trained as a rectified flow."""

from __future__ import annotations

from dataclasses import replace

from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.models.transformer import TransformerConfig
from izograf.recipes.denoising import DEFAULTS, TAKES, denoising_job
from izograf.recipes.dit import dit_config
from izograf.recipes.registry import RunRequest, recipe
from izograf.training.run import Job

NAME = "uvit"
PAPER = "Bao et al. 2023 (arXiv:2209.12152); rectified flow after Lipman et al. 2023"


def uvit_config(image_size: int, num_classes: int) -> TransformerConfig:
    """The patches of `dit`, learned positions, and an odd depth: one block between the halves."""
    return replace(dit_config(image_size, num_classes), depth=9, positions="learned")


@recipe(
    NAME,
    summary="U-ViT, a transformer with long skips, rectified flow, class-conditional",
    paper=PAPER,
    objectives=PRECONDITIONERS,
    takes=TAKES,
)
def uvit(request: RunRequest) -> Job:
    """`--objective` names what the network predicts, rectified flow by default."""
    return denoising_job(
        request, name=NAME, paper=PAPER, network="uvit", config=uvit_config,
        defaults=replace(DEFAULTS, learning_rate=5e-4), summary="U-ViT",
    )  # fmt: skip
