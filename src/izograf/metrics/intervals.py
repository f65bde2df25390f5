"""Confidence intervals: the grouped jackknife for set metrics, Wilson's for shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from izograf.schema.errors import InvalidInput

Z95 = NormalDist().inv_cdf(0.975)


def random_groups(rows: Tensor, num_groups: int, rng: torch.Generator) -> list[Tensor]:
    """`rows` [N,D] dealt at random into at most `num_groups` groups of nearly equal size.

    Raises:
        InvalidInput: fewer than 4 rows or fewer than 2 groups.
    """
    if len(rows) < 4 or num_groups < 2:
        raise InvalidInput(
            "A jackknife interval needs at least 4 pictures and 2 groups, "
            f"got {len(rows)} and {num_groups}."
        )
    order = torch.randperm(len(rows), generator=rng)
    return list(rows[order].tensor_split(min(num_groups, len(rows) // 2)))


def jackknife_interval(value: float, replicates: Sequence[float]) -> tuple[float, float]:
    """95 % interval of `value` from its values without each of G groups of the sample.

    Standard error: Efron & Tibshirani 1993, eq. 11.5 with groups for points; Student's t with
    G - 1 degrees of freedom.
    """
    groups = len(replicates)
    mean = math.fsum(replicates) / groups
    squares = math.fsum((replicate - mean) ** 2 for replicate in replicates)
    half = student_t95(groups - 1) * math.sqrt((groups - 1) / groups * squares)
    return value - half, value + half


def student_t95(degrees: int) -> float:
    """The 0.975 quantile of Student's t, within 0.1 % (Abramowitz & Stegun, 26.7.5).

    The expansion is used from 6 degrees of freedom, exact values below.
    """
    small = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706)
    if degrees <= len(small):
        return small[degrees - 1]
    z = Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(degrees**power) for power, term in enumerate(terms, start=1))


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); stays inside [0,1] and never has zero width.

    Raises:
        InvalidInput: no trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise InvalidInput(f"A share needs at least one picture, got {successes} of {trials}.")
    share, square = successes / trials, Z95**2
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    spread = share * (1 - share) / trials + square / (4 * trials**2)
    half = Z95 * math.sqrt(spread) / (1 + square / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
