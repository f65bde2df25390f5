"""CIFAR-10 and CIFAR-100 in their binary version (Krizhevsky 2009).

    data_batch_1.bin ... data_batch_5.bin, test_batch.bin, batches.meta.txt               CIFAR-10
    train.bin, test.bin, fine_label_names.txt, coarse_label_names.txt                     CIFAR-100

A record is its labels, one byte each, then 3072 bytes of pixels [3,32,32]. CIFAR-10 has one label;
CIFAR-100 has the coarse one, kept as the column `coarse`, then the fine one, which is the class.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from izograf.data.entries import (
    FORMATS,
    Entry,
    Location,
    Source,
    TreeSource,
    basename,
    content,
    text,
)
from izograf.data.layout import Split
from izograf.data.preprocess import Pixels
from izograf.data.trees import Tree
from izograf.schema.errors import DataError, UnsafeFile

SIDE = 32
_PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class _Version:
    """Which files hold pictures, and which the names of each label of a record, class last."""

    pictures: re.Pattern[str]
    marks: frozenset[str]
    labels: tuple[tuple[str, str], ...]


_VERSIONS = (
    _Version(
        re.compile(r"(?:data_batch_\d+|test_batch)\.bin"),
        frozenset({"data_batch_1.bin"}),
        (("class", "batches.meta.txt"),),
    ),
    _Version(
        re.compile(r"(?:train|test)\.bin"),
        frozenset({"train.bin", "fine_label_names.txt"}),
        (("coarse", "coarse_label_names.txt"), ("class", "fine_label_names.txt")),
    ),
)
_PICKLED = (frozenset({"data_batch_1", "batches.meta"}), frozenset({"train", "test", "meta"}))


@FORMATS.register("cifar")
def cifar(location: Location) -> Source | None:
    """A folder or zip with the binary batches.

    Raises:
        UnsafeFile: it holds the Python version, which is pickled.
    """
    if location.tree is None:
        return None
    bases = location.basenames
    for version in _VERSIONS:
        if version.marks <= bases:
            listed = functools.partial(_entries, version=version)
            return TreeSource(location.tree, listed, kind="cifar-1")
    if any(marks <= bases for marks in _PICKLED):
        raise UnsafeFile(
            f"{location.path} is CIFAR's Python version, whose files are pickles, which can run "
            "code when loaded; it was refused. Give the binary version (cifar-10-binary.tar.gz)."
        )
    return None


def _entries(tree: Tree, version: _Version) -> Sequence[Entry]:
    labels = [(key, _label_names(tree, file)) for key, file in version.labels]
    batches = [name for name in tree.names() if version.pictures.fullmatch(basename(name))]
    return [entry for name in batches for entry in _batch(tree, name, labels)]


def _batch(tree: Tree, name: str, labels: Sequence[tuple[str, tuple[str, ...]]]) -> list[Entry]:
    raw, where = np.frombuffer(content(tree, name), np.uint8), f"{tree.path}/{name}"
    length = len(labels) + _PIXELS
    if len(raw) % length:
        raise DataError(
            f"{where} is no whole number of records of {length:,} bytes: it is damaged or not a "
            "binary batch of CIFAR. Unpack it again."
        )
    records = raw.reshape(-1, length)
    pixels = records[:, len(labels) :].reshape(-1, 3, SIDE, SIDE)
    stem = basename(name).removesuffix(".bin")
    split: Split = "test" if stem.startswith("test") else "train"
    described = [
        _named(records[:, position], names, where) for position, (_, names) in enumerate(labels)
    ]
    keys = [key for key, _ in labels]
    entries = []
    for index, values in enumerate(zip(*described, strict=True)):
        columns = dict(zip(keys, values, strict=True))
        class_name = columns.pop("class")
        opened = functools.partial(_picture, pixels, index)
        entries.append(Entry(f"{stem}/{index:05d}", class_name, split, opened, columns))
    return entries


def _picture(pixels: Pixels, index: int) -> Pixels:
    return np.ascontiguousarray(pixels[index].transpose(1, 2, 0))


def _named(ids: NDArray[np.uint8], names: tuple[str, ...], where: str) -> list[str]:
    if not names:
        return [str(label) for label in ids.tolist()]
    if len(ids) and int(ids.max()) >= len(names):
        raise DataError(
            f"{where} has the label {int(ids.max())}, and there are {len(names)} class names: the "
            "files belong to different sets."
        )
    return [names[label] for label in ids.tolist()]


def _label_names(tree: Tree, file: str) -> tuple[str, ...]:
    """The names in `file`, a line each; none where there is no such file."""
    found = [name for name in tree.names() if basename(name) == file]
    if not found:
        return ()
    return tuple(line.strip() for line in text(tree, found[0]).splitlines() if line.strip())
