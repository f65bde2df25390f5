"""Tables in MATLAB's files: the struct arrays of the level 5 MAT-file format (MathWorks).

Only what such a table needs is read: text, numbers, structs of them, plain or compressed. Nothing
in these files is ever executed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Types of data elements, and classes of arrays.
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_TEXTS = {2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR, _NUMERIC = 2, 4, range(6, 16)

_HEADER_BYTES = 128
MAX_UNPACKED_BYTES = 64 * 2**20


def read_structs(content: bytes) -> dict[str, list[dict[str, Any]]]:
    """Name -> rows of every struct array, each row field -> text, number, list of numbers or None.

    None stands for values of any other kind.

    Raises:
        ValueError: not such a file, damaged, or unpacked larger than `MAX_UNPACKED_BYTES`.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER_BYTES])
    if order is None:
        raise ValueError("not a MATLAB file of level 5")
    try:
        found = [_matrix(raw, order) for raw in _matrices(content[_HEADER_BYTES:], order)]
    except (struct.error, zlib.error, LookupError, RecursionError) as error:
        raise ValueError(f"damaged ({error})") from error
    return {name: value for name, value in found if _is_table(value)}


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _matrices(content: bytes, order: str) -> Iterator[bytes]:
    """The arrays at the outermost level, unpacked."""
    for kind, raw in _elements(content, order):
        if kind == _COMPRESSED:
            unpacking = zlib.decompressobj()
            unpacked = unpacking.decompress(raw, MAX_UNPACKED_BYTES)
            if unpacking.unconsumed_tail:
                raise ValueError("unpacked too large")
            yield from _matrices(unpacked, order)
        elif kind == _MATRIX:
            yield raw


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, data) of each data element; up to four bytes of data lie inside the tag itself."""
    position = 0
    while position < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, position)
        start = position + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
        if start + size > len(content):
            raise ValueError("truncated")
        yield kind, content[start : start + size]
        # Everything but compressed data fills up to eight bytes.
        position = max(position + 8, start + size)
        position += 0 if kind == _COMPRESSED else -position % 8


def _matrix(content: bytes, order: str) -> tuple[str, Any]:
    """Name and value of one array."""
    parts = list(_elements(content, order))
    if not parts:
        return "", None
    flags, _, (_, name), *rest = parts
    kind = int(_numbers(*flags, order)[0]) & 0xFF
    value: Any = None
    if kind == _STRUCT:
        value = _rows(rest, order)
    elif kind == _CHAR and rest:
        value = rest[0][1].decode(_encoding(rest[0][0], order))
    elif kind in _NUMERIC and rest:
        numbers = _numbers(*rest[0], order).tolist()
        value = numbers[0] if len(numbers) == 1 else numbers
    return name.decode("ascii"), value


def _rows(parts: list[tuple[int, bytes]], order: str) -> list[dict[str, Any]]:
    """The rows of a struct array: the width of its field names, these names, then all values."""
    width, names = int(_numbers(*parts[0], order)[0]), parts[1][1]
    if width < 1:
        raise ValueError("field names without width")
    starts = range(0, len(names), width)
    fields = [names[at : at + width].split(b"\0")[0].decode("ascii") for at in starts]
    values = [_matrix(raw, order)[1] for _, raw in parts[2:]]
    if not fields or len(values) % len(fields):
        raise ValueError("fields and values do not match")
    return [
        dict(zip(fields, values[at : at + len(fields)], strict=True))
        for at in range(0, len(values), len(fields))
    ]


def _numbers(kind: int, raw: bytes, order: str) -> NDArray[Any]:
    return np.frombuffer(raw, np.dtype(_NUMBERS[kind]).newbyteorder(order))  # type: ignore[arg-type]


def _encoding(kind: int, order: str) -> str:
    encoding = _TEXTS[kind]
    wide = "-le" if order == "<" else "-be"
    return encoding if encoding == "utf-8" else encoding + wide
