"""UniPC: a predictor and a corrector of one form, for the data prediction.

Zhao et al. 2023 (arXiv:2302.04867), algorithms 5-8 and section 3.3 on B(h).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from izograf.core.types import Condition, Denoise, NoiseSource, OnStep
from izograf.diffusion.samplers import sampler
from izograf.diffusion.steps import level
from izograf.schema.options import OptionSpec


@sampler(
    "unipc",
    order=3,
    options=(
        OptionSpec(
            "solver_order", "integer", 2, minimum=1, maximum=3,
            help="p of UniPC-p, the order of its predictor; the corrector adds one",
        ),
        OptionSpec(
            "b_h", "choice", "bh2", choices=("bh1", "bh2"),
            help="the paper's B(h): h (for few steps without guidance) or e^h - 1",
        ),
    ),
)  # fmt: skip
def unipc(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
    *,
    solver_order: int = 2,
    b_h: str = "bh2",
) -> Tensor:
    """UniPC-p, multistep, data prediction, one evaluation a step.

    The denoiser's answer at a level first corrects the state there (UniC) and then predicts the
    next (UniP); it is not asked again at the corrected state. Order p + 1, although the last
    prediction is never corrected: 2 for p = 1, 3 for p = 2, and for p = 3 that of the first
    step, 3. Towards sigma 0 p falls by one a step, to 1 at the last, as in the authors' code.
    """
    del noise
    levels, total = sigmas.tolist(), len(sigmas) - 1
    history: list[tuple[float, Tensor]] = []  # (level, answer), the newest first
    start, order = x, 0
    for i, (sigma, following) in enumerate(itertools.pairwise(levels)):
        x0 = denoise(x, level(sigma, x), condition)
        if history:
            x = _advance(start, history[:order], sigma, b_h, answer=x0)
        history = [(sigma, x0), *history[: solver_order - 1]]
        left = total - i if levels[-1] == 0 else total
        start, order = x, min(solver_order, len(history), left)
        x = x0 if following == 0 else _advance(start, history[:order], following, b_h)
        on_step(i + 1, total, x0)
    return x


def _advance(
    x: Tensor,
    history: Sequence[tuple[float, Tensor]],
    target: float,
    b_h: str,
    answer: Tensor | None = None,
) -> Tensor:
    """x at history[0]'s level moved to `target`: UniP, or UniC if the answer there is known."""
    sigma, newest = history[0]
    ratio = target / sigma
    h = -math.log(ratio)
    places = [math.log(sigma / older) / h for older, _ in history[1:]]
    changes = [(x0 - newest) / r for r, (_, x0) in zip(places, history[1:], strict=True)]
    if answer is not None:
        places, changes = [*places, 1.0], [*changes, answer - newest]
    moved = ratio * x + (1 - ratio) * newest
    scale = -h if b_h == "bh1" else math.expm1(-h)
    for weight, change in zip(_weights(places, h, scale), changes, strict=True):
        moved = moved - (scale * weight) * change
    return moved


def _weights(places: Sequence[float], h: float, scale: float) -> list[float]:
    """The a_m: sum_m a_m r_m^(n-1) = n! phi_(n+1)(-h) (-h) / B(h) for n = 1, 2, ... (eq. 5).

    With one difference alone, 1/2 serves for both choices of B (the paper's section 3.3).
    """
    if len(places) < 2:
        return [0.5] * len(places)
    matrix, sides = list[list[float]](), list[float]()
    phi, factorial = math.expm1(-h) / -h, 1
    for n in range(1, len(places) + 1):
        factorial *= n
        phi = (phi - 1 / factorial) / -h
        matrix.append([r ** (n - 1) for r in places])
        sides.append(factorial * phi * -h / scale)
    solved = torch.linalg.solve(
        torch.tensor(matrix, dtype=torch.float64), torch.tensor(sides, dtype=torch.float64)
    )
    weights: list[float] = solved.tolist()
    return weights
