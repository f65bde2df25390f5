"""Samplers: integrate the probability-flow equation, or its stochastic relatives, in sigma.

    dx/dsigma = (x - D(x, sigma)) / sigma                       (Karras et al. 2022, eq. 3)

Each takes (denoise, x at sigmas[0], sigmas [N+1] decreasing, condition, noise, on_step) and
returns x at sigmas[-1], which may be 0. A sampler never asks what the network predicts, and knows
neither guidance nor precision. x [B,C,H,W] keeps its dtype.

A new one is one file in this package with one decorated function.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from izograf.core.registry import Registry
from izograf.core.types import Condition, Denoise, NoiseSource, OnStep, Sampler


@dataclass(frozen=True)
class RegisteredSampler:
    """A sampler, called like its function, and what its author promises of it.

    Attributes:
        order: of convergence to the probability flow, error ~ (number of steps)^-order; `None`
            for a stochastic sampler, which follows the distribution and no path.
    """

    function: Sampler
    order: int | None

    def __call__(
        self,
        denoise: Denoise,
        x: Tensor,
        sigmas: Tensor,
        condition: Condition,
        noise: NoiseSource,
        on_step: OnStep,
    ) -> Tensor:
        return self.function(denoise, x, sigmas, condition, noise, on_step)


SAMPLERS: Registry[RegisteredSampler] = Registry("sampler", package="izograf.diffusion")


def sampler(name: str, *, order: int | None) -> Callable[[Sampler], Sampler]:
    """Registers the decorated function as the sampler `name`; returns the function unchanged."""

    def add(function: Sampler) -> Sampler:
        SAMPLERS.register(name)(RegisteredSampler(function, order))
        return function

    return add


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
    for i, (sigma, following) in enumerate(_steps(sigmas)):
        x0 = denoise(x, _levels(sigma, x), condition)
        x = x0 + (following / sigma) * (x - x0)
        on_step(i + 1, len(sigmas) - 1, x0)
    return x


@sampler("heun", order=2)
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
    for i, (sigma, following) in enumerate(_steps(sigmas)):
        x0 = denoise(x, _levels(sigma, x), condition)
        slope = (x - x0) / sigma
        predicted = x + (following - sigma) * slope
        if following > 0:
            second = denoise(predicted, _levels(following, x), condition)
            slope = (slope + (predicted - second) / following) / 2
            predicted = x + (following - sigma) * slope
        x = predicted
        on_step(i + 1, len(sigmas) - 1, x0)
    return x


@sampler("ddpm", order=None)
def ddpm(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
) -> Tensor:
    """Ancestral sampling from the posterior q(x_s | x_t, x0) (Ho et al. 2020, eq. 6-7).

    In sigma: mean x0 + (s^2/t^2)(x - x0), variance s^2 (t^2 - s^2) / t^2 for levels t > s. The
    same as k-diffusion's Euler ancestral with eta = 1. One evaluation a step.
    """
    for i, (sigma, following) in enumerate(_steps(sigmas)):
        x0 = denoise(x, _levels(sigma, x), condition)
        share = (following / sigma) ** 2
        x = x0 + share * (x - x0)
        if following > 0:
            deviation = following * (1 - share).sqrt()
            x = x + deviation * noise().to(x.dtype)
        on_step(i + 1, len(sigmas) - 1, x0)
    return x


@sampler("dpm-solver++", order=2)
def dpm_solver_plus_plus_2m(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
) -> Tensor:
    """DPM-Solver++(2M): order 2 multistep in ln sigma, one evaluation a step.

    Lu et al. 2022 (arXiv:2211.01095), algorithm 2, with alpha = 1: the first step and a step to
    sigma = 0 are of order 1.
    """
    del noise
    earlier: Tensor | None = None
    for i, (sigma, following) in enumerate(_steps(sigmas)):
        x0 = denoise(x, _levels(sigma, x), condition)
        direction = x0
        if earlier is not None and following > 0:
            h, h_before = (sigma / following).log(), (sigmas[i - 1] / sigma).log()
            direction = x0 + (h / (2 * h_before)) * (x0 - earlier)
        ratio = following / sigma
        x = ratio * x + (1 - ratio) * direction
        earlier = x0
        on_step(i + 1, len(sigmas) - 1, x0)
    return x


def _steps(sigmas: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(itertools.pairwise(sigmas))


def _levels(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.to(x.dtype).expand(len(x))
