"""What every format of data becomes: sources, each a list of pictures not yet read.

A format is one file in `data/formats` with one function, which looks at a location and returns a
source, or `None` where the data is of another kind:

    @FORMATS.register("name")
    def name(location: Location) -> Source | None: ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from izograf.core.registry import Registry
from izograf.data.catalog import CLASSES_FILE, Forms, parse_forms
from izograf.data.layout import Split
from izograf.data.preprocess import Pixels
from izograf.data.scan import Unreadable
from izograf.data.trees import Tree, file_fingerprint
from izograf.schema.errors import DataError

# The largest table that describes pictures; COCO's instances are the largest known, 0.5 GiB.
MAX_TABLE_BYTES = 4 * 2**30

# Files that accompany pictures and are not pictures themselves: passed over without a word.
_SIDECARS = (
    ".txt", ".md", ".rst", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".toml", ".yaml", ".yml",
    ".xml", ".html", ".py", ".ipynb", ".cff", ".bib",
)  # fmt: skip
_SIDECAR_NAMES = ("readme", "license", "licence", "copying", "authors", "notice", "checksums")


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of a source, not yet read.

    Attributes:
        name: its stable name inside the source.
        class_name: as the source spells it; `None` where unlabelled.
        split: never undecided: as stated, else by the name (`layout.split_of`).
        open: gives the file's bytes or uint8 pixels; raises `Unreadable`. Thread-safe.
        columns: whatever a table says about the picture.
    """

    name: str
    class_name: str | None
    split: Split
    open: Callable[[], bytes | Pixels]
    columns: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A collection of pictures under one path."""

    @property
    def path(self) -> Path: ...

    def entries(self) -> Sequence[Entry]:
        """All pictures of both splits, in a fixed order.

        Raises:
            DataError: the source as a whole cannot be read.
        """
        ...

    def forms(self) -> Mapping[str, Forms]:
        """The words of the source's classes, above all of the user's own `classes.toml`."""
        ...

    def fingerprint(self) -> Any:
        """JSON that changes when the source does, found without reading pictures."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Location:
    """Where data may lie: a path as the user gave it, with its `tree` if a folder or zip."""

    path: Path
    tree: Tree | None = None

    @functools.cached_property
    def basenames(self) -> frozenset[str]:
        """The last part of every name in the tree, by which most formats are known."""
        return frozenset(map(basename, self.tree.names())) if self.tree else frozenset()


Format = Callable[[Location], Source | None]
"""The source at this location, or `None` where it is of another format."""

FORMATS: Registry[Format] = Registry("data format", package="izograf.data.formats")


@dataclass(frozen=True)
class TreeSource:
    """Pictures in a folder or zip, as one function lists them.

    Attributes:
        list_entries: gives the entries.
        words: gives the class words that the data itself has; `classes.toml` comes before them.
        kind: the format's name and version, part of the fingerprint. Empty for plain folders,
            whose sets prepared before there were formats stay valid.
    """

    tree: Tree
    list_entries: Callable[[Tree], Sequence[Entry]]
    words: Callable[[Tree], Mapping[str, Forms]] = lambda _: {}
    kind: str = ""

    @property
    def path(self) -> Path:
        return self.tree.path

    def entries(self) -> Sequence[Entry]:
        return self.list_entries(self.tree)

    def forms(self) -> Mapping[str, Forms]:
        return dict(self.words(self.tree)) | _forms_in(self.tree)

    def fingerprint(self) -> Any:
        kind = [self.kind] if self.kind else []
        return [*kind, self.tree.fingerprint(), beside_fingerprint(self.path)]

    def close(self) -> None:
        self.tree.close()


def _forms_in(tree: Tree) -> dict[str, Forms]:
    beside = forms_beside(tree.path) if tree.path.is_file() else {}
    # At the root, or inside the folder that wraps everything: the shallowest one.
    own = [name for name in tree.names() if basename(name) == CLASSES_FILE]
    if not own:
        return beside
    shallowest = min(own, key=lambda name: (name.count("/"), name))
    return beside | _parse(content(tree, shallowest), f"{tree.path}/{shallowest}")


def forms_beside(path: Path) -> dict[str, Forms]:
    """The words of the `classes.toml` in the same folder as the file `path`."""
    beside = path.parent / CLASSES_FILE
    return _parse(file_content(beside), str(beside)) if beside.is_file() else {}


def beside_fingerprint(path: Path) -> Any:
    """Of the `classes.toml` beside the file `path`; `None` without one, or for a folder."""
    beside = path.parent / CLASSES_FILE
    return file_fingerprint(beside) if path.is_file() and beside.is_file() else None


def _parse(raw: bytes, source: str) -> dict[str, Forms]:
    return parse_forms(decoded(raw, source), source=source)


def content(tree: Tree, name: str) -> bytes:
    """A table of the tree, up to `MAX_TABLE_BYTES`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return tree.read(name, MAX_TABLE_BYTES)
    except Unreadable as error:
        raise DataError(f"{tree.path}/{name} cannot be read: {error}.") from error


def text(tree: Tree, name: str) -> str:
    """A text file of the tree.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    return decoded(content(tree, name), f"{tree.path}/{name}")


def decoded(raw: bytes, source: str) -> str:
    """UTF-8 text, with or without a byte order mark.

    Raises:
        DataError: it is not UTF-8; the message names `source`.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text: save it in the UTF-8 encoding.") from error


def file_content(path: Path) -> bytes:
    """The bytes of a file outside any tree.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def basename(name: str) -> str:
    """The last part of a name in a tree."""
    return name.rpartition("/")[2]


def is_sidecar(name: str) -> bool:
    """Whether the file accompanies pictures and is none: a readme, a table, a script."""
    base = basename(name).lower()
    return base.endswith(_SIDECARS) or base in _SIDECAR_NAMES
