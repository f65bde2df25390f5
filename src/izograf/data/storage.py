"""What prepared pictures are written to, and how much memory there is for them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import torch
from torch import Tensor

from izograf.core.memory import available_memory
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


@contextmanager
def atomic_file(target: Path) -> Iterator[IO[bytes]]:
    """A temporary neighbour to fill, which becomes `target` when the block ends without an error.

    Raises:
        StorageError: the folder cannot be written.
    """
    temporary = target.with_suffix(f".{secrets.token_hex(8)}.part")
    with refusals_explained(target.parent):
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
def refusals_explained(folder: Path) -> Iterator[None]:
    """Turns the system's refusals to write into `folder` into one clear sentence."""
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
