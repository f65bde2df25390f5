"""Singlestep methods: steps of two or three levels, started anew each time.

Usually such a method is told of a step's ends and puts its inner evaluations where it likes. Here
the levels of the schedule are themselves the places of evaluation: consecutive levels are taken
together in groups, the first being the step's start and the others its inner points. So N levels
cost N evaluations, as with a multistep method, and both can be compared on one schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from izograf.core.types import Condition, Denoise, OnStep
from izograf.diffusion.steps import level

Output = Callable[[Tensor, Tensor, float], Tensor]
"""(x, x0, sigma) -> what the method interpolates: the data x0 or the noise (x - x0) / sigma."""

Update = Callable[[Tensor, Sequence[float], Sequence[Tensor], float, int], Tensor]
"""(x at levels[0], levels of the group so far, outputs there, target level, size of the group)."""


def group_sizes(num_levels: int, order: int, *, ends_at_zero: bool) -> list[int]:
    """How many evaluations each step gets, each the order of that step; they sum to `num_levels`.

    The step to sigma 0, infinitely long in ln sigma, is alone and of order 1. The rest is cut into
    threes (twos, ones); what remains at the end is one step of lower order, but 4 = 2 + 2, since a
    step of order 1 would spoil order 3. For a number of levels that 3 divides, or divides but for
    one, ending at 0 makes this the cut of "DPM-Solver-fast" (Lu et al. 2022a, section 3.4).
    """
    inner, last = (num_levels - 1, [1]) if ends_at_zero else (num_levels, [])
    whole, rest = divmod(inner, order)
    if (order, rest) == (3, 1) and whole > 0:
        return [3] * (whole - 1) + [2, 2, *last]
    return [order] * whole + ([rest] if rest else []) + last


def integrate(
    update: Update,
    output: Output,
    order: int,
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    on_step: OnStep,
) -> Tensor:
    """x at sigmas[-1]: within a group every update starts at the group's first state."""
    levels, total = sigmas.tolist(), len(sigmas) - 1
    first = 0
    for size in group_sizes(total, order, ends_at_zero=levels[-1] == 0):
        start, outputs = x, list[Tensor]()
        for i in range(first, first + size):
            x0 = denoise(x, level(levels[i], x), condition)
            outputs.append(output(x, x0, levels[i]))
            x = update(start, levels[first : i + 1], outputs, levels[i + 1], size)
            on_step(i + 1, total, x0)
        first += size
    return x
