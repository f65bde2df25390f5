"""Diffusion that follows prompts: a U-Net of pixels whose stages attend to a text's tokens."""

from __future__ import annotations

from dataclasses import replace

from izograf.data.enrich import enriched
from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.recipes.denoising import DEFAULTS, TAKES, denoising_job
from izograf.recipes.diffusion_unet import WIDTH, unet_config
from izograf.recipes.prompts import Prompts
from izograf.recipes.registry import RunRequest, recipe
from izograf.training.run import Job

NAME = "text-to-image"
PAPER = "Rombach et al. 2022 (arXiv:2112.10752), in pixels; rectified flow after Lipman et al. 2023"


@recipe(
    NAME,
    summary="diffusion U-Net that follows prompts in two languages",
    paper=PAPER,
    objectives=PRECONDITIONERS,
    takes=(*TAKES, "text_encoder"),
    needs=("text_encoder",),
)
def text_to_image(request: RunRequest) -> Job:
    """`--text-encoder` is a model of the recipe `clip`; it stays as it is.

    The model holds a copy of it. Rare pictures count several times (`data.enrich`). `--init-from`
    a `diffusion-unet` of the same shape saves most of the time: what the pictures look like is
    learned already, and only the words are new.
    """
    given, request = request, replace(request, train=enriched(request.train))
    prompts = Prompts.open(
        request.hyperparameters.text_encoder or "",
        request,
        request.hyperparameters.placement(width=WIDTH),
        copies=len(request.train) - len(given.train),
    )
    return denoising_job(
        request,
        name=NAME,
        paper=PAPER,
        network="unet",
        config=unet_config,
        defaults=replace(DEFAULTS, learning_rate=6e-4),
        summary="text to image",
        prompts=prompts,
    )
