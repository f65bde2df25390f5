"""From `--perceptual NAME` to the features a loss compares pictures by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.checkpoints.files import read_weights
from izograf.core.devices import Placement
from izograf.generators.network import build_network
from izograf.models.classifier import Classifier
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.library import ZOO, find_model, read_card

GRID = 16  # pixels; a classifier's stages need sides that are a multiple of it


@dataclass(frozen=True)
class ClassifierFeatures:
    """The `Features` of a frozen classifier.

    Attributes:
        parent: the classifier as `name@sha256`.
    """

    network: Classifier
    parent: str

    def __call__(self, image: Tensor) -> list[Tensor]:
        sides = [-(-side // GRID) * GRID for side in image.shape[-2:]]
        if sides != list(image.shape[-2:]):
            image = F.interpolate(image, sides, mode="bilinear", antialias=True)
        return self.network.stages(image.contiguous(memory_format=torch.channels_last))


def features_of(name: str | None, placement: Placement) -> ClassifierFeatures | None:
    """The stages of the frozen classifier called `name` (or in the folder `name`); None without.

    Pictures are shown to it at their own size, enlarged where its stages cannot take that.
    Without a name there is no perceptual term: the features of a random network would be free of
    any choice, but see little that pixels do not.

    Raises:
        NotFound, CardError, UnsafeFile: no such model, or a broken one.
        InvalidInput: it is no classifier, or it is the bundled judge, whose verdicts on the
            finished model would no longer be independent.
    """
    if name is None:
        return None
    folder = find_model(name)
    card = read_card(folder)
    if card.family != "classifier":
        raise InvalidInput(
            f"--perceptual takes a classifier, and {card.name} is a {card.family} model: train "
            "one with `izograf train classifier`."
        )
    if folder.parent == ZOO:
        raise InvalidInput(
            f"{card.name} is the judge that measures finished models, so none may be trained to "
            "please it: train another with `izograf train classifier --seed 1`."
        )
    trained = Placement(placement.device, "fp32")  # autocast chooses the precision of products
    network = build_network(card, read_weights(folder, card), trained)
    assert isinstance(network, Classifier)
    return ClassifierFeatures(network, parent_of(card))


def parent_of(card: ModelCard) -> str:
    """How a card names a model it was derived from: `name@sha256`."""
    return f"{card.name}@{card.fingerprint}"
