"""Fidelity and coverage by nearest neighbours: precision, recall, density, coverage.

A set's manifold is the union of balls around its points that reach to their k-th neighbour.
Precision and recall: Kynkaanniemi et al. 2019, eq. 2, k = 3. Density and coverage: Naeem et al.
2020, section 3, k = 5. Distances are Euclidean, float64, in blocks: memory grows with N, not N^2.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from izograf.metrics.registry import feature_metric
from izograf.schema.errors import InvalidInput

MANIFOLD_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
BLOCK_ROWS = 1024


@feature_metric("precision", ideal=1.0, higher_is_better=True)
def precision(real: Tensor, fake: Tensor, rng: torch.Generator) -> float:  # noqa: ARG001
    """Share of fakes inside the manifold of the reals, in [0,1]: fidelity."""
    return _share_inside(fake, real)


@feature_metric("recall", ideal=1.0, higher_is_better=True)
def recall(real: Tensor, fake: Tensor, rng: torch.Generator) -> float:  # noqa: ARG001
    """Share of reals inside the manifold of the fakes, in [0,1]: diversity."""
    return _share_inside(real, fake)


@feature_metric("density", ideal=1.0, higher_is_better=True)
def density(real: Tensor, fake: Tensor, rng: torch.Generator) -> float:  # noqa: ARG001
    """How many balls of reals hold a fake, on average, over k; may exceed 1."""
    radii = squared_radii(real, DENSITY_NEIGHBOURS)
    held = sum(int((block < radii).sum()) for block in _squared_distances(fake, real))
    return held / (DENSITY_NEIGHBOURS * len(fake))


@feature_metric("coverage", ideal=1.0, higher_is_better=True)
def coverage(real: Tensor, fake: Tensor, rng: torch.Generator) -> float:  # noqa: ARG001
    """Share of reals whose ball holds at least one fake, in [0,1]."""
    radii = squared_radii(real, DENSITY_NEIGHBOURS)
    nearest = torch.cat([block.amin(dim=1) for block in _squared_distances(real, fake)])
    return float((nearest < radii).double().mean())


def squared_radii(rows: Tensor, k: int) -> Tensor:
    """Squared distance of every row [N,D] to its k-th nearest other row, float64 [N].

    Raises:
        InvalidInput: there are not more than k rows.
    """
    if len(rows) <= k:
        raise InvalidInput(f"k = {k} neighbours need more than {k} pictures, got {len(rows)}.")
    # The nearest row is the row itself. topk is 8 times as fast here as kthvalue.
    nearest = [
        block.topk(k + 1, dim=1, largest=False).values for block in _squared_distances(rows, rows)
    ]
    return torch.cat(nearest)[:, -1]


def _share_inside(points: Tensor, manifold: Tensor) -> float:
    radii = squared_radii(manifold, MANIFOLD_NEIGHBOURS)
    inside = [(block <= radii).any(dim=1) for block in _squared_distances(points, manifold)]
    return float(torch.cat(inside).double().mean())


def _squared_distances(first: Tensor, second: Tensor) -> Iterator[Tensor]:
    """|a - b|^2 of blocks of rows of `first` with all rows of `second`, float64 [<=1024,M]."""
    if first.shape[1] != second.shape[1]:
        raise InvalidInput(
            f"Features of {first.shape[1]} and {second.shape[1]} dimensions cannot be compared."
        )
    # Around a common centre, rounding is relative to the spread, not to the offset.
    centre = second.double().mean(dim=0)
    columns = second.double() - centre
    lengths = columns.square().sum(dim=1)
    for block in torch.split(first, BLOCK_ROWS):
        rows = block.double() - centre
        products = rows @ columns.T
        yield (rows.square().sum(dim=1, keepdim=True) + lengths - 2 * products).clamp_(min=0)
