"""Sampling a consistency model: jump to the picture, add noise again, jump again."""

from __future__ import annotations

from torch import Tensor

from izograf.core.types import Condition, Denoise, NoiseSource, OnStep
from izograf.diffusion.samplers import sampler
from izograf.diffusion.steps import level, pairs


@sampler("consistency", order=None, any_model=False)
def consistency(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, algorithm 1): one evaluation a step.

    x0 = D(x, s_i), then x = x0 + s_{i+1} n with fresh noise. Right where D(x, s) is a picture of
    the data, as a consistency model answers; an ordinary denoiser answers with a mean of many.
    """
    for i, (sigma, following) in enumerate(pairs(sigmas)):
        x0 = denoise(x, level(sigma, x), condition)
        x = x0 + following * noise().to(x.dtype) if following > 0 else x0
        on_step(i + 1, len(sigmas) - 1, x0)
    return x
