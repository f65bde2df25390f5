"""DPM-Solver++: exponential integrators for the data prediction D(x, sigma).

Lu et al. 2022b (arXiv:2211.01095). With alpha = 1 and lambda = -ln sigma, a step of length h is
x_t = e^-h x_s + (1 - e^-h) D for a constant D, exact even to sigma = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from izograf.core.types import Condition, Denoise, NoiseSource, OnStep
from izograf.diffusion.samplers import sampler
from izograf.diffusion.singlestep import integrate
from izograf.diffusion.steps import level, number_pairs, pairs
from izograf.schema.options import OptionSpec


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

    Lu et al. 2022b, algorithm 2: the first step and a step to sigma = 0 are of order 1.
    """
    del noise
    earlier: Tensor | None = None
    steps = pairs(sigmas)
    for i, (sigma, following) in enumerate(steps):
        x0 = denoise(x, level(sigma, x), condition)
        direction = x0
        if earlier is not None and following > 0:
            h, h_before = (sigma / following).log(), (steps[i - 1][0] / sigma).log()
            direction = x0 + (h / (2 * h_before)) * (x0 - earlier)
        ratio = following / sigma
        x = ratio * x + (1 - ratio) * direction
        earlier = x0
        on_step(i + 1, len(sigmas) - 1, x0)
    return x


@sampler("dpm-solver++-2s", order=2)
def dpm_solver_plus_plus_2s(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
) -> Tensor:
    """DPM-Solver++(2S): order 2 singlestep, one evaluation a level, two a step (`singlestep`).

    Lu et al. 2022b, algorithm 1, with r given by the levels (1/2 where uniform in ln sigma).
    """
    del noise
    return integrate(_update, _data, 2, denoise, x, sigmas, condition, on_step)


def _data(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    del x, sigma
    return x0


def _update(
    x: Tensor, levels: Sequence[float], outputs: Sequence[Tensor], target: float, size: int
) -> Tensor:
    del size
    start, direction = levels[0], outputs[0]
    if len(outputs) == 2:
        r = math.log(start / levels[1]) / math.log(start / target)
        direction = direction + (outputs[1] - outputs[0]) / (2 * r)
    ratio = target / start
    return ratio * x + (1 - ratio) * direction


@sampler(
    "dpm-solver++-sde",
    order=None,
    options=(
        OptionSpec(
            "eta", "number", 1.0, minimum=0, maximum=1,
            help="how much fresh noise a step draws: 0 none, 1 as the paper",
        ),
    ),
)  # fmt: skip
def dpm_solver_plus_plus_sde(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
    *,
    eta: float = 1.0,
) -> Tensor:
    """SDE-DPM-Solver++(2M): the multistep method on the reverse diffusion, one evaluation a step.

    Lu et al. 2022b, appendix on the SDE: over a step of length h the noise that the equation adds
    is a Gaussian of variance sigma_t^2 (1 - e^-2h), drawn exactly and not by Euler-Maruyama. The
    first step and a step to sigma = 0 are of order 1, which is DDPM's posterior.

    eta weighs the equation's noise term: h becomes eta h in the noise, and x contracts by
    e^-(1 + eta) h. eta = 0 is DPM-Solver++(2M).
    """
    earlier: Tensor | None = None
    h_before = 0.0
    for i, (sigma, following) in enumerate(number_pairs(sigmas)):
        x0 = denoise(x, level(sigma, x), condition)
        direction, ratio = x0, following / sigma
        h = -math.log(ratio) if following > 0 else math.inf
        if earlier is not None and following > 0:
            direction = x0 + (h / (2 * h_before)) * (x0 - earlier)
        kept = ratio ** (1 + eta)
        x = kept * x + (1 - kept) * direction
        fresh = following * math.sqrt(1 - ratio ** (2 * eta))
        if fresh > 0:
            x = x + fresh * noise().to(x.dtype)
        earlier, h_before = x0, h
        on_step(i + 1, len(sigmas) - 1, x0)
    return x
