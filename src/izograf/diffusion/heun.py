"""Heun's method."""

from __future__ import annotations

from torch import Tensor

from izograf.core.types import Condition, Denoise, NoiseSource, OnStep
from izograf.diffusion.samplers import sampler
from izograf.diffusion.steps import level, pairs


@sampler("heun", order=2, evaluations=lambda num_steps: 2 * num_steps - 1)
def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
) -> Tensor:
    """Heun's method: order 2, two evaluations a step, one at the step to 0.

    Karras et al. 2022, algorithm 1.
    """
    del noise
    for i, (sigma, following) in enumerate(pairs(sigmas)):
        x0 = denoise(x, level(sigma, x), condition)
        slope = (x - x0) / sigma
        predicted = x + (following - sigma) * slope
        if following > 0:
            second = denoise(predicted, level(following, x), condition)
            slope = (slope + (predicted - second) / following) / 2
            predicted = x + (following - sigma) * slope
        x = predicted
        on_step(i + 1, len(sigmas) - 1, x0)
    return x
