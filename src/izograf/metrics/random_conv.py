"""A small convolutional network with seeded random weights as extractor: for tests.

It needs no file, runs in a millisecond, and still reacts to blur, noise and content; but nobody
else's numbers are made with it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from izograf.core.rng import seeded_layers
from izograf.metrics.extractors import checked_pictures
from izograf.metrics.registry import EXTRACTORS, ExtractorSource
from izograf.metrics.resizing import antialiased, antialiased_name, only_resize
from izograf.metrics.weights import frozen, state_sha256
from izograf.schema.errors import InvalidInput

RANDOM_CONV_ID = "random-conv"
INPUT_SIZE = 32
NUM_FEATURES = 64


class RandomConv(nn.Module):
    """uint8 pictures [B,3,H,W] -> [B,64]: three strided 3x3 convolutions and a spatial mean."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, NUM_FEATURES)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor) -> Tensor:
        x = antialiased(pictures, INPUT_SIZE) / 127.5 - 1
        return self.layers(x).mean(dim=(2, 3))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RandomConvExtractor:
    """The `random-conv` feature extractor."""

    network: RandomConv
    sha256: str
    device: str = "cpu"
    id: str = RANDOM_CONV_ID
    dimension: int = NUM_FEATURES
    resize: str = antialiased_name(INPUT_SIZE)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.network(checked_pictures(pictures).to(self.device))
        return features.cpu()


@EXTRACTORS.register(RANDOM_CONV_ID)
def open_random_conv(source: ExtractorSource) -> RandomConvExtractor:
    """The extractor; always the same weights."""
    only_resize(source.resize, antialiased_name(INPUT_SIZE), RANDOM_CONV_ID)
    if source.weights is not None:
        raise InvalidInput(f"The extractor {RANDOM_CONV_ID} takes no weights file.")
    with seeded_layers(RANDOM_CONV_ID):
        network = RandomConv()
    frozen(network, source.device)
    return RandomConvExtractor(network, state_sha256(network), source.device)
