"""Intervals: their quantiles, their edge cases, and that they cover what they promise."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from izograf.metrics.intervals import (
    jackknife_interval,
    random_groups,
    student_t95,
    wilson_interval,
)
from izograf.metrics.registry import METRICS
from izograf.schema.errors import InvalidInput


@pytest.mark.parametrize("degrees", [1, 2, 5, 6, 9, 19, 99])
def test_student_quantile(degrees: int) -> None:
    assert student_t95(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-3)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (7, 10), (420, 600)])
def test_wilson_matches_scipy(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx(tuple(expected), abs=1e-9)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        wilson_interval(0, 0)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    sample = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).double()
    groups = random_groups(sample, 50, torch.Generator().manual_seed(0))
    total = float(sample.sum())
    leave_out = [(total - float(group.sum())) / (50 - len(group)) for group in groups]
    low, high = jackknife_interval(total / 50, leave_out)
    half = student_t95(len(groups) - 1) * float(sample.std()) / 50**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.2)


@pytest.mark.parametrize("name", ["frechet", "kid"])
def test_interval_width_matches_the_real_spread(name: str) -> None:
    """Over many samples, the mean jackknife error is near the standard deviation observed."""
    metric = METRICS[name]
    assert metric.replicates is not None
    rng = torch.Generator().manual_seed(5)
    real = torch.randn(400, 4, generator=rng)
    values, widths = [], []
    for _ in range(80):
        fake = torch.randn(200, 4, generator=rng) * 1.3 + 0.4
        groups = random_groups(fake, 20, rng)
        value = metric.compute(real, fake, rng)
        low, high = jackknife_interval(value, metric.replicates(real, groups))
        values.append(value)
        widths.append((high - low) / 2 / student_t95(19))
    observed = float(torch.tensor(values).std())
    assert float(torch.tensor(widths).mean()) == pytest.approx(observed, rel=0.3)


def test_groups_are_a_partition_with_at_least_two_rows_each() -> None:
    rows = torch.arange(11.0)[:, None]
    groups = random_groups(rows, 20, torch.Generator().manual_seed(1))
    assert sorted(torch.cat(groups).flatten().tolist()) == rows.flatten().tolist()
    assert min(map(len, groups)) >= 2
    with pytest.raises(InvalidInput, match="at least 4"):
        random_groups(rows[:3], 20, torch.Generator())
