"""Tables of noise levels, their timesteps, and schedules made of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from izograf.diffusion.tables import (
    BETAS,
    cosine_betas,
    fixed,
    level_at,
    linear_betas,
    scaled_linear_betas,
    spaced,
    start_state,
    stored,
    table_of,
    timestep_at,
    timesteps,
    unit_state,
)
from izograf.schema.errors import InvalidInput

SD = table_of(scaled_linear_betas())
SPACINGS = st.sampled_from(["leading", "trailing", "linspace"])
PUBLISHED = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]


def levels(spacing: Any, num_steps: int, **more: Any) -> torch.Tensor:
    return spaced(SD, spacing, **more)(num_steps, 0.0, math.inf)


@pytest.mark.parametrize("name", BETAS)
def test_a_table_rises_and_its_last_level_leaves_almost_nothing_of_the_picture(name: str) -> None:
    table = table_of(BETAS[name]())
    assert table.dtype == torch.float64
    assert table.shape == (1000,)
    assert bool((table.diff() > 0).all())
    assert float(table[0]) < 0.05
    assert float(table[-1]) > 14


def test_levels_of_stable_diffusion_are_the_known_ones() -> None:
    """0.0292 and 14.6146, which its users know as sigma_min and sigma_max."""
    assert SD[[0, -1]].tolist() == pytest.approx([0.0292, 14.6146], abs=1e-4)


def test_a_table_is_the_noise_to_signal_ratio_of_the_product_of_what_is_kept() -> None:
    betas = linear_betas(10, 0.1, 0.5)
    kept = 1.0
    for beta, level in zip(betas.tolist(), table_of(betas).tolist(), strict=True):
        kept *= 1 - beta
        assert level == pytest.approx(math.sqrt((1 - kept) / kept))


def test_cosine_betas_keep_the_squared_cosine_but_for_the_bound() -> None:
    """Nichol & Dhariwal 2021, eq. 17, with their offset 0.008."""
    kept = 1 / (1 + table_of(cosine_betas()).square())
    share = torch.arange(1, 1001, dtype=torch.float64) / 1000
    angle = (share + 0.008) / 1.008 * math.pi / 2
    expected = (angle.cos() / math.cos(0.008 / 1.008 * math.pi / 2)).square()
    torch.testing.assert_close(kept[:999], expected[:999], rtol=1e-9, atol=1e-12)
    assert float(cosine_betas().max()) == 0.999


@pytest.mark.parametrize("betas", [[0.1, 1.0], [0.0, 0.1], [], [0.1, math.nan]])
def test_betas_that_are_none_are_refused(betas: list[float]) -> None:
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        table_of(torch.tensor(betas, dtype=torch.float64))


@given(st.floats(0, 999))
def test_a_level_and_its_timestep_know_each_other(timestep: float) -> None:
    wanted = torch.tensor([timestep], dtype=torch.float64)
    sigma = level_at(SD, wanted)
    torch.testing.assert_close(timestep_at(SD, sigma), wanted, rtol=0, atol=1e-6)
    whole = int(timestep)
    assert float(SD[whole]) <= float(sigma) <= float(SD[min(whole + 1, 999)])


def test_levels_beyond_the_table_have_its_ends() -> None:
    assert timestep_at(SD, torch.tensor([0.0, 99.0])).tolist() == [0.0, 999.0]


@given(SPACINGS, st.integers(1, 999), st.booleans())
def test_timesteps_fall_and_lie_in_the_table(spacing: Any, num_steps: int, spare: bool) -> None:
    places = timesteps(spacing, num_steps, spare=spare)
    assert places.shape == (num_steps,)
    assert bool((places.diff() < 0).all())
    assert 0 <= float(places[-1]) <= float(places[0]) <= 999


def test_spacings_are_those_of_the_literature() -> None:
    """Lin et al. 2024, table 2, counted from 0 instead of 1."""
    assert timesteps("leading", 5).tolist() == [800, 600, 400, 200, 0]
    assert timesteps("leading", 50, offset=1)[:3].tolist() == [981, 961, 941]
    assert timesteps("trailing", 5).tolist() == [999, 799, 599, 399, 199]
    assert timesteps("linspace", 5).tolist() == [999, 749, 500, 250, 0]
    assert timesteps("linspace", 5, whole=False).tolist() == [999, 749.25, 499.5, 249.75, 0]
    assert timesteps("linspace", 4, spare=True).tolist() == [999, 749, 500, 250]
    assert timesteps("trailing", 5, spare=True).tolist() == [999, 799, 599, 399, 199]


@pytest.mark.parametrize(("num_steps", "spare"), [(0, False), (1001, False), (1000, True)])
def test_more_steps_than_timesteps_are_refused(num_steps: int, spare: bool) -> None:
    with pytest.raises(InvalidInput, match="steps fit on 1000 timesteps"):
        timesteps("leading", num_steps, spare=spare)


def test_an_unknown_spacing_is_refused() -> None:
    wrong: Any = "random"
    with pytest.raises(InvalidInput, match="leading, trailing or linspace"):
        timesteps(wrong, 5)


@given(SPACINGS, st.integers(2, 500), st.sampled_from(["zero", "table"]))
def test_a_schedule_of_a_table_falls_strictly_to_its_end(
    spacing: Any, num_steps: int, end: Any
) -> None:
    sigmas = levels(spacing, num_steps, ends_at=end)
    assert bool((sigmas.diff() < 0).all())
    assert float(sigmas[-1]) == (0.0 if end == "zero" else float(SD[0]))
    visits_the_first = float(timesteps(spacing, num_steps)[-1]) == 0
    assert len(sigmas) == num_steps + 1 - (end == "table" and visits_the_first)


def test_trailing_begins_at_the_noisiest_level_and_leading_does_not() -> None:
    assert float(levels("trailing", 10)[0]) == float(SD[-1])
    assert float(levels("leading", 10)[0]) == float(SD[900])


def test_a_stored_schedule_is_given_back_at_its_own_number_of_steps() -> None:
    sigmas = stored(PUBLISHED)(10, 0.0, math.inf)
    torch.testing.assert_close(sigmas, torch.tensor([*PUBLISHED[:-1], 0.0], dtype=torch.float64))


@given(st.integers(1, 100))
def test_a_stored_schedule_has_any_number_of_steps(num_steps: int) -> None:
    sigmas = stored(PUBLISHED)(num_steps, 0.0, math.inf)
    assert len(sigmas) == num_steps + 1
    assert sigmas[0] == pytest.approx(PUBLISHED[0])
    assert sigmas[-1] == 0
    assert bool((sigmas.diff() < 0).all())


def test_a_stored_schedule_is_interpolated_in_the_logarithm() -> None:
    sigmas = stored(PUBLISHED)(20, 0.0, math.inf)
    assert sigmas[::2][:-1].tolist() == pytest.approx(PUBLISHED[:-1])
    assert float(sigmas[1]) == pytest.approx(math.sqrt(PUBLISHED[0] * PUBLISHED[1]))


def test_a_stored_schedule_may_end_in_zero() -> None:
    sigmas = stored([8.0, 4.0, 2.0, 0.0])(6, 0.0, math.inf)
    expected = [8.0, 8 / 2**0.5, 4.0, 4 / 2**0.5, 2.0, 2 / 2**0.5, 0.0]
    assert sigmas.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("given", [[], [3.0], [3.0, 0.0], [1.0, 2.0], [2.0, 2.0], [2.0, -1.0, 0.0]])
def test_a_list_that_is_no_schedule_is_refused(given: list[float]) -> None:
    with pytest.raises(InvalidInput, match="positive, decreasing"):
        stored(given)


def test_start_and_end_are_of_unit_variance_for_data_of_unit_variance() -> None:
    """x = sqrt(1 + sigma^2) z: what is unit noise at the start is so for the network."""
    z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(unit_state(start_state(z, 14.6), 14.6), z)
    torch.testing.assert_close(start_state(z, 0.75), 1.25 * z)


def test_fixed_levels_are_visited_as_they_are() -> None:
    levels = [80.0, 3.0, 1.0, 0.35, 0.0]
    schedule = fixed(levels)
    assert schedule(4, 0.0, 0.0).tolist() == levels
    assert schedule(2, 0.0, 0.0).tolist() == [80.0, 1.0, 0.0]
    assert schedule(1, 0.0, 0.0).tolist() == [80.0, 0.0]
    assert set(schedule(3, 0.0, 0.0).tolist()) < set(levels)
    assert len(schedule(3, 0.0, 0.0)) == 4
    for count in (0, 5):
        with pytest.raises(InvalidInput, match=f"at most 4 steps, got {count}"):
            schedule(count, 0.0, 0.0)


@pytest.mark.parametrize(
    "levels", [[], [0.0], [80.0], [80.0, 1.0], [1.0, 80.0, 0.0], [80.0, 80.0, 0.0], [math.inf, 0.0]]
)
def test_levels_that_do_not_decrease_to_zero_are_refused(levels: list[float]) -> None:
    with pytest.raises(InvalidInput, match="must decrease to 0"):
        fixed(levels)
