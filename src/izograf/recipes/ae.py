"""A plain autoencoder; new pictures come from a Gaussian fitted to its codes."""

from __future__ import annotations

from dataclasses import replace

from izograf.objectives.reconstruction import RECONSTRUCTION_LOSSES
from izograf.recipes.autoencoding import DEFAULTS, autoencoding_job, unlabelled
from izograf.recipes.registry import RunRequest, recipe
from izograf.training.run import Job

NAME = "ae"
PAPER = "Hinton & Salakhutdinov 2006 (Science 313); sampled after Ghosh et al. 2020 (1903.12436)"


@recipe(
    NAME,
    summary="plain autoencoder: the closest reconstructions, samples in one pass",
    paper=PAPER,
    objectives=RECONSTRUCTION_LOSSES,
    takes=("perceptual",),
)
def ae(request: RunRequest) -> Job:
    """Reconstruction alone; classes are not used."""
    return autoencoding_job(
        unlabelled(request),
        name=NAME,
        paper=PAPER,
        summary="autoencoder",
        bound=None,
        defaults=replace(DEFAULTS, objective="mean-squared-error"),
    )
