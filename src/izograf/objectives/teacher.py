"""What a teacher does: guided answers and steps, each picture at a noise level of its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from izograf.core.types import DROPPED, Condition, Denoise, Guidance, Sampler, ignore

Step = Callable[[Denoise, Tensor, Tensor, Tensor, Condition], Tensor]
"""(denoise, x at sigma, sigma [B], the following level [B], condition) -> x there."""


def guided_teacher(
    scale: float, *, sigma_low: float = 0.0, sigma_high: float = math.inf
) -> Guidance:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6), decided picture by picture.

    D_null + scale (D_cond - D_null) for pictures that have a class and sigma_low < sigma <=
    sigma_high (Kynkaanniemi et al. 2024); the others get the plain answer. The network is asked a
    second time for the guided ones only. `diffusion.guidance.classifier_free` is the same for
    sampling, where all pictures share a level.
    """

    def guide(denoise: Denoise) -> Denoise:
        def guided(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
            if condition.class_ids is None:
                return denoise(x, sigma, condition)
            wanted = (sigma > sigma_low) & (sigma <= sigma_high)
            chosen = (wanted & (condition.class_ids != DROPPED)).nonzero().squeeze(1)
            null = condition.map(lambda value: value[chosen]).to_null()
            both = denoise(
                torch.cat([x, x[chosen]]),
                torch.cat([sigma, sigma[chosen]]),
                condition.repeat_with(null),
            )
            plain, other = both[: len(x)], both[len(x) :]
            return plain.index_copy(0, chosen, other.lerp(plain[chosen], scale))

        return denoise if scale == 1 else guided

    return guide


def two_steps_in_one(
    denoise: Denoise,
    x: Tensor,
    levels: tuple[Tensor, Tensor, Tensor],
    condition: Condition,
    step: Step | None = None,
) -> Tensor:
    """The x0 whose single Euler step leads from `x` to where two steps of `denoise` lead.

    levels: (s, m, e), each [B], s > m > e >= 0. With x_e after two steps,
    x0 = (x_e - (e/s) x) / (1 - e/s)   (Salimans & Ho 2022, appendix G, in sigma).
    `step` is how `denoise` steps, `euler_step` by default.
    """
    step = step or euler_step
    start, middle, end = levels
    between = step(denoise, x, start, middle, condition)
    reached = step(denoise, between, middle, end, condition)
    return answer_to(x, reached, per_image(end / start))


def answer_to(x: Tensor, reached: Tensor, share: Tensor) -> Tensor:
    """The x0 whose single Euler step leads from `x` to `reached`, at `share` of its noise level."""
    return (reached - share * x) / (1 - share)


def euler_step(
    denoise: Denoise, x: Tensor, sigma: Tensor, following: Tensor, condition: Condition
) -> Tensor:
    """x at the levels `following` [B] from x at `sigma` [B], by DDIM (Song et al. 2021)."""
    x0 = denoise(x, sigma, condition)
    return x0 + per_image(following / sigma) * (x - x0)


def heun_step(
    denoise: Denoise, x: Tensor, sigma: Tensor, following: Tensor, condition: Condition
) -> Tensor:
    """As `euler_step`, by Heun's method where `following` is positive (Karras et al. 2022)."""
    x0 = denoise(x, sigma, condition)
    slope = (x - x0) / per_image(sigma)
    step = per_image(following - sigma)
    predicted = x + step * slope
    inner = following > 0
    if not bool(inner.any()):
        return predicted
    asked = torch.where(inner, following, sigma)  # the others' second slope is not used
    second = (predicted - denoise(predicted, asked, condition)) / per_image(asked)
    return torch.where(per_image(inner), x + step * (slope + second) / 2, predicted)


def trajectory(
    solver: Sampler, denoise: Denoise, x: Tensor, sigmas: Tensor, condition: Condition
) -> list[Tensor]:
    """The states at all levels `sigmas` [N+1], from `x` at the first to a picture at the last.

    `solver` asks for one answer at each level before the last, so its questions are the states.
    """
    states: list[Tensor] = []

    def asked(state: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        states.append(state)
        return denoise(state, sigma, condition)

    end = solver(asked, x, sigmas, condition, _no_noise, ignore)
    if len(states) != len(sigmas) - 1:
        raise ValueError(f"{len(states)} answers were asked for in {len(sigmas) - 1} steps")
    return [*states, end]


def _no_noise() -> Tensor:
    raise ValueError("a path is drawn by a solver that draws no noise")


def per_image(values: Tensor) -> Tensor:
    """[B] as [B,1,1,1]."""
    return values[:, None, None, None]
