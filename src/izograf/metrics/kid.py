"""The kernel distance (KID): squared maximum mean discrepancy with a cubic kernel.

Binkowski et al. 2018, section 4: k(x, y) = (x.y / D + 1)^3, and the unbiased estimator of MMD^2
(Gretton et al. 2012, lemma 6), whose expectation does not depend on the number of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from izograf.metrics.registry import feature_metric
from izograf.schema.errors import InvalidInput

DEGREE = 3
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation (divisor n) of the squared MMD over random subsets."""

    mean: float
    std: float


def kernel_distance(
    real: Tensor,
    fake: Tensor,
    rng: torch.Generator,
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
) -> KernelDistance:
    """KID as published: the squared MMD of `num_subsets` random subsets of `subset_size` rows.

    Where there are fewer rows than `subset_size`, all rows of the smaller set are used. The
    standard deviation describes subsets of that size, not the error of the mean: subsets
    overlap. Use it to quote numbers beside published ones.

    Raises:
        InvalidInput: fewer than two rows, or the dimensions differ.
    """
    _check(real, fake)
    size = min(subset_size, len(real), len(fake))
    values = torch.tensor(
        [
            squared_mmd(_subset(real, size, rng), _subset(fake, size, rng))
            for _ in range(num_subsets)
        ],
        dtype=torch.float64,
    )
    return KernelDistance(float(values.mean()), float(values.std(correction=0)))


def squared_mmd(real: Tensor, fake: Tensor) -> float:
    """Unbiased estimate of MMD^2 between feature sets [N,D] and [M,D], in float64 and in blocks.

    Zero in expectation for equal distributions, hence sometimes slightly negative.

    Raises:
        InvalidInput: fewer than two rows, or the dimensions differ.
    """
    _check(real, fake)
    within_real = (_sum(real, real) - _diagonal(real)) / (len(real) * (len(real) - 1))
    within_fake = (_sum(fake, fake) - _diagonal(fake)) / (len(fake) * (len(fake) - 1))
    return within_real + within_fake - 2 * _sum(real, fake) / (len(real) * len(fake))


def _subset(rows: Tensor, size: int, rng: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=rng)[:size]]


def _check(real: Tensor, fake: Tensor) -> None:
    if min(len(real), len(fake)) < 2:
        raise InvalidInput(
            f"The kernel distance needs at least 2 rows a side, got {len(real)} and {len(fake)}."
        )
    if real.shape[1] != fake.shape[1]:
        raise InvalidInput(
            f"Features of {real.shape[1]} and {fake.shape[1]} dimensions cannot be compared."
        )


def _sum(first: Tensor, second: Tensor) -> float:
    """The kernel summed over all pairs of rows."""
    columns = second.double().T / second.shape[1]
    blocks = torch.split(first, BLOCK_ROWS)
    return sum(float((block.double() @ columns).add_(1).pow_(DEGREE).sum()) for block in blocks)


def _diagonal(rows: Tensor) -> float:
    """The kernel summed over every row with itself."""
    squares = rows.double().square().sum(dim=1) / rows.shape[1]
    return float((squares + 1).pow(DEGREE).sum())


def _replicates(real: Tensor, groups: Sequence[Tensor]) -> list[float]:
    """Every pair of rows is visited once: the sums without a group are differences of sums."""
    n = len(real)
    within_real = (_sum(real, real) - _diagonal(real)) / (n * (n - 1))
    across = [_sum(group, real) for group in groups]
    within = [[_sum(a, b) for b in groups[: i + 1]] for i, a in enumerate(groups)]
    diagonals = [_diagonal(group) for group in groups]
    pairs = torch.tensor(
        [[within[max(i, j)][min(i, j)] for j in range(len(groups))] for i in range(len(groups))],
        dtype=torch.float64,
    )
    for i, diagonal in enumerate(diagonals):
        pairs[i, i] -= diagonal
    values = []
    for i, group in enumerate(groups):
        m = sum(map(len, groups)) - len(group)
        fakes = float(pairs.sum() - 2 * pairs[i].sum() + pairs[i, i]) / (m * (m - 1))
        values.append(within_real + fakes - 2 * (sum(across) - across[i]) / (n * m))
    return values


@feature_metric(
    "kid",
    ideal=0.0,
    higher_is_better=False,
    inception_name="KID",
    short_name="KD",
    replicates=_replicates,
)
def kid(real: Tensor, fake: Tensor, rng: torch.Generator) -> float:  # noqa: ARG001
    """`squared_mmd` over all rows.

    The same quantity as the mean of `kernel_distance` over subsets, with less variance and
    without a draw: the estimator is unbiased at every count.
    """
    return squared_mmd(real, fake)
