"""A variational autoencoder, without classes."""

from __future__ import annotations

from izograf.objectives.reconstruction import RECONSTRUCTION_LOSSES
from izograf.recipes.autoencoding import BOUND, autoencoding_job, unlabelled
from izograf.recipes.registry import RunRequest, recipe
from izograf.training.run import Job

NAME = "vae"
PAPER = "Kingma & Welling 2014 (arXiv:1312.6114); sigma-VAE after Rybkin et al. 2021 (2006.13202)"


@recipe(
    NAME,
    summary="variational autoencoder: pictures to codes and back, one pass",
    paper=PAPER,
    objectives=RECONSTRUCTION_LOSSES,
    takes=("perceptual",),
)
def vae(request: RunRequest) -> Job:
    """The evidence lower bound; classes are not used."""
    return autoencoding_job(unlabelled(request), name=NAME, paper=PAPER, summary="VAE", bound=BOUND)
