"""Euler's method."""

from __future__ import annotations

from torch import Tensor

from izograf.core.types import Condition, Denoise, NoiseSource, OnStep
from izograf.diffusion.samplers import sampler
from izograf.diffusion.steps import level, pairs


@sampler("euler", order=1)
def euler(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
) -> Tensor:
    """Euler's method: order 1, one evaluation a step.

    The same as DDIM with eta = 0 (Song et al. 2021, eq. 12).
    """
    del noise
    for i, (sigma, following) in enumerate(pairs(sigmas)):
        x0 = denoise(x, level(sigma, x), condition)
        x = x0 + (following / sigma) * (x - x0)
        on_step(i + 1, len(sigmas) - 1, x0)
    return x
