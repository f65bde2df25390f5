"""The cache of prepared sets, so that a set is decoded once.

A set of up to `SHARD_BYTES` is `<key>.npy` (uint8 [N,3,S,S]) and `<key>.json` (names, classes,
report). A larger one has shards `<key>-00007.npy`, each with a `<key>-00007.json` that tells which
entries it was made from and which of them were skipped: preparation that was interrupted goes on
after the last of them, and a damaged shard is the only one made again.

The JSON is renamed into place last, so a shard, or set, whose JSON exists is complete.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from izograf.data.reading import Reading, Skipped
from izograf.data.shards import Images, Shard, ShardedImages, mapped, shard_spans
from izograf.data.storage import FileSink, atomic_file, is_large, refusals_explained

_ABANDONED_SECONDS = 3600


def cache_key(parts: Any) -> str:
    """A short file name for a JSON value."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def store(folder: Path, key: str, reading: Reading) -> None:
    """Prepares what `reading` reads and keeps it under `key`; finished shards are kept as they are.

    Raises:
        StorageError: the folder cannot be written.
    """
    _sweep(folder, key)
    spans = _spans(reading)
    skipped: Skipped = {}
    for number, span in enumerate(spans):
        path = _shard_path(folder, key, number, len(spans))
        known = _skipped_in(path, span) if len(spans) > 1 else None
        if known is None:
            known = _write_shard(path, reading, span)
            if len(spans) > 1:
                notes = {"span": [span.start, span.stop], "skipped": list(known.items())}
                _write_json(path.with_suffix(".json"), notes)
        else:
            reading.pass_over(span)
        skipped |= known
    _write_json(folder / f"{key}.json", {**reading.about(skipped), "shards": len(spans)})


def load(folder: Path, key: str) -> tuple[Images, dict[str, Any]] | None:
    """Images and metadata stored under `key`; `None` when absent, damaged or incomplete."""
    try:
        about = json.loads((folder / f"{key}.json").read_bytes())
        count = int(about.get("shards", 1))
        parts = [_map(_shard_path(folder, key, number, count)) for number in range(count)]
        sizes = {part.pixels.shape[1:] for part in parts}
        if len(about["names"]) != sum(map(len, parts)) or len(sizes) != 1:
            return None
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None
    if is_large(sum(part.pixels.nbytes for part in parts)):
        return ShardedImages(parts), about
    return torch.from_numpy(np.concatenate([part.pixels for part in parts])), about


def in_temporary_files(reading: Reading) -> tuple[Images, dict[str, Any]]:
    """What `reading` reads, in files without a name that vanish with the images.

    Raises:
        StorageError: there is no room for it.
    """
    parts: list[Shard] = []
    skipped: Skipped = {}
    for span in _spans(reading):
        with refusals_explained(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
            skipped |= _fill(FileSink(file, reading.image_size), reading, span)
            parts.append(mapped(file))
    return ShardedImages(parts), reading.about(skipped)


def _spans(reading: Reading) -> list[range]:
    return shard_spans(reading.count, 3 * reading.image_size**2)


def _shard_path(folder: Path, key: str, number: int, count: int) -> Path:
    return folder / (f"{key}.npy" if count == 1 else f"{key}-{number:05d}.npy")


def _map(path: Path) -> Shard:
    with path.open("rb") as file:
        return mapped(file)


def _skipped_in(path: Path, span: range) -> Skipped | None:
    """What the notes of a finished shard say; `None` where it is not, or is damaged."""
    try:
        notes: Mapping[str, Any] = json.loads(path.with_suffix(".json").read_bytes())
        skipped = {int(position): str(reason) for position, reason in notes["skipped"]}
        whole = notes["span"] == [span.start, span.stop] and skipped.keys() <= set(span)
        return skipped if whole and len(_map(path)) == len(span) - len(skipped) else None
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None


def _write_shard(path: Path, reading: Reading, span: range) -> Skipped:
    with atomic_file(path) as file:
        return _fill(FileSink(file, reading.image_size), reading, span)


def _fill(sink: FileSink, reading: Reading, span: range) -> Skipped:
    skipped = reading.into(sink, span)
    sink.finish()
    return skipped


def _write_json(path: Path, value: Any) -> None:
    with atomic_file(path) as file:
        # ASCII escapes, because a file name on disk need not be valid Unicode.
        file.write(json.dumps(value).encode("ascii"))


def _sweep(folder: Path, key: str) -> None:
    """Removes what a killed preparation of this set left half written."""
    for path in folder.glob(f"{key}*.part"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
