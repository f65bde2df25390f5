"""Pictures from outside: looked at in a process of its own that may use little memory and time.

Whatever comes in, what goes on is a PNG that was written here: 8-bit RGB, upright, without
metadata and without whatever else the file was. The picture is never decoded in this process.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

from izograf.schema.errors import InvalidInput
from izograf.service.settings import ServiceSettings

MEMORY_BYTES = 256 << 20  # of address space, the interpreter included
CPU_SECONDS = 10
WALL_SECONDS = 30.0
AT_ONCE = 2

SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
NOT_A_PICTURE = "This is no picture that can be read here: send a PNG, JPEG, WebP, GIF or BMP."
TOO_MUCH = "The picture takes too much memory or time to read: send a smaller one."

_CHILD = Path(__file__).with_name("uploads_child.py")
_HEADER_END = 33  # of a PNG: signature, and the IHDR chunk with its length and checksum
_places = threading.BoundedSemaphore(AT_ONCE)


class UnusablePicture(InvalidInput):
    """An uploaded file is no picture, a damaged one, or one beyond the limits."""


@dataclass(frozen=True)
class UploadLimits:
    """What a picture may have, and what reading it may take. Seconds and bytes."""

    max_bytes: int
    max_pixels: int
    max_frames: int = 1
    memory_bytes: int = MEMORY_BYTES
    cpu_seconds: int = CPU_SECONDS
    wall_seconds: float = WALL_SECONDS

    @classmethod
    def of(cls, settings: ServiceSettings) -> UploadLimits:
        return cls(
            settings.max_upload_bytes, settings.max_upload_pixels, settings.max_upload_frames
        )


@dataclass(frozen=True)
class CleanPicture:
    """An uploaded picture as it is used here: an 8-bit RGB PNG, sizes in pixels."""

    png: bytes
    width: int
    height: int


def read_upload(data: bytes, limits: UploadLimits, *, as_mask: bool = False) -> CleanPicture:
    """The picture in `data`, made anew. Takes a process and some 0.1 s; call it in a thread.

    Of a mask with transparency, white is what was transparent, and the rest black.

    Raises:
        UnusablePicture: no picture, damaged, too large, too many frames, too costly to read.
    """
    if not data:
        raise UnusablePicture("The file is empty: choose a picture.")
    if len(data) > limits.max_bytes:
        raise UnusablePicture(f"The file is too large: at most {limits.max_bytes:,} bytes.")
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if not data.startswith(SIGNATURES) and not is_webp:
        raise UnusablePicture(NOT_A_PICTURE)
    with _places:
        answer = _ask_child(data, limits, as_mask=as_mask)
    head, _, png = answer.partition(b"\n")
    try:
        facts = json.loads(head)
    except ValueError:
        raise UnusablePicture(TOO_MUCH) from None
    if "refusal" in facts:
        raise UnusablePicture(facts["refusal"])
    return CleanPicture(png, facts["width"], facts["height"])


def _ask_child(data: bytes, limits: UploadLimits, *, as_mask: bool) -> bytes:
    numbers = (
        limits.max_pixels, limits.max_frames, limits.memory_bytes, limits.cpu_seconds,
        int(as_mask),
    )  # fmt: skip
    command = [sys.executable, "-I", str(_CHILD), *map(str, numbers)]
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=limits.wall_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnusablePicture(TOO_MUCH) from None
    if done.returncode != 0:
        raise UnusablePicture(TOO_MUCH)
    return done.stdout


def with_text(png: bytes, keyword: str, text: str) -> bytes:
    """A PNG that `read_upload` made, with one uncompressed iTXt chunk after its header."""
    data = keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    chunk = b"iTXt" + data
    framed = struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:_HEADER_END] + framed + png[_HEADER_END:]
