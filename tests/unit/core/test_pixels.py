"""The two conversions between stored and inner pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from izograf.core.pixels import to_float, to_uint8

EVERY_LEVEL = torch.arange(256, dtype=torch.uint8)


def test_every_level_survives_the_round_trip() -> None:
    assert torch.equal(to_uint8(to_float(EVERY_LEVEL)), EVERY_LEVEL)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_levels_survive_in_other_precisions_as_well_as_they_can(dtype: torch.dtype) -> None:
    """bfloat16 has eight bits in [0.5, 1), half a level too few; it may be off by one."""
    returned = to_uint8(to_float(EVERY_LEVEL).to(dtype))
    allowed = 1 if dtype == torch.bfloat16 else 0
    assert int((returned.int() - EVERY_LEVEL.int()).abs().max()) <= allowed


def test_the_range_is_exactly_minus_one_to_one() -> None:
    image = to_float(EVERY_LEVEL)
    assert image.dtype == torch.float32
    assert image[0] == -1
    assert image[255] == 1
    assert bool((image.diff() > 0).all())


@given(st.floats(-1e6, 1e6, width=32))
def test_any_number_becomes_the_nearest_level(value: float) -> None:
    level = int(to_uint8(torch.tensor([value])))
    nearest = min(255.0, max(0.0, (value + 1) * 127.5))
    assert abs(level - nearest) <= 0.5 + 1e-4


def test_conversions_leave_their_argument_as_it_was() -> None:
    pixels, image = EVERY_LEVEL.clone(), torch.linspace(-2, 2, 7)
    before = image.clone()
    to_float(pixels)
    to_uint8(image)
    assert torch.equal(pixels, EVERY_LEVEL)
    assert torch.equal(image, before)


@pytest.mark.parametrize("wrong", [torch.zeros(2, dtype=torch.int64), torch.zeros(2)])
def test_only_uint8_becomes_float(wrong: torch.Tensor) -> None:
    with pytest.raises(TypeError, match="expected uint8 pixels"):
        to_float(wrong)


def test_only_float_becomes_uint8() -> None:
    with pytest.raises(TypeError, match="expected a floating-point image"):
        to_uint8(EVERY_LEVEL)
