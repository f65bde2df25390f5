"""Streaming statistics: equal to the direct formula, whatever the batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from izograf.metrics.statistics import FeatureStatistics, leave_one_out
from izograf.schema.errors import InvalidInput


def rows(count: int, dim: int, *, seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=rng, dtype=torch.float64) + offset


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(2, 60),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_batch_size_does_not_matter(count: int, sizes: list[int], seed: int) -> None:
    features = rows(count, 5, seed=seed, offset=3.0)
    streamed = FeatureStatistics(5)
    start, turn = 0, 0
    while start < count:
        size = sizes[turn % len(sizes)]
        streamed.update(features[start : start + size])
        start, turn = start + size, turn + 1
    assert streamed.count == count
    torch.testing.assert_close(streamed.mean, features.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(streamed.covariance, features.T.cov(), rtol=1e-10, atol=1e-10)


def test_merge_equals_one_pass() -> None:
    features = rows(50, 4)
    merged = FeatureStatistics.of(features[:13]).merge(FeatureStatistics.of(features[13:]))
    torch.testing.assert_close(merged.covariance, FeatureStatistics.of(features).covariance)


def test_a_large_offset_does_not_cancel_the_covariance() -> None:
    near, far = rows(200, 3), rows(200, 3, offset=1e6)
    streamed = FeatureStatistics(3)
    for batch in far.split(7):
        streamed.update(batch)
    torch.testing.assert_close(streamed.covariance, near.T.cov(), rtol=1e-8, atol=1e-9)


def test_leave_one_out_equals_recomputation() -> None:
    parts = list(rows(40, 3).tensor_split(5))
    for index, rest in enumerate(leave_one_out([FeatureStatistics.of(p) for p in parts])):
        direct = torch.cat(parts[:index] + parts[index + 1 :])
        assert rest.count == len(direct)
        torch.testing.assert_close(rest.covariance, direct.T.cov())


def test_empty_batches_are_ignored() -> None:
    features = rows(5, 3)
    assert FeatureStatistics.of(features).update(features[:0]).count == 5


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(4, 2), "must be"),
        (torch.full((4, 3), torch.nan), "NaN"),
        (torch.full((4, 3), torch.inf), "infinite"),
    ],
)
def test_unusable_rows_are_refused(bad: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        FeatureStatistics(3).update(bad)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 1"):
        _ = FeatureStatistics(3).mean
    with pytest.raises(InvalidInput, match="at least 2"):
        _ = FeatureStatistics.of(rows(1, 3)).covariance
    with pytest.raises(InvalidInput, match="cannot be merged"):
        FeatureStatistics(3).merge(FeatureStatistics(4))
