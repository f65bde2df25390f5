"""Randomness is always explicit: derived seeds, one stream per image, no global generator."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed determined by `parts`; distinct parts give independent streams.

    Training needs no generator state in its checkpoints: step k of phase p draws from
    `derive_seed(seed, k, p)`, so a resumed run continues exactly.
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` seeded by `derive_seed(*parts)`."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))


@dataclass(frozen=True)
class Blend:
    """A seed between two seeds: noise `share` (from 0 to 1) of the way from `start` to `end`."""

    start: int
    end: int
    share: float

    @property
    def weights(self) -> Sequence[tuple[int, float]]:
        """The seeds whose noise is summed, each with its weight; the squares sum to 1.

        Spherical interpolation (Shoemake 1985) at the right angle that independent normal vectors
        have between them on average, so that each point of the way is standard normal as well.
        """
        if self.start == self.end or self.share <= 0:
            return ((self.start, 1.0),)
        if self.share >= 1:
            return ((self.end, 1.0),)
        angle = self.share * math.pi / 2
        return ((self.start, math.cos(angle)), (self.end, math.sin(angle)))


Seed = int | Blend
"""What determines the noise of one image."""


class SeededNoise:
    """Standard normal noise [B,*shape] with one CPU stream per image seed (two for a `Blend`).

    Image i depends on `seeds[i]` alone: not on its batch mates, their number, or the device.
    Successive calls continue the streams. The ends of a blend are bitwise those of its seeds.
    """

    def __init__(
        self, shape: Sequence[int], seeds: Sequence[Seed], device: torch.device | str = "cpu"
    ) -> None:
        self._shape = tuple(shape)
        self._streams = [_streams(seed) for seed in seeds]
        self._device = device

    def __call__(self) -> Tensor:
        return torch.stack([self._draw(streams) for streams in self._streams]).to(self._device)

    def _draw(self, streams: _Streams) -> Tensor:
        drawn = [weight * torch.randn(self._shape, generator=rng) for rng, weight in streams]
        return sum(drawn[1:], start=drawn[0])


_Streams = Sequence[tuple[torch.Generator, float]]


def _streams(seed: Seed) -> _Streams:
    weights = seed.weights if isinstance(seed, Blend) else ((seed, 1.0),)
    return [(torch.Generator().manual_seed(start), weight) for start, weight in weights]


@contextmanager
def seeded_layers(*parts: int | str, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeds the global generator inside the block and restores it after.

    `nn.Dropout` and parameter initialisers accept no generator; this is the one place where
    they are made reproducible without touching the caller's global state.
    """
    index = torch.device(device)
    cuda = [index] if index.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derive_seed(*parts))
        yield
