"""The text chunks of a PNG, read without decoding a pixel (PNG specification, section 11.3.3).

Anybody can write such a file: sizes are bounded before anything is unpacked, so a bomb stays small.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator

from izograf.schema.errors import InvalidInput

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LONGEST_TEXT = 200_000  # bytes of one chunk's text, unpacked
MAX_CHUNKS = 10_000
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def read_texts(png: bytes, keywords: Collection[str]) -> dict[str, str]:
    """keyword -> text, of those among `keywords` that the PNG carries; the first of each.

    Raises:
        InvalidInput: it is no PNG, it is cut off, or one of these texts is damaged or too long.
    """
    found: dict[str, str] = {}
    for kind, data in _chunks(png):
        keyword = data[:80].partition(b"\0")[0].decode("latin-1")
        if kind in _TEXTS and keyword in keywords and keyword not in found:
            found[keyword] = _text(kind, data[len(keyword) + 1 :])
    return found


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not png.startswith(SIGNATURE):
        raise InvalidInput("This is no PNG: send the file as it was saved.")
    place = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        head = png[place : place + 8]
        if len(head) < 8:
            raise InvalidInput("The PNG is cut off: send the whole file.")
        size, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if place + 12 + size > len(png):
            raise InvalidInput("The PNG is cut off: send the whole file.")
        yield kind, png[place + 8 : place + 8 + size]
        place += 12 + size
    raise InvalidInput(f"The PNG has more than {MAX_CHUNKS:,} chunks.")


def _text(kind: bytes, data: bytes) -> str:
    """What follows the keyword and its zero byte."""
    if kind == b"tEXt":
        return _bounded(data).decode("latin-1")
    if kind == b"zTXt":
        return _unpacked(data[1:]).decode("latin-1")
    compressed, rest = data[:1] == b"\x01", data[2:]
    for _ in ("language", "translated keyword"):
        rest = rest.partition(b"\0")[2]
    return (_unpacked(rest) if compressed else _bounded(rest)).decode("utf-8", errors="replace")


def _unpacked(data: bytes) -> bytes:
    try:
        return _bounded(zlib.decompressobj().decompress(data, LONGEST_TEXT + 1))
    except zlib.error as error:
        raise InvalidInput(f"A text inside the PNG is damaged: {error}.") from error


def _bounded(data: bytes) -> bytes:
    if len(data) > LONGEST_TEXT:
        raise InvalidInput(f"A text inside the PNG is longer than {LONGEST_TEXT:,} bytes.")
    return data
