"""Our own classifier as feature extractor and as judge of class agreement.

The network lives in another layer; its constructor comes in through `ExtractorSource.networks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from izograf.core.rng import seeded_layers
from izograf.metrics.extractors import batches, checked_pictures
from izograf.metrics.registry import EXTRACTORS, ExtractorSource
from izograf.metrics.resizing import antialiased, antialiased_name, only_resize
from izograf.metrics.weights import frozen, load_weights, required, state_sha256
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.library import read_card

JUDGE_ID = "judge"
WEIGHTS_NAME = "weights.safetensors"


class JudgeNetwork(Protocol):
    """Float [B,3,S,S] in [-1,1] -> pooled features [B,D]; `head` makes class logits of them."""

    def features(self, x: Tensor, /) -> Tensor: ...

    def head(self, features: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class JudgeExtractor:
    """The `judge` feature extractor: the pooled penultimate layer, and class logits.

    Attributes:
        image_size: S; pictures of another size are resized to it.
        classes: class names in the order of the logits.
    """

    network: JudgeNetwork
    image_size: int
    classes: tuple[str, ...]
    sha256: str
    dimension: int
    device: str = "cpu"
    id: str = JUDGE_ID

    @property
    def resize(self) -> str:
        return antialiased_name(self.image_size)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        return self._features(pictures).float().cpu()

    @torch.no_grad()
    def logits(self, pictures: Tensor, *, batch_size: int = 64) -> Tensor:
        """uint8 [N,3,H,W] -> float32 [N,num_classes] on the CPU."""
        rows = [self.network.head(self._features(b)) for b in batches(pictures, batch_size)]
        return torch.cat(rows).float().cpu()

    def _features(self, pictures: Tensor) -> Tensor:
        pictures = checked_pictures(pictures).to(self.device)
        return self.network.features(antialiased(pictures, self.image_size) / 127.5 - 1)


def judge_from_network(
    network: nn.Module,
    *,
    image_size: int,
    classes: tuple[str, ...],
    sha256: str = "",
    device: str = "cpu",
) -> JudgeExtractor:
    """The extractor around a network in memory, which is put into evaluation mode."""
    judge = cast(JudgeNetwork, frozen(network, device))
    with torch.no_grad():
        sample = torch.zeros(1, 3, image_size, image_size, device=device)
        dimension = judge.features(sample).shape[1]
    return JudgeExtractor(
        judge, image_size, classes, sha256 or state_sha256(network), dimension, device
    )


@EXTRACTORS.register(JUDGE_ID)
def open_judge(source: ExtractorSource) -> JudgeExtractor:
    """The judge in a model folder (or beside its weights file), rebuilt from its card.

    Raises:
        NotFound: no card or no weights there.
        InvalidInput: no path was given, or `source.networks` cannot build the card's network.
        CardError: the card or the weights are malformed, or the weights are not the card's.
    """
    path = required(source.weights, JUDGE_ID)
    folder = path if path.is_dir() else path.parent
    card = read_card(folder)
    name = str(card.network.get("name"))
    if name not in source.networks:
        known = ", ".join(source.networks) or "none"
        raise InvalidInput(f"The judge's network {name!r} is not among those given: {known}.")
    only_resize(source.resize, antialiased_name(card.image_size), JUDGE_ID)
    with seeded_layers(JUDGE_ID):
        network = source.networks[name](card.network.get("config", {}))
    weights = folder / WEIGHTS_NAME if path.is_dir() else path
    sha256 = load_weights(network, weights)
    if card.weights.get(weights.name, sha256) != sha256:
        raise CardError(f"{weights} is not the file that its card describes: the sha256 differs.")
    return judge_from_network(
        network,
        image_size=card.image_size,
        classes=tuple(label.name for label in card.classes),
        sha256=sha256,
        device=source.device,
    )
