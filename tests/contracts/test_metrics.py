"""What every registered feature-set metric promises."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from izograf.metrics.registry import METRICS, FeatureMetric

DIMENSION = 12


def features(count: int, *, seed: int) -> Tensor:
    """Correlated, non-negative, off-centre: like pooled activations."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(DIMENSION, DIMENSION, generator=torch.Generator().manual_seed(0))
    return (torch.randn(count, DIMENSION, generator=rng) @ mixing).relu() + 0.5


def compute(metric: FeatureMetric, real: Tensor, fake: Tensor) -> float:
    return metric.compute(real, fake, torch.Generator().manual_seed(0))


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> FeatureMetric:
    return METRICS[request.param]


def test_finite_and_reproducible(metric: FeatureMetric) -> None:
    value = compute(metric, features(90, seed=1), features(70, seed=2))
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert value == compute(metric, features(90, seed=1), features(70, seed=2))


def test_identical_sets_are_ideal(metric: FeatureMetric) -> None:
    real = features(90, seed=1)
    shortfall = compute(metric, real, real.clone()) - metric.ideal
    if metric.higher_is_better:
        shortfall = -shortfall
    assert shortfall <= 1e-6


def test_row_order_does_not_matter(metric: FeatureMetric) -> None:
    real, fake = features(90, seed=1), features(70, seed=2)
    shuffled = compute(metric, real.flip(0), fake.roll(17, 0))
    assert shuffled == pytest.approx(compute(metric, real, fake), rel=1e-6, abs=1e-9)


def test_worsens_as_the_fakes_are_shifted(metric: FeatureMetric) -> None:
    real, fake = features(200, seed=1), features(200, seed=2)
    values = [compute(metric, real, fake + shift) for shift in (0.0, 2.0, 6.0)]
    assert values == sorted(values, reverse=metric.higher_is_better)
    assert values[0] != values[-1]


def test_inputs_are_left_alone(metric: FeatureMetric) -> None:
    real, fake = features(60, seed=1), features(60, seed=2)
    before = real.clone(), fake.clone()
    compute(metric, real, fake)
    assert torch.equal(real, before[0])
    assert torch.equal(fake, before[1])


@pytest.mark.parametrize("name", [n for n in METRICS if METRICS[n].replicates is not None])
def test_replicates_equal_leaving_groups_out(name: str) -> None:
    metric = METRICS[name]
    assert metric.replicates is not None
    real, groups = features(60, seed=1), list(features(50, seed=2).tensor_split(4))
    for index, value in enumerate(metric.replicates(real, groups)):
        rest = torch.cat(groups[:index] + groups[index + 1 :])
        assert value == pytest.approx(compute(metric, real, rest), rel=1e-9, abs=1e-12)


def test_the_first_look_up_finds_every_module() -> None:
    """One file is enough to add a metric: nothing else needs to import it."""
    code = "from izograf.metrics.registry import METRICS, EXTRACTORS; print(*METRICS, *EXTRACTORS)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) >= {
        *("coverage", "density", "frechet", "kid", "precision", "recall"),
        *("inception-2015", "judge", "random-conv", "squeezenet1.1"),
    }
