"""Noise levels of one model: tables over its training timesteps, and schedules made of them.

A model trained on T discrete steps of betas knows the levels sigma_t = sqrt((1 - A_t) / A_t) with
A_t = prod (1 - beta) (Ho et al. 2020, eq. 4), for the state x = z / sqrt(A), where z, of unit
variance, is what such models are usually described with. Timesteps count from 0 (the least noise)
to T - 1; a table is float64 [T], increasing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from izograf.core.registry import Registry
from izograf.diffusion.schedules import Schedule
from izograf.schema.errors import InvalidInput

BETAS: Registry[Callable[..., Tensor]] = Registry("beta schedule")
Spacing = Literal["leading", "trailing", "linspace"]


@BETAS.register("linear")
def linear_betas(num_train_steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Ho et al. 2020, section 4; float64 [T]."""
    return torch.linspace(start, end, num_train_steps, dtype=torch.float64)


@BETAS.register("scaled-linear")
def scaled_linear_betas(
    num_train_steps: int = 1000, start: float = 0.00085, end: float = 0.012
) -> Tensor:
    """Uniform in the square root: latent diffusion's (Rombach et al. 2022); float64 [T]."""
    ends = math.sqrt(start), math.sqrt(end)
    return torch.linspace(*ends, num_train_steps, dtype=torch.float64).square()


@BETAS.register("cosine")
def cosine_betas(
    num_train_steps: int = 1000, offset: float = 0.008, largest: float = 0.999
) -> Tensor:
    """Nichol & Dhariwal 2021, eq. 17; float64 [T], none above `largest`."""
    t = torch.linspace(0, 1, num_train_steps + 1, dtype=torch.float64)
    kept = ((t + offset) / (1 + offset) * math.pi / 2).cos().square()
    return (1 - kept[1:] / kept[:-1]).clamp(max=largest)


def table_of(betas: Tensor) -> Tensor:
    """sigma_t = sqrt((1 - A_t) / A_t), A_t = prod (1 - beta), float64 [T] increasing.

    Raises:
        InvalidInput: a beta is not between 0 and 1, both excluded.
    """
    if betas.ndim != 1 or len(betas) == 0 or not bool(((betas > 0) & (betas < 1)).all()):
        raise InvalidInput("betas must be a list of numbers between 0 and 1, both excluded.")
    exponents = (-betas.double()).log1p().cumsum(0)
    return (-exponents).expm1().sqrt()


def level_at(table: Tensor, timesteps: Tensor) -> Tensor:
    """The levels at timesteps [N], which may be fractional: linear in sigma between two."""
    below = timesteps.double().floor().clamp(0, len(table) - 1)
    first = below.long()
    second = (first + 1).clamp(max=len(table) - 1)
    return torch.lerp(table[first], table[second], timesteps.double() - below)


def timestep_at(table: Tensor, sigmas: Tensor) -> Tensor:
    """The fractional timesteps of levels [N], the inverse of `level_at`; clamped to the table."""
    wanted = sigmas.to(table).clamp(table[0], table[-1])
    second = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
    low, high = table[second - 1], table[second]
    return second - 1 + (wanted - low) / (high - low)


