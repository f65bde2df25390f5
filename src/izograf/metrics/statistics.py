"""Mean and covariance of a stream of feature rows, accumulated in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from izograf.schema.errors import InvalidInput


class FeatureStatistics:
    """Count, mean [D] and covariance [D,D] of all rows seen so far (Chan, Golub & LeVeque 1979).

    Batches are merged by their centred sums, so neither the batch size nor a large common
    offset of the features changes the result beyond float64 rounding.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.count = 0
        self._mean = torch.zeros(dimension, dtype=torch.float64)
        self._scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """The statistics of one matrix [N,D]."""
        if features.ndim != 2:
            raise InvalidInput(f"Features must be [N,D], got shape {tuple(features.shape)}.")
        return cls(features.shape[1]).update(features)

    def update(self, features: Tensor) -> FeatureStatistics:
        """Adds the rows of `features` [B,D], any float type; returns itself.

        Raises:
            InvalidInput: another dimension, or a value that is NaN or infinite.
        """
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise InvalidInput(
                f"Features must be [B,{self.dimension}], got shape {tuple(features.shape)}."
            )
        if len(features) == 0:
            return self
        rows = features.detach().cpu().double()
        if not torch.isfinite(rows).all():
            raise InvalidInput("Features contain NaN or infinite values.")
        mean = rows.mean(dim=0)
        centred = rows - mean
        self._merge(len(rows), mean, centred.T @ centred)
        return self

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Adds all rows that `other` has seen; returns itself."""
        if other.dimension != self.dimension:
            raise InvalidInput(
                f"Statistics of {self.dimension} and {other.dimension} features cannot be merged."
            )
        self._merge(other.count, other._mean, other._scatter)
        return self

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if count == 0:
            return
        total = self.count + count
        shift = mean - self._mean
        self._mean = self._mean + shift * (count / total)
        self._scatter = (
            self._scatter + scatter + torch.outer(shift, shift) * (self.count * count / total)
        )
        self.count = total

    @property
    def mean(self) -> Tensor:
        """float64 [D].

        Raises:
            InvalidInput: no row was seen.
        """
        if self.count < 1:
            raise InvalidInput("A mean needs at least 1 feature row.")
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (divisor N-1), float64 [D,D].

        Raises:
            InvalidInput: fewer than two rows were seen.
        """
        if self.count < 2:
            raise InvalidInput(f"A covariance needs at least 2 feature rows, got {self.count}.")
        return self._scatter / (self.count - 1)


def leave_one_out(parts: Sequence[FeatureStatistics]) -> Iterator[FeatureStatistics]:
    """For each of `parts`, the statistics of all the others, in linear time."""
    dimension = parts[0].dimension
    after = [FeatureStatistics(dimension)]
    for part in reversed(parts[1:]):
        after.append(FeatureStatistics(dimension).merge(after[-1]).merge(part))
    before = FeatureStatistics(dimension)
    for part in parts:
        yield FeatureStatistics(dimension).merge(before).merge(after.pop())
        before.merge(part)
