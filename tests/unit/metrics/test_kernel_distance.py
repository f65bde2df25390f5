"""The kernel distance: unbiased, reproducible, and the same with and without shortcuts."""

from __future__ import annotations

import pytest
import torch

from izograf.metrics.kid import kernel_distance, squared_mmd
from izograf.metrics.registry import METRICS
from izograf.schema.errors import InvalidInput


def normal(count: int, dim: int = 6, *, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_unbiased_around_zero() -> None:
    values = torch.tensor(
        [squared_mmd(normal(20, seed=2 * i), normal(30, seed=2 * i + 1)) for i in range(300)]
    )
    assert abs(values.mean()) < 3 * values.std() / len(values) ** 0.5
    assert values.min() < 0 < values.max()


def test_does_not_depend_on_the_count() -> None:
    small = [squared_mmd(normal(30, seed=i), normal(30, seed=i + 99, shift=1)) for i in range(60)]
    large = squared_mmd(normal(3000, seed=7), normal(3000, seed=8, shift=1))
    assert sum(small) / len(small) == pytest.approx(large, rel=0.1)


def test_published_subsets_agree_with_all_rows() -> None:
    real, fake = normal(400, seed=0), normal(300, seed=1, shift=0.5)
    subsets = kernel_distance(real, fake, rng(), num_subsets=50, subset_size=100)
    assert subsets.mean == pytest.approx(squared_mmd(real, fake), abs=3 * subsets.std / 50**0.5)
    assert subsets == kernel_distance(real, fake, rng(), num_subsets=50, subset_size=100)
    assert subsets != kernel_distance(real, fake, rng(1), num_subsets=50, subset_size=100)


def test_replicates_equal_recomputation() -> None:
    real = normal(40, seed=0)
    groups = list(normal(33, seed=1, shift=0.3).tensor_split(5))
    fast = METRICS["kid"].replicates
    assert fast is not None
    for index, value in enumerate(fast(real, groups)):
        rest = torch.cat(groups[:index] + groups[index + 1 :])
        assert value == pytest.approx(squared_mmd(real, rest), rel=1e-9, abs=1e-12)


def test_unusable_features_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 2"):
        squared_mmd(normal(1, seed=0), normal(5, seed=1))
    with pytest.raises(InvalidInput, match="dimensions"):
        squared_mmd(normal(5, 3, seed=0), normal(5, 4, seed=1))
