"""Reads one picture from standard input under hard limits; run as a program by `uploads`.

    python -I uploads_child.py MAX_PIXELS MAX_FRAMES MEMORY_BYTES CPU_SECONDS AS_MASK < picture

AS_MASK is 1 for a mask, of which a file with transparency is white where it is transparent and
black elsewhere, whatever its colours; else 0.

Writes one line of JSON, {"width", "height"} or {"refusal"}, and after it the clean PNG. It imports
nothing of izograf, and Pillow only once the limits hold. A crash is the caller's to explain.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import warnings
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

BAND = 64  # rows that are packed at once
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
DAMAGED = "The picture is damaged or cut off: send the whole file."
NOT_A_PICTURE = "This is no picture that can be read here: send a PNG, JPEG, WebP, GIF or BMP."
TOO_MUCH = "The picture takes too much memory or time to read: send a smaller one."


class Refused(Exception):
    """The picture is not accepted; says why in one sentence."""


def limit_process(memory_bytes: int, cpu_seconds: int) -> None:
    """No more address space, processor time or files than this, from now on."""
    try:
        import resource
    except ImportError:  # not on Windows, where the caller's clock and the pixel count remain
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def clean(
    data: bytes, max_pixels: int, max_frames: int, *, as_mask: bool = False
) -> tuple[bytes, int, int]:
    """The picture as an 8-bit RGB PNG, its width and its height.

    Raises:
        Refused: it is beyond the limits, damaged, or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = max_pixels
    too_large = Refused(f"The picture is too large: at most {max_pixels:,} pixels.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise too_large
            _check_frames(image, max_frames)
            upright = _upright(image)
            return _encoded(_mask(upright) if as_mask else _rgb(upright))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise too_large from None
    except UnidentifiedImageError:
        raise Refused(NOT_A_PICTURE) from None
    except MemoryError:
        raise Refused(TOO_MUCH) from None
    except Refused:
        raise
    except Exception:  # decoders raise whatever they like on a damaged file
        raise Refused(DAMAGED) from None


def _check_frames(image: Image, max_frames: int) -> None:
    """Asks for the first frame too many, so that no more are looked at than are allowed."""
    if image.format == "MPO":  # a camera's JPEG with further views behind the picture
        return
    try:
        image.seek(max_frames)
    except EOFError:
        image.seek(0)
        return
    raise Refused(f"The picture is animated: at most {max_frames} frame is accepted.")


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _encoded(rgb: Image) -> tuple[bytes, int, int]:
    return _png(rgb), rgb.width, rgb.height


def _is_transparent(image: Image) -> bool:
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")


def _mask(image: Image) -> Image:
    """White where the picture is transparent, if any of it is; else the picture itself."""
    if not _is_transparent(image):
        return _rgb(image)
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = layer.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return layer.convert("RGB")
    return alpha.point(lambda level: 255 - level).convert("RGB")


def _rgb(image: Image) -> Image:
    """Eight bits a channel; what is transparent becomes white."""
    from PIL import Image as Images

    if image.mode.startswith("I"):  # 16 bits, 0 to 65535
        return image.convert("I").point(lambda level: level * (1 / 257)).convert("L").convert("RGB")
    if not _is_transparent(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    paper = Images.new("RGB", layer.size, "white")
    paper.paste(layer, mask=layer)
    return paper


def _png(rgb: Image) -> bytes:
    """An 8-bit RGB PNG with the three chunks it must have, made in bands to save memory."""
    packer, packed = zlib.compressobj(6), []
    for top in range(0, rgb.height, BAND):
        band = rgb.crop((0, top, rgb.width, min(rgb.height, top + BAND))).tobytes()
        stride = 3 * rgb.width
        rows = (b"\0" + band[at : at + stride] for at in range(0, len(band), stride))
        packed.append(packer.compress(b"".join(rows)))
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", rgb.width, rgb.height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join(packed)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def main(arguments: list[str]) -> None:
    max_pixels, max_frames, memory_bytes, cpu_seconds, as_mask = map(int, arguments)
    limit_process(memory_bytes, cpu_seconds)
    output = sys.stdout.buffer
    try:
        data = sys.stdin.buffer.read()
        png, width, height = clean(data, max_pixels, max_frames, as_mask=bool(as_mask))
    except Refused as refusal:
        output.write(json.dumps({"refusal": str(refusal)}).encode() + b"\n")
        return
    output.write(json.dumps({"width": width, "height": height}).encode() + b"\n")
    output.write(png)


if __name__ == "__main__":
    main(sys.argv[1:])
