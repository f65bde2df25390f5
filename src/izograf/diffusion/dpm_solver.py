"""DPM-Solver: exponential integrators of order 1, 2 and 3 for the noise prediction.

Lu et al. 2022a (arXiv:2206.00927). With alpha = 1, lambda = -ln sigma and h the step in lambda,
sigma_t (e^h - 1) is sigma_s - sigma_t, so that the integrator's first order is Euler's method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from izograf.core.types import Condition, Denoise, NoiseSource, OnStep
from izograf.diffusion.samplers import sampler
from izograf.diffusion.singlestep import integrate
from izograf.schema.options import OptionSpec


@sampler(
    "dpm-solver",
    order=3,
    options=(
        OptionSpec(
            "solver_order", "integer", 3, minimum=1, maximum=3,
            help="evaluations taken together in one step, which is its order",
        ),
    ),
)  # fmt: skip
def dpm_solver(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
    *,
    solver_order: int = 3,
) -> Tensor:
    """DPM-Solver-1, -2 or -3 (Lu et al. 2022a, algorithms 1-2 and section 3.4).

    One evaluation a level (`singlestep`): by default steps of three evaluations and order 3, the
    remaining ones of lower order, as the paper's fast version spends N evaluations. With
    r1 = 1/2, or r1 = 1/3 and r2 = 2/3 (levels uniform in ln sigma), the formulas are exactly the
    algorithms'; other levels move r1 and r2, and the order stays where they are smoothly spaced.
    """
    del noise
    return integrate(_update, _noise, solver_order, denoise, x, sigmas, condition, on_step)


def _noise(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    return (x - x0) / sigma


def _update(
    x: Tensor, levels: Sequence[float], outputs: Sequence[Tensor], target: float, size: int
) -> Tensor:
    start, first = levels[0], outputs[0]
    euler = x + (target - start) * first
    if len(outputs) == 1:
        return euler
    h = math.log(start / target)
    change = (outputs[-1] - first) * (h / math.log(start / levels[-1]))
    if size == 2:  # algorithm 1, general r1: the exponential's first difference halved
        return euler + 0.5 * (target - start) * change
    return euler - ((start - target) / h - target) * change
