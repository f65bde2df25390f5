"""A CSV, TSV or JSON-lines file that lists pictures; names are relative to its folder."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from izograf.data.catalog import Forms
from izograf.data.entries import (
    FORMATS,
    Entry,
    Location,
    Source,
    beside_fingerprint,
    file_content,
    forms_beside,
)
from izograf.data.sources import described_entries
from izograf.data.tables import TABLE_SUFFIXES, Row, read_table
from izograf.data.trees import FolderTree, file_fingerprint


class TableSource:
    """The pictures that one table lists, in its order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tree = FolderTree(path.parent)

    @functools.cached_property
    def _rows(self) -> Mapping[str, Row]:
        return read_table(file_content(self.path), str(self.path))

    def entries(self) -> Sequence[Entry]:
        return described_entries(self._tree, list(self._rows), self._rows)

    def forms(self) -> Mapping[str, Forms]:
        return forms_beside(self.path)

    def fingerprint(self) -> Any:
        files = [self.path.parent / name for name in self._rows]
        stamps = [file_fingerprint(file) for file in files if file.is_file()]
        return [file_fingerprint(self.path), stamps, beside_fingerprint(self.path)]

    def close(self) -> None:
        pass


@FORMATS.register("table")
def table(location: Location) -> Source | None:
    """Any file with a suffix of `tables.TABLE_SUFFIXES`."""
    path = location.path
    return TableSource(path) if path.suffix.lower() in TABLE_SUFFIXES and path.is_file() else None
