"""A seeded picture drawn without any model: what the fake engine makes. Standard library only."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from izograf import __version__
from izograf.engine.protocol import EnginePicture, OriginalFiles
from izograf.schema.errors import InvalidInput
from izograf.schema.record import EDITED, POSITION, RECORD_KEY, parse_record
from izograf.schema.request import GenerationRequest
from izograf.schema.xmp import XMP_KEY, provenance_packet

FAKE_SHA256 = hashlib.sha256(b"the fake engine has no weights").hexdigest()
CLOSE_PSNR = 40.0
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UNCOMPRESSED = b"\0\0\0\0\0"  # of an iTXt chunk: after the key, no compression, no language


def draw(
    request: GenerationRequest, seed: int, *, size: int, detail: float = 1.0, position: int = 0
) -> bytes:
    """RGB bytes, row by row: a sky, ground and a disc whose colours and places the seed decides.

    `detail` from 0 to 1 fades the picture in from grey, as a preview of an early step does. The
    pictures of a strip fade from the one at its start to the one at its end.
    """
    share = request.share(position)
    start = _draw(f"{request.model}/{request.label}/{seed}", size, detail)
    if share == 0:
        return start
    label, last = request.towards.get("class", request.label), request.towards.get("seed", seed)
    end = _draw(f"{request.model}/{label}/{last}", size, detail)
    return bytes(round(a + (b - a) * share) for a, b in zip(start, end, strict=True))


def _draw(name: str, size: int, detail: float) -> bytes:
    digest = hashlib.sha256(name.encode()).digest()
    top, bottom, ground, disc = (digest[i : i + 3] for i in (0, 3, 6, 9))
    horizon = size * (90 + digest[12] % 80) // 256
    x0, y0 = size * digest[13] // 256, horizon * digest[14] // 256
    radius = max(1, size * (16 + digest[15] % 32) // 256)
    pixels = bytearray()
    for y in range(size):
        share = min(1.0, y / max(1, horizon))
        row = [
            round(a + (b - a) * share) if y < horizon else c
            for a, b, c in zip(top, bottom, ground, strict=True)
        ]
        for x in range(size):
            colour = disc if (x - x0) ** 2 + (y - y0) ** 2 < radius**2 else row
            pixels += bytes(round(128 + (level - 128) * detail) for level in colour)
    return bytes(pixels)


def fake_picture(
    request: GenerationRequest,
    seed: int,
    *,
    size: int,
    position: int = 0,
    original: OriginalFiles | None = None,
) -> EnginePicture:
    """The finished picture, with a record of the same form as a real one's.

    `position` counts within a strip; of plain pictures the seed says it all. An `original` is
    named in the record, and not looked at.
    """
    pixels = draw(request, seed, size=size, position=position)
    first = 0 if request.towards else request.seed
    record: dict[str, Any] = {
        "version": __version__,
        "request": request.to_json(),
        "seed": seed,
        "batch": [first, request.num_images],
        "model_sha256": FAKE_SHA256,
        "environment": {"engine": "fake"},
        "pixels_sha256": _pixels_sha256(pixels, size, size),
    }
    if request.towards:
        record[POSITION] = position
    if original is not None:
        record[EDITED] = _edited(original)
    return EnginePicture(seed, png(pixels, size, size, record), size, size, record)


def _edited(original: OriginalFiles) -> dict[str, str | None]:
    mask = original.mask
    return {
        "picture": hashlib.sha256(original.picture).hexdigest(),
        "mask": None if mask is None else hashlib.sha256(mask).hexdigest(),
    }


def verify_fake(
    picture: bytes, *, model: str, size: int, original: OriginalFiles | None = None
) -> Mapping[str, Any]:
    """How a fake picture compares with drawing it again (see `engine.tasks`).

    Raises:
        InvalidInput: it carries no record.
    """
    record = read_record(picture)
    if record["model_sha256"] != FAKE_SHA256:
        return _result("cannot", None, "the picture was made by a model, and here is none")
    if record.get(EDITED) != (None if original is None else _edited(original)):
        return _result("cannot", None, "it was made from another picture than the one given")
    request = replace(GenerationRequest.from_json(record["request"]), model=model)
    again = draw(request, record["seed"], size=size, position=record.get(POSITION, 0))
    pixels = _read_pixels(picture, size)
    if pixels is None:
        return _result("different", 0.0, "the size differs")
    changed = record["pixels_sha256"] != _pixels_sha256(pixels, size, size)
    remarks = ["the picture was changed after it was made"] if changed else []
    error = sum((a - b) ** 2 for a, b in zip(pixels, again, strict=True)) / len(again)
    if error == 0:
        return _result("bit-exact", None, *remarks)
    psnr = round(10 * math.log10(255**2 / error), 2)
    return _result("close" if psnr >= CLOSE_PSNR else "different", psnr, *remarks)


def _result(verdict: str, psnr: float | None, *remarks: str) -> Mapping[str, Any]:
    return {"verdict": verdict, "psnr": psnr, "remarks": list(remarks)}


def _pixels_sha256(pixels: bytes, width: int, height: int) -> str:
    return hashlib.sha256(f"{width}x{height}".encode() + pixels).hexdigest()


def png(pixels: bytes, width: int, height: int, record: Mapping[str, Any] | None = None) -> bytes:
    """An 8-bit RGB PNG, with `record` and XMP in iTXt chunks (PNG specification, 11.3.3.4)."""
    stride = 3 * width
    rows = b"".join(b"\0" + pixels[y * stride : (y + 1) * stride] for y in range(height))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    if record is not None:
        packet = provenance_packet(str(record["request"]["model"]))
        texts = ((XMP_KEY, packet), (RECORD_KEY, json.dumps(record)))
        chunks += [(b"iTXt", key.encode() + _UNCOMPRESSED + text.encode()) for key, text in texts]
    chunks += [(b"IDAT", zlib.compress(rows, 6)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def read_record(picture: bytes) -> Mapping[str, Any]:
    """The record in a PNG's own, uncompressed text chunk.

    Raises:
        InvalidInput: there is none, or it is malformed.
    """
    head = RECORD_KEY.encode() + _UNCOMPRESSED
    for kind, data in _chunks(picture):
        if kind == b"iTXt" and data.startswith(head):
            text = data[len(head) :].decode(errors="replace")
            return parse_record(text, source="the picture")
    raise InvalidInput(
        "The picture carries no izograf record: it was not made here, or its metadata was removed."
    )


def _read_pixels(picture: bytes, size: int) -> bytes | None:
    """The RGB bytes of a PNG of this size as `png` writes it; None of any other."""
    chunks = _chunks(picture)
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    data = b"".join(data for kind, data in chunks if kind == b"IDAT")
    rows, stride = b"", 3 * size + 1
    with suppress(zlib.error):
        rows = zlib.decompressobj().decompress(data, size * stride)
    if chunks[:1] != [(b"IHDR", header)] or len(rows) != size * stride or any(rows[::stride]):
        return None
    return b"".join(rows[y * stride + 1 : (y + 1) * stride] for y in range(size))


def _chunks(picture: bytes) -> list[tuple[bytes, bytes]]:
    """The kind and data of each whole chunk of a PNG; of anything else, none."""
    found, at = [], len(_SIGNATURE)
    while picture.startswith(_SIGNATURE) and at + 12 <= len(picture):
        (length,) = struct.unpack(">I", picture[at : at + 4])
        found.append((picture[at + 4 : at + 8], picture[at + 8 : at + 8 + length]))
        at += 12 + length
    return found
