"""Prepared pictures that need not fit in memory: several .npy files behind one index."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from izograf.data.preprocess import Pixels

SHARD_BYTES = 2**30
MAX_SHARDS = 256  # each keeps a file open, and systems allow about a thousand
_GROUP_BYTES = 2**24


@dataclass(frozen=True)
class Shard:
    """The pictures uint8 [N,3,S,S] of one file; without pictures there is nothing to map."""

    pixels: Pixels
    memory: mmap.mmap | None = None
    start: int = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: NDArray[np.int64]) -> Pixels:
        """A copy of these pictures."""
        if self.memory is not None and hasattr(mmap, "MADV_WILLNEED"):
            # Left alone, every page that is touched waits for the disk in turn, and brings its
            # neighbours along. Told in advance, the system reads exactly these, all at once.
            size = math.prod(self.pixels.shape[1:])
            for begin in (self.start + rows * size).tolist():
                page = begin - begin % mmap.PAGESIZE
                self.memory.madvise(mmap.MADV_WILLNEED, page, begin + size - page)
        return self.pixels[rows]


class ShardedImages:
    """uint8 [N,3,S,S] on disk, indexed like a tensor; only what an index names is read.

    An integer, a slice, or a tensor of integers or truth values gives a new tensor in memory.
    Iterating gives consecutive groups uint8 [B,3,S,S] of about 16 MiB, so that whoever takes an
    iterable of batches can read all pictures without holding them.
    """

    dtype = torch.uint8
    device = torch.device("cpu")

    def __init__(self, shards: Sequence[Shard]) -> None:
        """`shards` in order, at least one, all of one picture size."""
        self._shards = tuple(shards)
        self._starts = np.cumsum([0, *map(len, shards)])
        self.shape = torch.Size((int(self._starts[-1]), *shards[0].pixels.shape[1:]))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Raises:
        IndexError: out of range, or a mask of another length.
        """
        return torch.from_numpy(self._gather(self._positions(index)))

    def __iter__(self) -> Iterator[Tensor]:
        size = max(1, _GROUP_BYTES // math.prod(self.shape[1:]))
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def _positions(self, index: int | slice | Tensor) -> NDArray[np.int64]:
        count = len(self)
        if isinstance(index, slice):
            return np.arange(*index.indices(count))
        positions = np.asarray(index.cpu() if isinstance(index, Tensor) else index)
        if positions.dtype == np.bool_:
            if positions.shape != (count,):
                raise IndexError(f"a mask of shape {positions.shape} for {count:,} pictures")
            return np.flatnonzero(positions)
        if positions.size and not (-count <= positions.min() and positions.max() < count):
            raise IndexError(f"an index beyond the {count:,} pictures")
        return np.where(positions < 0, positions + count, positions).astype(np.int64)

    def _gather(self, positions: NDArray[np.int64]) -> Pixels:
        flat = positions.reshape(-1)
        found = np.empty((len(flat), *self.shape[1:]), np.uint8)
        shard_of = np.searchsorted(self._starts, flat, side="right") - 1
        for shard in np.unique(shard_of):
            chosen = np.flatnonzero(shard_of == shard)
            found[chosen] = self._shards[shard].read(flat[chosen] - self._starts[shard])
        return found.reshape(*positions.shape, *self.shape[1:])


Images = Tensor | ShardedImages
"""uint8 [N,3,S,S], in memory or on disk."""


def shard_spans(num_entries: int, picture_bytes: int) -> list[range]:
    """Which entries go into which shard: at most `SHARD_BYTES` each, at most `MAX_SHARDS`."""
    size = max(1, SHARD_BYTES // picture_bytes, math.ceil(num_entries / MAX_SHARDS))
    starts = range(0, num_entries, size)
    return [range(start, min(start + size, num_entries)) for start in starts]


def mapped(file: IO[bytes]) -> Shard:
    """The array uint8 [N,3,S,S] in a .npy file, read-only and mapped; the file may be deleted.

    Raises:
        ValueError: not such a file, or of another length than its header says.
    """
    file.seek(0)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not the format of .npy that is written here")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    start, length = file.tell(), file.seek(0, 2)
    if fortran_order or dtype != np.uint8 or len(shape) != 4:
        raise ValueError("not an array of pictures")
    if length != start + math.prod(shape):
        raise ValueError("not complete")
    if not math.prod(shape):
        return Shard(np.empty(shape, np.uint8))
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return Shard(np.frombuffer(memory, np.uint8, offset=start).reshape(shape), memory, start)
