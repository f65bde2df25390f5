"""The classic: a U-Net that predicts the noise at the levels of a beta schedule."""

from __future__ import annotations

from dataclasses import replace

from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.recipes.denoising import DEFAULTS, TAKES, denoising_job
from izograf.recipes.diffusion_unet import unet_config
from izograf.recipes.registry import RunRequest, recipe
from izograf.training.run import Job

NAME = "ddpm"
PAPER = (
    "Ho et al. 2020 (arXiv:2006.11239); cosine schedule and learned variance after Nichol & "
    "Dhariwal 2021, min-SNR weighting after Hang et al. 2023"
)


@recipe(
    NAME,
    summary="DDPM: U-Net, predicts the noise, cosine schedule of 1000 steps, min-SNR weighting",
    paper=PAPER,
    objectives=PRECONDITIONERS,
    takes=TAKES,
)
def ddpm(request: RunRequest) -> Job:
    """`--noise-law linear --weighting uniform` is the paper of 2020.

    `--set learned_variance=true` learns the variance of a step as well.
    """
    return denoising_job(
        request, name=NAME, paper=PAPER, network="unet", config=unet_config,
        defaults=replace(
            DEFAULTS, objective="epsilon", noise_law="cosine", weighting="min-snr",
            learning_rate=5e-4,
        ),
        summary="DDPM",
    )  # fmt: skip
