"""Randomness is always explicit: derived seeds, one stream per image, no global generator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


class SeededNoise:
    """Standard normal noise [B,*shape] with one CPU stream per image seed.

    Image i depends on `seeds[i]` alone: not on its batch mates, their number, or the device.
    Successive calls continue the streams.
    """

    def __init__(
        self, shape: Sequence[int], seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self._shape = tuple(shape)
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._device = device

    def __call__(self) -> Tensor:
        noise = [torch.randn(self._shape, generator=stream) for stream in self._streams]
        return torch.stack(noise).to(self._device)


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
