"""Many pictures as one zip, written while it is sent: memory holds one picture at a time."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from izograf.schema.job import StoredImage


class _Outbox(io.RawIOBase):
    """A file that cannot seek, from which what was written is taken away."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def zipped(images: Sequence[StoredImage], read: Callable[[str], bytes]) -> Iterator[bytes]:
    """The bytes of a zip of the pictures; `read` gives a file by its sha256.

    PNG is compressed already, so the files are stored as they are.
    """
    outbox = _Outbox()
    names: Counter[str] = Counter()
    with zipfile.ZipFile(outbox, "w", zipfile.ZIP_STORED) as archive:
        for image in images:
            archive.writestr(_entry(image, names), read(image.sha256))
            yield outbox.take()
    yield outbox.take()


def file_stem(image: StoredImage) -> str:
    """`mountain-7`: the name under which a picture is saved; nothing in it means a folder."""
    label = "".join(c if c.isalnum() or c in "-_ " else "_" for c in image.label).strip()
    return f"{label[:80] or 'image'}-{image.seed}"


def _entry(image: StoredImage, names: Counter[str]) -> zipfile.ZipInfo:
    stem = file_stem(image)
    names[stem] += 1
    again = f"-{names[stem]}" if names[stem] > 1 else ""
    made = datetime.fromtimestamp(max(image.created, 315_532_800), UTC)  # zip begins in 1980
    return zipfile.ZipInfo(f"{stem}{again}.png", made.timetuple()[:6])
