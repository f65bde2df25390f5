"""Noise-level schedules: (number of steps, sigma_min, sigma_max) -> sigmas [N+1], ending at 0.

All are float64, strictly decreasing, start at sigma_max; the last level before 0 is sigma_min.
Schedules that belong to one model, made of its table of levels, are in `tables`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from izograf.core.registry import Registry

Schedule = Callable[[int, float, float], Tensor]
SCHEDULES: Registry[Schedule] = Registry("schedule", package="izograf.diffusion")


@SCHEDULES.register("karras")
def karras(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Karras et al. 2022, eq. 5, with rho = 7: short steps at low noise."""
    rho = 7.0
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return _ending_at_zero((high + ramp * (low - high)) ** rho)


@SCHEDULES.register("exponential")
def exponential(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Uniform in ln sigma, the natural time of exponential integrators (Lu et al. 2022)."""
    ends = math.log(sigma_max), math.log(sigma_min)
    return _ending_at_zero(torch.linspace(*ends, num_steps, dtype=torch.float64).exp())


@SCHEDULES.register("linear-time")
def linear_time(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Uniform in rectified-flow time t = sigma / (1 + sigma) (Liu et al. 2023)."""
    ends = sigma_max / (1 + sigma_max), sigma_min / (1 + sigma_min)
    t = torch.linspace(*ends, num_steps, dtype=torch.float64)
    return _ending_at_zero(t / (1 - t))


@SCHEDULES.register("linear-beta")
def linear_beta(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Uniform in the time of the linear variance-preserving process (Ho et al. 2020).

    ln(1 + sigma^2) = beta_0 t + (beta_1 - beta_0) t^2 / 2 with beta_0 = 0.1 and beta_1 = 20, the
    limit of 1000 steps of beta from 1e-4 to 0.02 (Song et al. 2021, score SDE, eq. 33).
    """
    slope, curve = 0.1, (20.0 - 0.1) / 2

    def time(sigma: float) -> float:
        exponent = math.log1p(sigma**2)
        return 2 * exponent / (slope + math.sqrt(slope**2 + 4 * curve * exponent))

    t = torch.linspace(time(sigma_max), time(sigma_min), num_steps, dtype=torch.float64)
    return _ending_at_zero((slope * t + curve * t**2).expm1().sqrt())


@SCHEDULES.register("cosine")
def cosine(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Uniform in the angle arctan(sigma): the cosine schedule (Nichol & Dhariwal 2021, eq. 17).

    Their small offset only bounds sigma from below, as sigma_min does here.
    """
    ends = math.atan(sigma_max), math.atan(sigma_min)
    return _ending_at_zero(torch.linspace(*ends, num_steps, dtype=torch.float64).tan())


def _ending_at_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])
