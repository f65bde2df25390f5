"""Where prepared pictures lie: in memory, or in a .npy file that can be memory-mapped.

A cached set is `<key>.npy` (uint8 [N,3,S,S]) and `<key>.json` (names, classes, report). The JSON
is renamed into place last, so a set whose JSON exists is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from izograf.data.preprocess import Pixels
from izograf.schema.errors import StorageError


class Sink(Protocol):
    """Takes prepared pictures one after the other."""

    def write(self, pixels: Pixels) -> None: ...


class MemorySink:
    """Pictures in one array, allocated for `capacity` of them."""

    def __init__(self, capacity: int, image_size: int) -> None:
        self._array = np.empty((capacity, 3, image_size, image_size), np.uint8)
        self._count = 0

    def write(self, pixels: Pixels) -> None:
        self._array[self._count] = pixels
        self._count += 1

    def tensor(self) -> Tensor:
        """uint8 [N,3,S,S], N the number written."""
        return torch.from_numpy(self._array[: self._count])


class FileSink:
    """Pictures appended to a .npy file; `finish` writes their number into its header."""

    def __init__(self, file: IO[bytes], image_size: int) -> None:
        self._file = file
        self._shape = (3, image_size, image_size)
        self._count = 0
        self._start = self._header()

    def _header(self) -> int:
        self._file.seek(0)
        # numpy pads the header so that the first axis may grow without moving the data.
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def write(self, pixels: Pixels) -> None:
        self._file.write(pixels.tobytes())
        self._count += 1

    def finish(self) -> None:
        if self._header() != self._start:
            raise AssertionError("the .npy header changed its length")
        self._file.flush()

    def mapped(self) -> Tensor:
        """uint8 [N,3,S,S], mapped from the finished file; the file itself may be deleted."""
        shape = (self._count, *self._shape)
        if not self._count:
            return torch.empty(shape, dtype=torch.uint8)
        # Mode "c": torch wants writable memory; what is written never reaches the file.
        array = np.memmap(self._file, np.uint8, mode="c", offset=self._start, shape=shape)
        return torch.from_numpy(array)


def in_temporary_file(fill: Callable[[Sink], None], image_size: int) -> Tensor:
    """What `fill` wrote, mapped from a file without a name that vanishes with the tensor.

    Raises:
        StorageError: there is no room for it.
    """
    with _storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
        sink = FileSink(file, image_size)
        fill(sink)
        sink.finish()
        return sink.mapped()


def cache_key(parts: Any) -> str:
    """A short file name for a JSON value."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def store_images(folder: Path, key: str, fill: Callable[[Sink], None], image_size: int) -> None:
    """Writes what `fill` gives to `<key>.npy`; nothing is left behind when `fill` fails.

    Raises:
        StorageError: the folder cannot be written.
    """
    with _atomic(folder / f"{key}.npy") as file:
        sink = FileSink(file, image_size)
        fill(sink)
        sink.finish()


def store_about(folder: Path, key: str, about: dict[str, Any]) -> None:
    """Writes `<key>.json`, which makes the images stored before it valid.

    Raises:
        StorageError: the folder cannot be written.
    """
    with _atomic(folder / f"{key}.json") as file:
        # ASCII escapes, because a file name on disk need not be valid Unicode.
        file.write(json.dumps(about).encode("ascii"))


def load_cached(folder: Path, key: str) -> tuple[Tensor, dict[str, Any]] | None:
    """Images and metadata stored under `key`; `None` when absent, damaged or incomplete."""
    array_path, json_path = folder / f"{key}.npy", folder / f"{key}.json"
    try:
        about = json.loads(json_path.read_bytes())
        # Mode "c": see `FileSink.mapped`.
        mode = "c" if is_large(array_path.stat().st_size) else None
        images = np.load(array_path, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(about, dict) or images.dtype != np.uint8 or images.ndim != 4:
        return None
    if len(images) != len(about.get("names", ())):
        return None
    return torch.from_numpy(images), about


@contextmanager
def _atomic(target: Path) -> Iterator[IO[bytes]]:
    temporary = target.with_suffix(f".{secrets.token_hex(8)}.part")
    with _storage_errors(target.parent):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Prepared pictures cannot be stored in {folder}: {error.strerror or error}. Free some "
            "space or choose another cache folder."
        ) from error


def is_large(num_bytes: int) -> bool:
    """Whether so much data should be memory-mapped: more than a quarter of available memory."""
    return num_bytes > available_memory() // 4


def available_memory() -> int:
    """Bytes that can still be allocated, within this process's container where it has one."""
    return min(_system_memory(), _container_memory())


def _system_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return 4 * 2**30  # a system that does not tell: a modest guess


def _container_memory() -> int:
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        return max(0, limit - int((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no control group, or its limit is "max"
        return 2**63 - 1
