"""Precision, recall, density, coverage on point sets that can be checked by hand."""

from __future__ import annotations

import pytest
import torch

from izograf.metrics import neighbours
from izograf.metrics.neighbours import coverage, density, precision, recall, squared_radii
from izograf.schema.errors import InvalidInput

RNG = torch.Generator()


def cloud(count: int, *, seed: int, at: float = 0.0, spread: float = 1.0) -> torch.Tensor:
    points = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return points * spread + at


def test_radii_on_a_line() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert squared_radii(line, 1).tolist() == [1.0, 1.0, 4.0, 16.0]
    assert squared_radii(line, 2).tolist() == [9.0, 4.0, 9.0, 36.0]


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = cloud(70, seed=0), cloud(50, seed=1, at=0.2)
    whole = [f(real, fake, RNG) for f in (precision, recall, density, coverage)]
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", 7)
    assert [f(real, fake, RNG) for f in (precision, recall, density, coverage)] == whole


def test_disjoint_sets_score_zero() -> None:
    real, fake = cloud(40, seed=0), cloud(40, seed=1, at=100)
    assert [f(real, fake, RNG) for f in (precision, recall, density, coverage)] == [0, 0, 0, 0]


def test_dropping_a_mode_lowers_recall_and_coverage_but_not_precision() -> None:
    real = torch.cat([cloud(60, seed=0), cloud(60, seed=1, at=50)])
    fake = cloud(120, seed=2)
    assert precision(real, fake, RNG) > 0.9
    assert recall(real, fake, RNG) < 0.6
    assert coverage(real, fake, RNG) < 0.6


def test_a_common_offset_does_not_blur_distances() -> None:
    real, fake = cloud(60, seed=0).double(), cloud(60, seed=1).double()
    for metric in (precision, recall, density, coverage):
        assert metric(real + 1e6, fake + 1e6, RNG) == pytest.approx(metric(real, fake, RNG))


def test_unusable_features_are_refused() -> None:
    with pytest.raises(InvalidInput, match="more than 3"):
        precision(cloud(3, seed=0), cloud(9, seed=1), RNG)
    with pytest.raises(InvalidInput, match="dimensions"):
        precision(cloud(9, seed=0), cloud(9, seed=1)[:, :4], RNG)
