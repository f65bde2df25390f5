"""Measured attributes: drawn pictures are described as anybody would describe them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from izograf.data.attributes import Measured, measure
from izograf.schema.attributes import attributes
from izograf.schema.errors import InvalidInput

SKIES = {
    "blue": (90, 150, 220),
    "grey": (140, 142, 145),
    "white": (235, 238, 240),
    "orange": (240, 150, 70),
    "pink": (220, 150, 200),
    "dark": (12, 12, 25),
}
COLOURS = {
    "black": (10, 10, 10),
    "white": (245, 245, 245),
    "grey": (128, 128, 128),
    "red": (200, 20, 20),
    "orange": (240, 140, 20),
    "yellow": (240, 220, 30),
    "green": (30, 160, 40),
    "blue": (30, 70, 210),
    "purple": (120, 40, 180),
    "pink": (240, 120, 190),
    "brown": (120, 70, 30),
}


def plain(colour: tuple[int, int, int], size: int = 64) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, size, size).clone()


def rough(size: int = 64, seed: int = 0, low: int = 0, high: int = 140) -> Tensor:
    """Blocks of random colours: no sky anywhere."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(low, high, (1, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return blocks.repeat_interleave(size // 32, 2).repeat_interleave(size // 32, 3)


def landscape(sky: tuple[int, int, int], share: float = 0.4, size: int = 64) -> Tensor:
    picture = rough(size)
    rows = round(share * size)
    picture[:, :, :rows] = plain(sky, size)[:, :, :rows]
    return picture


def only(picture: Tensor, attribute: str) -> tuple[str, ...]:
    return measure(picture).per_picture()[0][attribute]


@pytest.mark.parametrize(("name", "colour"), SKIES.items())
@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_drawn_sky_has_its_colour_and_share_at_any_size(
    name: str, colour: tuple[int, int, int], size: int
) -> None:
    picture = landscape(colour, 0.4, size)
    assert only(picture, "sky") == (name,)
    assert measure(picture).sky_share.item() == pytest.approx(0.4, abs=0.04)
    assert only(picture, "sky_share") == ("medium",)


@pytest.mark.parametrize(("share", "name"), [(0.15, "small"), (0.4, "medium"), (0.8, "large")])
def test_the_share_of_the_sky_is_named(share: float, name: str) -> None:
    assert only(landscape(SKIES["blue"], share), "sky_share") == (name,)


def test_a_rough_picture_and_a_lawn_have_no_sky() -> None:
    for picture in (rough(), plain((60, 160, 50))):
        assert only(picture, "sky") == ("none",)
        assert measure(picture).sky_share.item() == 0


def test_clouds_do_not_end_a_blue_sky() -> None:
    picture = landscape(SKIES["blue"], 0.5)
    picture[:, :, 8:20, 10:40] = torch.tensor((225, 230, 238), dtype=torch.uint8).view(1, 3, 1, 1)
    softened = torch.nn.functional.avg_pool2d(picture[:, :, :30].float(), 7, 1, 3)
    picture[:, :, 4:26, 4:60] = softened[:, :, 4:26, 4:60].byte()
    assert only(picture, "sky") == ("blue",)
    assert measure(picture).sky_share.item() > 0.4


def test_a_strip_too_small_to_tell_is_left_open() -> None:
    picture = landscape(SKIES["blue"], 0.06)
    assert measure(picture).sky.tolist() == [-1]
    assert only(picture, "sky") == ()
    assert only(picture, "sky_share") == ()


@pytest.mark.parametrize(("name", "colour"), COLOURS.items())
def test_a_plain_picture_has_its_one_colour(name: str, colour: tuple[int, int, int]) -> None:
    assert only(plain(colour), "colours") == (name,)


def test_colours_come_by_share_and_small_ones_are_left_out() -> None:
    picture = plain(COLOURS["green"])
    picture[:, :, :24] = plain(COLOURS["blue"])[:, :, :24]
    picture[:, :, :4] = plain(COLOURS["red"])[:, :, :4]
    assert only(picture, "colours") == ("green", "blue")


def test_grey_pictures_are_greyscale_and_neutral() -> None:
    picture = rough()[:, :1].expand(-1, 3, -1, -1)
    assert only(picture, "greyscale") == ("yes",)
    assert only(picture, "light") == ("neutral",)
    assert only(rough(), "greyscale") == ("no",)


@pytest.mark.parametrize(
    ("attribute", "colour", "name"),
    [
        ("brightness", (30, 30, 30), "dark"),
        ("brightness", (110, 110, 110), "normal"),
        ("brightness", (220, 220, 220), "bright"),
        ("light", (200, 150, 90), "warm"),
        ("light", (90, 130, 200), "cold"),
        ("light", (70, 150, 40), "neutral"),
    ],
)
def test_brightness_and_light_of_a_plain_picture(
    attribute: str, colour: tuple[int, int, int], name: str
) -> None:
    assert only(plain(colour), attribute) == (name,)


def test_contrast_is_the_range_without_outliers() -> None:
    flat = plain((120, 120, 120))
    flat[:, :, 0, :64] = 255  # a sixty-fourth of the picture
    assert only(flat, "contrast") == ("low",)
    halves = plain((5, 5, 5))
    halves[:, :, :32] = 250
    assert only(halves, "contrast") == ("high",)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**31), st.sampled_from([1, 5, 33, 64, 90]))
def test_a_picture_is_measured_for_itself(count: int, seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    together = measure(images).per_picture()
    assert together == tuple(measure(image.unsqueeze(0)).per_picture()[0] for image in images)
    for found in together:
        for name, values in found.items():
            assert set(values) <= set(attributes()[name].values)
        assert 1 <= len(found["colours"]) <= 3


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_a_mirrored_picture_has_the_same_attributes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 4, generator=generator) * 255
    picture = torch.nn.functional.interpolate(coarse, size=64, mode="bilinear").byte()
    assert measure(picture).per_picture() == measure(picture.flip(-1)).per_picture()


def test_chunks_do_not_matter_and_nothing_is_measured_in_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.cat([landscape(colour) for colour in SKIES.values()])
    whole = measure(images)
    monkeypatch.setattr("izograf.data.attributes._CHUNK", 4)
    assert measure(images).per_picture() == whole.per_picture()
    empty = measure(images[:0])
    assert isinstance(empty, Measured)
    assert len(empty) == 0
    assert empty.per_picture() == ()


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)]
)
def test_other_tensors_are_refused(images: Tensor) -> None:
    with pytest.raises(InvalidInput, match="uint8"):
        measure(images)
