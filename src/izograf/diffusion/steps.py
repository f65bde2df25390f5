"""What the samplers share: the levels of a schedule in pairs, and a level per picture.

Levels are read on the CPU once, so that a condition on one (`following > 0`) never waits for an
accelerator; coefficients made of them are numbers, not tensors of the device.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def pairs(sigmas: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(level, following level) of every step, scalar tensors of `sigmas`' dtype on the CPU."""
    return list(itertools.pairwise(sigmas.cpu()))


def number_pairs(sigmas: Tensor) -> list[tuple[float, float]]:
    """(level, following level) of every step as Python numbers, exact in double precision."""
    return list(itertools.pairwise(sigmas.tolist()))


def level(sigma: Tensor | float, x: Tensor) -> Tensor:
    """The level of every picture, [B], in x's dtype and on its device: what `Denoise` takes."""
    return torch.full((len(x),), float(sigma), dtype=x.dtype, device=x.device)
