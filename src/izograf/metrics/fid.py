"""The Frechet distance between two Gaussians, and between two sets of features (FID, FD).

With features of the 2015 Inception it is the Frechet Inception distance (Heusel et al. 2017,
eq. 6); with any other extractor it is called `FD-<extractor id>`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from izograf.metrics.registry import feature_metric
from izograf.metrics.statistics import FeatureStatistics, leave_one_out
from izograf.schema.errors import InvalidInput

Array = Tensor | npt.NDArray[np.floating]


def frechet_distance(mean1: Array, cov1: Array, mean2: Array, cov2: Array) -> float:
    """Squared 2-Wasserstein distance between two Gaussians (Dowson & Landau 1982).

    |m1 - m2|^2 + Tr(S1) + Tr(S2) - 2 Tr((S1^1/2 S2 S1^1/2)^1/2), in float64. Means are [D],
    covariances symmetric positive semi-definite [D,D] of any rank. The root is taken of
    eigenvalues of a symmetric matrix, hence always real. Symmetric in its arguments, and zero
    (never negative) for equal ones, up to about 1e-7 of the traces.

    Raises:
        InvalidInput: shapes disagree, or a value is NaN or infinite.
    """
    return ReferenceGaussian(mean1, cov1).distance(mean2, cov2)


class ReferenceGaussian:
    """The first argument of `frechet_distance`, its root taken once for many distances."""

    def __init__(self, mean: Array, covariance: Array) -> None:
        self._mean, covariance = _checked(mean, covariance)
        self._trace = covariance.trace()
        self._root = _root(covariance)

    def distance(self, mean: Array, covariance: Array) -> float:
        """The Frechet distance from the reference to this Gaussian."""
        mean, covariance = _checked(mean, covariance)
        if mean.shape != self._mean.shape:
            raise InvalidInput(
                f"Features of {len(self._mean)} and {len(mean)} dimensions cannot be compared."
            )
        product = self._root.T @ covariance @ self._root
        eigenvalues = torch.linalg.eigvalsh((product + product.T) / 2)
        spread = self._trace + covariance.trace() - 2 * eigenvalues.clamp(min=0).sqrt().sum()
        return max(0.0, float((mean - self._mean).square().sum() + spread))


def _root(covariance: Tensor) -> Tensor:
    """[D,R] with root @ root.T = covariance; R is its rank.

    Directions in which it is zero up to rounding are dropped: a later root would turn an
    eigenvalue error of 1e-16 into one of 1e-8, hundreds of times over.
    """
    values, vectors = torch.linalg.eigh(covariance)
    rounding = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    kept = values > rounding
    root: Tensor = vectors[:, kept] * values[kept].sqrt()
    return root


def _checked(mean: Array, covariance: Array) -> tuple[Tensor, Tensor]:
    mean, covariance = _float64(mean), _float64(covariance)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        raise InvalidInput(
            "The Frechet distance takes means [D] and covariances [D,D], got "
            f"{list(mean.shape)} and {list(covariance.shape)}."
        )
    if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
        raise InvalidInput("Means and covariances must be finite; some are NaN or infinite.")
    return mean, covariance


def _float64(array: Array) -> Tensor:
    tensor = array if isinstance(array, Tensor) else torch.as_tensor(np.asarray(array))
    return tensor.detach().cpu().double()


def _replicates(real: Tensor, groups: Sequence[Tensor]) -> list[float]:
    statistics = FeatureStatistics.of(real)
    reference = ReferenceGaussian(statistics.mean, statistics.covariance)
    parts = [FeatureStatistics.of(group) for group in groups]
    return [reference.distance(rest.mean, rest.covariance) for rest in leave_one_out(parts)]


@feature_metric(
    "frechet",
    ideal=0.0,
    higher_is_better=False,
    inception_name="FID",
    short_name="FD",
    replicates=_replicates,
)
def frechet(real: Tensor, fake: Tensor, rng: torch.Generator) -> float:  # noqa: ARG001
    """Frechet distance between the Gaussians fitted to two feature sets [N,D] and [M,D].

    Biased upwards by a term of order 1/N + 1/M that differs between generators (Chong &
    Forsyth 2020): numbers are comparable only at equal counts.
    """
    first, second = FeatureStatistics.of(real), FeatureStatistics.of(fake)
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
