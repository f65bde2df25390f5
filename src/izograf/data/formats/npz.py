"""An npz file of arrays (see `data.arrays`); pictures are named `train/00017`, by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from izograf.data.arrays import read_parts
from izograf.data.catalog import Forms
from izograf.data.entries import (
    FORMATS,
    Entry,
    Location,
    Source,
    beside_fingerprint,
    forms_beside,
)
from izograf.data.layout import split_of
from izograf.data.trees import file_fingerprint


@dataclass(frozen=True)
class ArraySource:
    """The pictures of every split in one npz file."""

    path: Path

    def entries(self) -> Sequence[Entry]:
        entries = []
        for part in read_parts(self.path):
            for index, class_name in enumerate(part.class_names):
                name = f"{part.prefix}/{index:05d}"
                split = part.split or split_of(name)
                entries.append(Entry(name, class_name, split, part.opener(index)))
        return entries

    def forms(self) -> Mapping[str, Forms]:
        return forms_beside(self.path)

    def fingerprint(self) -> Any:
        return [file_fingerprint(self.path), beside_fingerprint(self.path)]

    def close(self) -> None:
        pass


@FORMATS.register("npz")
def npz(location: Location) -> Source | None:
    """Any file with the suffix .npz."""
    path = location.path
    return ArraySource(path) if path.suffix.lower() == ".npz" and path.is_file() else None
