"""Noise-level schedules."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from izograf.diffusion.schedules import (
    SCHEDULES,
    cosine,
    exponential,
    karras,
    linear_beta,
    linear_time,
)
from izograf.diffusion.tables import linear_betas, table_of

names = st.sampled_from(sorted(SCHEDULES))


@given(names, st.integers(2, 200), st.floats(1e-4, 0.5), st.floats(1.0, 1e3))
def test_levels_fall_strictly_from_the_largest_to_the_smallest_and_then_to_zero(
    name: str, num_steps: int, smallest: float, largest: float
) -> None:
    sigmas = SCHEDULES[name](num_steps, smallest, largest)
    assert sigmas.dtype == torch.float64
    assert len(sigmas) == num_steps + 1
    assert float(sigmas[0]) == pytest.approx(largest, rel=1e-9)
    assert float(sigmas[-2]) == pytest.approx(smallest, rel=1e-6)
    assert float(sigmas[-1]) == 0.0
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_single_step_goes_from_the_largest_level_to_zero(name: str) -> None:
    sigmas = SCHEDULES[name](1, 0.02, 80.0)
    assert sigmas.tolist() == pytest.approx([80.0, 0.0], rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_stay_distinct_in_the_precision_of_sampling(name: str) -> None:
    sigmas = SCHEDULES[name](1000, 0.02, 80.0).float()
    assert bool((sigmas.diff() < 0).all())


def test_karras_is_uniform_in_the_seventh_root() -> None:
    roots = karras(18, 0.002, 80.0)[:-1] ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(17))


def test_exponential_is_uniform_in_the_logarithm() -> None:
    steps = exponential(11, 0.01, 10.0)[:-1].log().diff()
    torch.testing.assert_close(steps, torch.full_like(steps, -math.log(1000) / 10))


def test_linear_time_is_uniform_in_flow_time() -> None:
    sigmas = linear_time(5, 0.25, 4.0)[:-1]
    times = sigmas / (1 + sigmas)
    torch.testing.assert_close(times, torch.linspace(0.8, 0.2, 5, dtype=torch.float64))


def test_cosine_is_uniform_in_the_angle() -> None:
    angles = cosine(9, 0.01, 50.0)[:-1].atan()
    torch.testing.assert_close(angles.diff(), angles.diff()[:1].expand(8))


def test_linear_beta_is_the_limit_of_the_thousand_betas() -> None:
    table = table_of(linear_betas())
    sigmas = linear_beta(1000, float(table[0]), float(table[-1]))[:-1].flip(0)
    torch.testing.assert_close(sigmas[50:], table[50:], rtol=0.02, atol=0)
    assert float((sigmas / table - 1).abs().max()) < 0.1
