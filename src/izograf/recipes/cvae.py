"""A variational autoencoder whose encoder and decoder know the class."""

from __future__ import annotations

from dataclasses import replace

from izograf.objectives.reconstruction import RECONSTRUCTION_LOSSES
from izograf.recipes.autoencoding import BOUND, DEFAULTS, autoencoding_job
from izograf.recipes.registry import RunRequest, recipe
from izograf.schema.errors import DataError
from izograf.training.run import Job

NAME = "cvae"
PAPER = "Sohn et al. 2015 (Learning structured output representation); Rybkin et al. 2021"


@recipe(
    NAME,
    summary="conditional VAE: samples a class, shows a picture as another class",
    paper=PAPER,
    objectives=RECONSTRUCTION_LOSSES,
    takes=("perceptual",),
)
def cvae(request: RunRequest) -> Job:
    """The evidence lower bound given the class, which is sometimes dropped."""
    if len(request.train.classes) < 2:
        raise DataError(
            "A conditional VAE needs pictures of at least two classes: put each class in its own "
            "folder, or train the recipe vae."
        )
    return autoencoding_job(
        request,
        name=NAME,
        paper=PAPER,
        summary="conditional VAE",
        bound=BOUND,
        defaults=replace(DEFAULTS, class_dropout=0.1),
    )
