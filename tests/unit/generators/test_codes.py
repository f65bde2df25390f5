"""Ways between two codes, and what a derived picture says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from izograf.core.rng import generator
from izograf.generators.codes import (
    as_autoencoder,
    between,
    from_class_to_class,
    of_class,
    save_derived,
)
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.xmp import DIGITAL_SOURCE_TYPE


def code(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator("tests", seed))


@given(st.integers(2, 12), st.integers(0, 50), st.sampled_from([(1,), (5,), (64,), (4, 3, 3)]))
def test_a_way_starts_and_ends_at_its_codes(count: int, seed: int, shape: tuple[int, ...]) -> None:
    first, second = code(seed, *shape), code(seed + 1000, *shape)
    path = between(first, second, count)
    assert path.shape == (count, *shape)
    assert torch.equal(path[0], first)
    assert torch.equal(path[-1], second)
    assert bool(path.isfinite().all())


def test_lengths_change_evenly_and_so_do_angles() -> None:
    first, second = code(1, 64), 3 * code(2, 64)
    path = between(first, second, 9)
    lengths = path.norm(dim=1)
    torch.testing.assert_close(lengths, torch.linspace(float(lengths[0]), float(lengths[-1]), 9))
    unit = path / lengths[:, None]
    angles = (unit[1:] * unit[:-1]).sum(1).arccos()
    torch.testing.assert_close(angles, angles.mean().expand(8), atol=1e-4, rtol=1e-4)


def test_the_middle_of_two_typical_codes_is_typical() -> None:
    """Unlike that of the straight way, which is too short."""
    first, second = code(1, 512), code(2, 512)
    middle = between(first, second, 3)[1]
    assert float(middle.norm()) == pytest.approx(512**0.5, rel=0.1)
    assert float(((first + second) / 2).norm()) < 0.8 * 512**0.5


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (1.0, -1.0), (0.0, 1.0), (0.0, 0.0)])
def test_equal_opposite_and_empty_codes_go_straight(first: float, second: float) -> None:
    path = between(torch.full((8,), first), torch.full((8,), second), 5)
    expected = torch.linspace(first, second, 5)[:, None].expand(5, 8)
    torch.testing.assert_close(path, expected)


def test_conditions_of_a_strip() -> None:
    none = from_class_to_class(None, None, 3)
    assert none.class_ids is None
    for plain in (from_class_to_class(1, None, 3), from_class_to_class(1, 1, 3), of_class(1, 3)):
        assert plain.class_ids is not None
        assert plain.class_ids.tolist() == [1, 1, 1]
        assert plain.towards_ids is None
    strip = from_class_to_class(0, 1, 3)
    assert strip.towards_ids is not None
    assert strip.share is not None
    assert strip.towards_ids.tolist() == [1, 1, 1]
    assert strip.share.tolist() == [0, 0.5, 1]


def test_a_model_that_reads_no_pictures_is_refused() -> None:
    card = ModelCard(name="scenes", family="latent", network={}, image_size=8)
    with pytest.raises(InvalidInput, match="scenes makes pictures but cannot read any"):
        as_autoencoder(object(), card)


def test_a_derived_picture_names_the_model_that_made_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.png"
    save_derived(path, Image.new("RGB", (4, 4)), "my-<vae>")
    with Image.open(path) as picture:
        packet = picture.text["XML:com.adobe.xmp"]  # type: ignore[attr-defined]
    assert DIGITAL_SOURCE_TYPE in packet
    assert "my-&lt;vae&gt;" in packet
