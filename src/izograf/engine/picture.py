"""A seeded picture drawn without any model: what the fake engine makes. Standard library only."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from izograf import __version__
from izograf.engine.protocol import EnginePicture
from izograf.schema.request import GenerationRequest

RECORD_KEY = "izograf"
FAKE_SHA256 = hashlib.sha256(b"the fake engine has no weights").hexdigest()


def draw(request: GenerationRequest, seed: int, *, size: int, detail: float = 1.0) -> bytes:
    """RGB bytes, row by row: a sky, ground and a disc whose colours and places the seed decides.

    `detail` from 0 to 1 fades the picture in from grey, as a preview of an early step does.
    """
    digest = hashlib.sha256(f"{request.model}/{request.label}/{seed}".encode()).digest()
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


def fake_picture(request: GenerationRequest, seed: int, *, size: int) -> EnginePicture:
    """The finished picture, with a record of the same form as a real one's."""
    pixels = draw(request, seed, size=size)
    digest = hashlib.sha256(f"{size}x{size}".encode() + pixels).hexdigest()
    record: dict[str, Any] = {
        "version": __version__,
        "request": request.to_json(),
        "seed": seed,
        "batch": [request.seed, request.num_images],
        "model_sha256": FAKE_SHA256,
        "environment": {"engine": "fake"},
        "pixels_sha256": digest,
    }
    return EnginePicture(seed, png(pixels, size, size, record), size, size, record)


def png(pixels: bytes, width: int, height: int, record: Mapping[str, Any] | None = None) -> bytes:
    """An 8-bit RGB PNG, with `record` in an iTXt chunk (PNG specification, 11.3.3.4)."""
    stride = 3 * width
    rows = b"".join(b"\0" + pixels[y * stride : (y + 1) * stride] for y in range(height))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    if record is not None:
        text = json.dumps(record, ensure_ascii=False).encode()
        chunks.append((b"iTXt", RECORD_KEY.encode() + b"\0\0\0\0\0" + text))
    chunks += [(b"IDAT", zlib.compress(rows, 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
