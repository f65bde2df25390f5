"""Every odd kind of picture file has a defined result or a stated reason."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from izograf.data import preprocess
from izograf.data.preprocess import FILTERS, pillow_warnings, prepare
from izograf.data.scan import Unreadable
from izograf.schema.errors import InvalidInput


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mean_color(pixels: np.ndarray) -> list[int]:
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] == 3
    return [int(level) for level in np.rint(pixels.reshape(3, -1).mean(axis=1))]


def close(pixels: np.ndarray, color: tuple[int, int, int], tolerance: int = 6) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(mean_color(pixels), color, strict=True))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000"])
def test_reads_every_common_format(encode, kind):
    pixels = prepare(encode((200, 30, 60), kind=kind, size=(40, 30)), 16)
    assert pixels.shape == (3, 16, 16)
    assert pixels.flags.c_contiguous
    assert close(pixels, (200, 30, 60))


@pytest.mark.parametrize("resize", list(FILTERS))
def test_every_filter_keeps_a_plain_colour_and_size(encode, resize):
    for size in ((5, 9), (64, 64), (200, 33), (1, 1)):
        pixels = prepare(encode((10, 200, 90), size=size), 16, resize)
        assert pixels.shape == (3, 16, 16)
        assert mean_color(pixels) == [10, 200, 90]


def test_reduction_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    for resize in FILTERS:
        inner = prepare(stripes, 8, resize)[:, :, 1:-1]
        assert abs(inner.astype(int) - 127).max() < 20


def test_same_size_is_left_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert (prepare(pixels, 16) == pixels.transpose(2, 0, 1)).all()


def test_crops_the_centre():
    wide = Image.new("RGB", (30, 10), "black")
    wide.paste("white", (10, 0, 20, 10))
    assert prepare(saved(wide, "PNG"), 10).min() == 255
    assert prepare(saved(wide.transpose(Image.Transpose.ROTATE_90), "PNG"), 10).min() == 255


def test_unknown_filter_is_refused(encode):
    with pytest.raises(InvalidInput, match="lanczos, bicubic, bilinear, box"):
        prepare(encode(), 8, "nearest")


def test_grey_one_bit_and_palette(encode):
    assert mean_color(prepare(encode(90, mode="L"), 8)) == [90, 90, 90]
    assert mean_color(prepare(encode(1, mode="1"), 8)) == [255, 255, 255]
    palette = Image.new("RGB", (8, 8), (0, 128, 255)).convert("P")
    assert close(prepare(saved(palette, "PNG"), 8), (0, 128, 255), 30)


def test_cmyk_becomes_rgb(encode):
    red = (0, 255, 255, 0)
    assert close(prepare(encode(red, mode="CMYK", kind="TIFF"), 8), (255, 0, 0), 3)
    jpeg = prepare(encode(red, mode="CMYK", kind="JPEG", quality=95), 8)
    assert close(jpeg, (255, 0, 0), 10)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = prepare(saved(Image.fromarray(levels), kind), 8)
    assert (pixels[0] == np.rint(levels / 257)).all()
    assert (pixels[0] == pixels[2]).all()


def test_float_grey_between_zero_and_one_is_scaled():
    half = Image.fromarray(np.full((8, 8), 0.5, np.float32))
    assert mean_color(prepare(saved(half, "TIFF"), 8)) == [128, 128, 128]


@pytest.mark.parametrize("value", [-1.0, 300.0, float("nan"), float("inf")])
def test_float_grey_without_a_range_is_skipped(value):
    image = Image.fromarray(np.full((8, 8), value, np.float32))
    with pytest.raises(Unreadable, match="no defined range"):
        prepare(saved(image, "TIFF"), 8)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("RGBA", "WEBP"), ("LA", "PNG")])
def test_alpha_is_composited_on_white(encode, mode, kind):
    clear = (0, 0, 0, 0) if mode == "RGBA" else (0, 0)
    half = (0, 0, 0, 128) if mode == "RGBA" else (0, 128)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert mean_color(prepare(encode(clear, mode=mode, kind=kind, **options), 8)) == [255] * 3
    assert close(prepare(encode(half, mode=mode, kind=kind, **options), 8), (127, 127, 127), 2)


def test_hidden_colour_under_transparency_does_not_bleed():
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 32, 64))
    pixels = prepare(saved(image, "PNG"), 8)
    assert (pixels[0] <= pixels[2]).all()


def test_transparent_palette_and_tRNS_are_composited_on_white():  # noqa: N802 - PNG's own name
    image = Image.new("P", (8, 8), 3)
    image.putpalette([0, 0, 0] * 256)
    assert mean_color(prepare(saved(image, "PNG", transparency=3), 8)) == [255] * 3
    assert mean_color(prepare(saved(image, "GIF", transparency=3), 8)) == [255] * 3
    many = bytes([0] * 256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_color(prepare(saved(image, "PNG", transparency=many), 8)) == [255] * 3
    black = Image.new("RGB", (8, 8))
    assert mean_color(prepare(saved(black, "PNG", transparency=(0, 0, 0)), 8)) == [255] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(upright)
    if back in preprocess._ORIENTATIONS:
        stored = stored.transpose(preprocess._ORIENTATIONS[back])
    assert (prepare(saved(stored, "PNG", exif=exif), 16) == upright.transpose(2, 0, 1)).all()


def test_damaged_exif_does_not_damage_the_picture(encode):
    jpeg = encode(kind="JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    with pillow_warnings():
        assert close(prepare(jpeg, 8), (200, 30, 60))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0))]
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert close(prepare(content, 8), (255, 0, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_files_are_unreadable(kind):
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    content = saved(Image.fromarray(noise), kind)
    with pytest.raises(Unreadable, match=r"truncated|broken"):
        prepare(content[: len(content) // 2], 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello, this is a text file", "not a picture format"),
        (b"\x00" * 100, "not a picture format"),
        (b"\xff\xd8\xff\xe0 broken", "truncated"),
        (b"\x89PNG\r\n\x1a\n broken", "broken picture file"),
        (b"RIFF\x10\0\0\0WEBPVP8 nonsense", "broken picture file"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"PK\x03\x04 a zip", "archive"),
    ],
)
def test_what_is_not_a_picture_says_so(content, reason):
    with pytest.raises(Unreadable, match=reason):
        prepare(content, 8)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [8_100, 9_999, 30_000, 2**31 - 1])
@pytest.mark.parametrize("inside", [True, False])
def test_gigantic_pictures_are_refused_from_the_header(side, inside):
    content = png_header(side, side)
    refused = pytest.raises(Unreadable, match="more than 64 million pixels")
    with refused, pillow_warnings() if inside else contextlib.nullcontext():
        prepare(content, 8)


def test_too_many_bytes_are_refused(monkeypatch, encode):
    monkeypatch.setattr(preprocess, "MAX_FILE_BYTES", 2**20)
    with pytest.raises(Unreadable, match="larger than 1 MiB"):
        prepare(encode() + b"\0" * 2**20, 8)


def test_large_jpeg_shortcut_stays_close_to_the_full_decode():
    generator = np.random.default_rng(3)
    coarse = Image.fromarray(generator.integers(0, 256, (20, 30, 3), np.uint8))
    large = coarse.resize((1500, 1000), Image.Resampling.BICUBIC)
    content = saved(large, "JPEG", quality=95)
    opened = preprocess._open(content)
    assert preprocess._shortcut(opened, 4 * 31) == (187.5, 125.0)
    assert opened.size == (188, 125)
    jpeg = prepare(content, 31).astype(int)
    full = prepare(np.asarray(large), 31).astype(int)
    assert abs(jpeg - full).mean() < 0.5


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3)])
def test_arrays_are_pictures_too(shape):
    pixels = prepare(np.full(shape, 77, np.uint8), 8)
    assert mean_color(pixels) == [77, 77, 77]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_never_raise_anything_else(data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM"]))
    content = bytearray(saved(Image.linear_gradient("L").resize((24, 24)).convert("RGB"), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with pillow_warnings(), contextlib.suppress(Unreadable):
        assert prepare(bytes(content[:cut]), 8).shape == (3, 8, 8)
