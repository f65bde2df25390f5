"""Whole pictures for enlarging: upright, at their own size, refused like those for training."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from izograf.data.preprocess import prepare_whole
from izograf.data.scan import Unreadable


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def numbered(height: int, width: int) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_every_pixel_is_kept_in_its_place() -> None:
    pixels = numbered(5, 9)
    whole = prepare_whole(encoded(Image.fromarray(pixels)))
    assert np.array_equal(whole, pixels.transpose(2, 0, 1))
    assert whole.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_stands_upright(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(numbered(5, 9)), exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(prepare_whole(data), expected.transpose(2, 0, 1))


def test_grey_and_transparent_pictures_are_rgb_on_white() -> None:
    grey = prepare_whole(encoded(Image.new("L", (3, 2), 7)))
    assert grey.shape == (3, 2, 3)
    assert (grey == 7).all()
    clear = prepare_whole(encoded(Image.new("RGBA", (3, 2), (9, 9, 9, 0))))
    assert (clear == 255).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"no picture", "\\w"),
        (encoded(Image.fromarray(numbered(40, 40)), "JPEG")[:200], "truncated|broken|\\w"),
    ],
)
def test_what_cannot_be_decoded_has_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        prepare_whole(content)