def timesteps(
    spacing: Spacing,
    num_steps: int,
    num_train_steps: int = 1000,
    *,
    offset: int = 0,
    whole: bool = True,
    spare: bool = False,
) -> Tensor:
    """N timesteps, decreasing, float64 [N] (Lin et al. 2024, table 2).

    Args:
        spacing: `trailing` begins at the last timestep and takes every (T/N)-th; `leading` takes
            every floor(T/N)-th from `offset` on, so never the noisiest; `linspace` takes both ends.
        num_steps: N, at most T.
        num_train_steps: T.
        offset: added by `leading` (1 for Stable Diffusion); no effect on the others.
        whole: round `linspace` to whole timesteps (Euler's method does without).
        spare: take N + 1 and leave the smallest, as is usual for the DPM-Solvers and UniPC; no
            effect on `trailing`.

    Raises:
        InvalidInput: more steps than timesteps, or none, or an unknown spacing.
    """
    count = num_steps + (spare and spacing != "trailing")
    if num_steps < 1 or count > num_train_steps:
        raise InvalidInput(
            f"Between 1 and {num_train_steps} steps fit on {num_train_steps} timesteps, "
            f"got {num_steps}."
        )
    if spacing == "trailing":
        places = num_train_steps * (1 - torch.arange(num_steps, dtype=torch.float64) / num_steps)
        return places.round() - 1
    if spacing == "leading":
        rising = torch.arange(count, dtype=torch.float64) * (num_train_steps // count) + offset
    elif spacing == "linspace":
        rising = torch.linspace(0, num_train_steps - 1, count, dtype=torch.float64)
        rising = rising.round() if whole else rising
    else:
        raise InvalidInput(f"spacing must be leading, trailing or linspace, got {spacing!r}.")
    return rising.flip(0)[:num_steps]


def spaced(
    table: Tensor,
    spacing: Spacing = "trailing",
    *,
    offset: int = 0,
    whole: bool = True,
    spare: bool = False,
    ends_at: Literal["zero", "table"] = "zero",
) -> Schedule:
    """The schedule of levels at timesteps of `table`; see `timesteps` for the arguments.

    `ends_at="table"` ends at the level of timestep 0 instead of 0, as Stable Diffusion's DDIM and
    PLMS do: what is left there is x = x0 + sigma_0 n. A schedule that visits timestep 0 anyway
    then has one step less. The bounds a schedule is called with are ignored: the table has its own.
    """

    def schedule(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
        del sigma_min, sigma_max
        places = timesteps(spacing, num_steps, len(table), offset=offset, whole=whole, spare=spare)
        levels = level_at(table, places)
        end = table[:1] if ends_at == "table" else table.new_zeros(1)
        return torch.cat([levels[levels > end], end])

    return schedule


def stored(levels: Sequence[float]) -> Schedule:
    """A schedule optimised for one model, as a card may carry it (Sabour et al. 2024).

    Align Your Steps publishes M + 1 decreasing levels for M steps; for N steps they are
    interpolated linearly in ln sigma to N + 1, of which the last is replaced by 0. A list that
    ends in 0 is taken to end in what the levels before it, continued geometrically, lead to. The
    bounds a schedule is called with are ignored.

    Raises:
        InvalidInput: fewer than two levels above 0, or they do not decrease.
    """
    given = torch.tensor(levels, dtype=torch.float64)
    if len(given) > 2 and float(given[-1]) == 0:
        given = torch.cat([given[:-1], given[-2:-1].square() / given[-3:-2]])
    if len(given) < 2 or not bool((given > 0).all() and (given.diff() < 0).all()):
        raise InvalidInput("The levels of a schedule must be at least two, positive, decreasing.")

    def schedule(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
        del sigma_min, sigma_max
        places = torch.linspace(0, len(given) - 1, num_steps + 1, dtype=torch.float64)
        sigmas = level_at(given.log(), places).exp()
        return torch.cat([sigmas[:-1], sigmas.new_zeros(1)])

    return schedule


def fixed(levels: Sequence[float]) -> Schedule:
    """The N + 1 levels that a student was trained at, the last of them 0, and no others.

    Fewer than N steps visit as many of the levels, evenly spaced in the list, from the first. The
    bounds a schedule is called with are ignored.

    Raises:
        InvalidInput: no level above 0, they do not decrease to 0, or more than N steps are asked.
    """
    given = torch.tensor(levels, dtype=torch.float64)
    falling = bool(given.isfinite().all() and (given.diff() < 0).all())
    if len(given) < 2 or float(given[-1]) != 0 or not falling:
        raise InvalidInput("The levels of a student must decrease to 0 from at least one above.")

    def schedule(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
        del sigma_min, sigma_max
        if not 1 <= num_steps < len(given):
            raise InvalidInput(
                f"The student was trained for at most {len(given) - 1} steps, got {num_steps}."
            )
        places = torch.linspace(0, len(given) - 1, num_steps + 1, dtype=torch.float64)
        return given[places.round().long()]

    return schedule


def start_state(noise: Tensor, sigma: float) -> Tensor:
    """x at level sigma for unit noise z: z sqrt(1 + sigma^2), where models of a table start.

    That is what "z of unit variance" means in x. Euler's method with `linspace` or `trailing`
    levels customarily starts at z sigma instead, as models without a table do.
    """
    return noise * math.sqrt(1 + sigma**2)


def unit_state(x: Tensor, sigma: float) -> Tensor:
    """z = x / sqrt(1 + sigma^2): what a schedule that ends at sigma > 0 calls its result."""
    return x / math.sqrt(1 + sigma**2)
