"""PLMS, the pseudo linear multistep method: Adams-Bashforth in sigma.

Liu et al. 2022 (PNDM), eq. 11-13. Their transfer from one level to the next is linear in the noise
estimate and, for x = z / alpha, simply x + (sigma_t - sigma_s) e; so that the method is that of
Adams and Bashforth for dx/dsigma = e(x, sigma), with the weights of *equal* steps in sigma.
"""

from __future__ import annotations

from torch import Tensor

from izograf.core.types import Condition, Denoise, NoiseSource, OnStep
from izograf.diffusion.samplers import sampler
from izograf.diffusion.steps import level, number_pairs
from izograf.schema.options import OptionSpec, OptionValue

# Of the newest slope first, for one to four slopes (Hairer et al. 1993, table III.1.1).
_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
_WARM_UP_STEPS = 3


def _evaluations(num_steps: int, **options: OptionValue) -> int:
    if options["warm_up"] == "heun":
        return num_steps + min(1, num_steps - 1)
    return num_steps + 3 * min(_WARM_UP_STEPS, num_steps - 1)


@sampler(
    "plms",
    order=2,
    options=(
        OptionSpec(
            "warm_up", "choice", "heun", choices=("heun", "runge-kutta"),
            help="the first steps: one more evaluation, or nine more and a higher order",
        ),
    ),
    evaluations=_evaluations,
)  # fmt: skip
def plms(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
    *,
    warm_up: str = "heun",
) -> Tensor:
    """PLMS in Stable Diffusion's form: N + 1 evaluations for N steps.

    The first step is Heun's, whose second evaluation is not remembered: the level it reaches is
    evaluated again. The next ones use two, three and then four slopes. `warm_up="runge-kutta"`
    takes three steps of the classical method of order 4 first (PNDM; a middle level is the mean
    of its step's ends), which costs 9 evaluations more than N.

    Order: the weights are those of equal steps, so on any other smooth spacing, timesteps or
    ln sigma, each step errs by (difference of successive steps) x e' and the order is 2. On
    levels uniform in sigma, it is that of the start: 3 after Heun's step and the one with two
    slopes, 4 after Runge-Kutta. Levels that differ much in length from one step to the next, as a
    last one to sigma 0 may, pay with an error of the difference.
    """
    del noise
    slopes: list[Tensor] = []
    for i, (sigma, following) in enumerate(number_pairs(sigmas)):
        step = following - sigma
        x0 = denoise(x, level(sigma, x), condition)
        slopes = [(x - x0) / sigma, *slopes[:3]]
        if following > 0 and warm_up == "heun" and i == 0:
            ahead = _slope(denoise, x + step * slopes[0], following, condition)
            x = x + step / 2 * (slopes[0] + ahead)
        elif following > 0 and warm_up == "runge-kutta" and i < _WARM_UP_STEPS:
            middle = (sigma + following) / 2
            second = _slope(denoise, x + step / 2 * slopes[0], middle, condition)
            third = _slope(denoise, x + step / 2 * second, middle, condition)
            fourth = _slope(denoise, x + step * third, following, condition)
            x = x + step / 6 * (slopes[0] + 2 * second + 2 * third + fourth)
        else:
            for weight, slope in zip(_WEIGHTS[len(slopes) - 1], slopes, strict=True):
                x = x + (step * weight) * slope
        on_step(i + 1, len(sigmas) - 1, x0)
    return x


def _slope(denoise: Denoise, x: Tensor, sigma: float, condition: Condition) -> Tensor:
    return (x - denoise(x, level(sigma, x), condition)) / sigma
