"""One picture file -> uint8 [3,S,S]: decode, convert to RGB, crop the centre square, resize.

What happens to every kind of picture:

    truncated, broken, empty        `Unreadable`
    over 64 million pixels          `Unreadable`, decided from the header, before decoding
    over 64 MiB                     `Unreadable`, before reading where the size is known
    SVG, HEIC, PDF, anything else   `Unreadable`
    alpha, transparent palette      composited on white
    grey, palette, CMYK, 1-bit      converted to RGB; colour profiles are ignored
    16-bit grey                     scaled, 65535 -> 255; never clipped
    float grey in [0,1]             scaled, 1.0 -> 255; any other range is `Unreadable`
    EXIF orientation                applied
    animation, several pages        the first frame
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from izograf.data.scan import Unreadable
from izograf.schema.errors import InvalidInput

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 64 * 2**20

# Raised whenever the same file would give other pixels; part of every cache key.
PREPROCESS_VERSION = 1

# EPS is absent on purpose: Pillow would hand it to Ghostscript, which executes it. So is TGA,
# which has no signature and would claim any file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

FILTERS: Mapping[str, Image.Resampling] = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
}

_ORIENTATION_TAG = 0x0112
_ORIENTATIONS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Pixels = NDArray[np.uint8]
Prepare = Callable[[bytes | Pixels], Pixels]


def check_filter(name: str) -> str:
    """`name`, if it is a known resize filter.

    Raises:
        InvalidInput: it is not; the message lists those that are.
    """
    if name not in FILTERS:
        raise InvalidInput(f"resize must be one of {', '.join(FILTERS)}, got {name!r}.")
    return name


def describe(name: str) -> str:
    """The preprocessing as it stands on a model card."""
    return f"{name} antialiased, centre crop"


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Makes Pillow's decompression-bomb warning an error and silences its remarks on metadata.

    Python's warning filters are process-wide, so a pool of decoding threads enters this once,
    in the thread that owns the pool, and the threads call `prepare` inside.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def prepare(content: bytes | Pixels, image_size: int, resize: str = "lanczos") -> Pixels:
    """The picture as uint8 [3,S,S], S = `image_size`; see the table at the top of this module.

    Args:
        content: the bytes of a picture file, or uint8 pixels [H,W], [H,W,1] or [H,W,3].
        resize: a key of `FILTERS`; all are antialiased (support scaled with the reduction).

    Raises:
        Unreadable: the message is the reason.
        InvalidInput: unknown `resize`.
    """
    resample = FILTERS[check_filter(resize)]
    with _unreadable():
        image = _open(content) if isinstance(content, bytes) else _wrap(content)
        extent = _shortcut(image, 4 * image_size)
        return _square(image, extent, image_size, resample)


def prepare_whole(content: bytes) -> Pixels:
    """The whole picture as uint8 [3,H,W], upright, at its own size; see the table above.

    Raises:
        Unreadable: the message is the reason.
    """
    with _unreadable():
        image = _open(content)
        orientation = _orientation(image)
        upright = _to_rgb(image)
        if orientation in _ORIENTATIONS:
            upright = upright.transpose(_ORIENTATIONS[orientation])
        return np.ascontiguousarray(np.asarray(upright).transpose(2, 0, 1))


@contextmanager
def _unreadable() -> Iterator[None]:
    """Inside the block whatever a decoder raises becomes `Unreadable` with a reason."""
    try:
        yield
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(_too_many_pixels()) from error
    except MemoryError as error:
        raise Unreadable("not enough memory to decode it") from error
    except Exception as error:  # decoders of hostile bytes raise nearly everything
        raise Unreadable(_reason(error)) from error


def _open(content: bytes) -> Image.Image:
    if not content:
        raise Unreadable("empty file")
    if len(content) > MAX_FILE_BYTES:
        raise Unreadable(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        image = Image.open(io.BytesIO(content), formats=_formats())
    except UnidentifiedImageError as error:
        raise Unreadable(_unidentified(content)) from error
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(_too_many_pixels())
    return image


def _shortcut(image: Image.Image, least: int) -> tuple[float, float]:
    """Asks for a JPEG at 1/2, 1/4 or 1/8 where both sides stay >= `least`; the exact size then.

    That is several times faster. Enough pixels remain for the chosen filter to do the shaping,
    and the exact size (1500 / 8 = 187.5, not 188) keeps the picture from being shifted.
    """
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        reduced = image.draft(None, (least, least))
        if reduced is not None:
            return reduced[1][2], reduced[1][3]
    return image.size


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this build of Pillow knows (AVIF came with 11.3)."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _wrap(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def _square(
    image: Image.Image, extent: tuple[float, float], size: int, resample: Image.Resampling
) -> Pixels:
    orientation = _orientation(image)
    side = min(extent)
    left, top = (extent[0] - side) / 2, (extent[1] - side) / 2
    box = (left, top, left + side, top + side)
    square = _to_rgb(image).resize((size, size), resample, box=box)
    # A centred square turns into a centred square, so turning the small result is the same.
    if orientation in _ORIENTATIONS:
        square = square.transpose(_ORIENTATIONS[orientation])
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block does not damage the picture
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _grey_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image, mask=image)
        return canvas
    return image.convert("RGB")


def _grey_to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit levels 0..65535, or float levels 0..1, scaled to 0..255 and rounded."""
    levels = np.asarray(image).astype(np.float32)
    top = 1.0 if image.mode == "F" else 65535.0
    if not np.isfinite(levels).all() or levels.min() < 0 or levels.max() > top:
        raise Unreadable("its grey levels have no defined range (expected 16-bit, or float 0..1)")
    return Image.fromarray(np.rint(levels * np.float32(255.0 / top)).astype(np.uint8))


def _unidentified(content: bytes) -> str:
    head = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<svg") or b"<svg" in head:
        return "SVG is a drawing, not pixels: export it as PNG"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
        return "HEIC is not supported: convert it to JPEG"
    if head.startswith((b"%pdf", b"%!ps")):
        return "PDF and PostScript are not pictures: export it as PNG"
    if head.startswith(b"pk\x03\x04"):
        return "an archive inside the data: give its own path, or unpack it"
    if head.startswith((b"\xff\xd8\xff", b"\x89png", b"gif8", b"bm", b"ii*", b"mm\0*")) or (
        head.startswith(b"riff") and head[8:12] == b"webp"
    ):
        return "broken picture file"
    return "not a picture format this program reads"


def _reason(error: Exception) -> str:
    text = str(error).lower()
    if "truncated" in text or isinstance(error, EOFError):
        return "truncated"
    if "conversion from" in text:
        return "its colour model is not supported: convert it to RGB"
    return "broken picture file"


def _too_many_pixels() -> str:
    return f"more than {MAX_PIXELS // 1_000_000} million pixels"
