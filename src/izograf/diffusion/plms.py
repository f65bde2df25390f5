"""PLMS, the pseudo linear multistep method: Adams-Bashforth in sigma.

Liu et al. 2022 (PNDM), eq. 11-13. Their transfer from one level to the next is linear in the noise
estimate and, for x = z / alpha, simply x + (sigma_t - sigma_s) e; so that the method is that of
Adams and Bashforth for dx/dsigma = e(x, sigma), with the weights of *equal* steps in sigma.
"""

from __future__ import annotations

import math

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
        OptionSpec(
            "combines", "choice", "noise", choices=("noise", "velocity"),
            help="answers of what are remembered; diffusers: what the network predicts",
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
    combines: str = "noise",
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

    `combines="velocity"` remembers v = (e - sigma x0) / sqrt(1 + sigma^2) of each step (Salimans &
    Ho 2022) and reads a combination of them as a slope where the step starts. The order is 1 then,
    for v of one state is no slope at another; it is how diffusers runs Stable Diffusion 2.
    """
    del noise
    velocity = combines == "velocity"

    def answer(at: Tensor, sigma: float, x0: Tensor) -> Tensor:
        noise = (at - x0) / sigma
        return (noise - sigma * x0) / math.sqrt(1 + sigma**2) if velocity else noise

    def slope(answered: Tensor, at: Tensor, sigma: float) -> Tensor:
        if not velocity:
            return answered
        return answered / math.sqrt(1 + sigma**2) + at * (sigma / (1 + sigma**2))

    def asked(at: Tensor, sigma: float) -> Tensor:
        return answer(at, sigma, denoise(at, level(sigma, at), condition))

    answers: list[Tensor] = []
    for i, (sigma, following) in enumerate(number_pairs(sigmas)):
        step = following - sigma
        x0 = denoise(x, level(sigma, x), condition)
        answers = [answer(x, sigma, x0), *answers[:3]]
        slopes = [slope(answered, x, sigma) for answered in answers]
        if following > 0 and warm_up == "heun" and i == 0:
            ahead = slope(asked(x + step * slopes[0], following), x, sigma)
            x = x + step / 2 * (slopes[0] + ahead)
        elif following > 0 and warm_up == "runge-kutta" and i < _WARM_UP_STEPS:
            middle = (sigma + following) / 2
            second = slope(asked(x + step / 2 * slopes[0], middle), x, sigma)
            third = slope(asked(x + step / 2 * second, middle), x, sigma)
            fourth = slope(asked(x + step * third, following), x, sigma)
            x = x + step / 6 * (slopes[0] + 2 * second + 2 * third + fourth)
        else:
            for weight, given in zip(_WEIGHTS[len(slopes) - 1], slopes, strict=True):
                x = x + (step * weight) * given
        on_step(i + 1, len(sigmas) - 1, x0)
    return x
