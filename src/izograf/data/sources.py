"""Where pictures come from: folders, zips, npz files and tables, all as lists of entries.

`open_sources` turns the paths a user gives into sources: an image folder, a zip of one, an npz
(see `arrays`), a CSV or JSON-lines table (see `tables`), a folder of zips, or several of these,
one after the other. `metadata.csv` or `metadata.jsonl` inside a folder or zip describes the
pictures beside and below it. Layouts are listed in `layout`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from izograf.data.arrays import read_parts
from izograf.data.catalog import CLASSES_FILE, Forms, parse_forms
from izograf.data.layout import Split, arrange, split_of
from izograf.data.preprocess import Pixels
from izograf.data.scan import Unreadable
from izograf.data.tables import TABLE_SUFFIXES, Row, read_table
from izograf.data.trees import FolderTree, Tree, ZipTree, file_fingerprint
from izograf.schema.errors import DataError, UnsafeFile

ACCEPTED = "an image folder, a zip of one, an .npz, or a .csv or .jsonl table"

_METADATA = ("metadata.csv", "metadata.jsonl")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")

# Files that accompany pictures and are not pictures themselves: passed over without a word.
_SIDECARS = (
    ".txt", ".md", ".rst", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".toml", ".yaml", ".yml",
    ".xml", ".html", ".py", ".ipynb", ".cff", ".bib",
)  # fmt: skip
_SIDECAR_NAMES = ("readme", "license", "licence", "copying", "authors", "notice", "checksums")


@dataclass(frozen=True)
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
        """The words of the user's own `classes.toml`, by normalised class name."""
        ...

    def fingerprint(self) -> Any:
        """JSON that changes when the source does, found without reading pictures."""
        ...

    def close(self) -> None: ...


class TreeSource:
    """Pictures in a folder or zip, described by its layout and its `metadata` files."""

    def __init__(self, tree: Tree, leave_out: Sequence[str] = ()) -> None:
        """`leave_out` names files that are sources of their own."""
        self.path = tree.path
        self._tree = tree
        self._leave_out = frozenset(leave_out)

    def entries(self) -> Sequence[Entry]:
        names = self._tree.names()
        rows = _described(self._tree, [n for n in names if _basename(n) in _METADATA])
        pictures = [n for n in names if n not in self._leave_out and not _is_sidecar(n)]
        missing = sorted(rows.keys() - set(pictures))
        return _tree_entries(self._tree, pictures + missing, rows)

    def forms(self) -> Mapping[str, Forms]:
        beside = _forms_beside(self.path) if self.path.is_file() else {}
        # At the root, or inside the folder that wraps everything: the shallowest one.
        own = [name for name in self._tree.names() if _basename(name) == CLASSES_FILE]
        if not own:
            return beside
        shallowest = min(own, key=lambda name: (name.count("/"), name))
        return dict(beside) | _parse(_content(self._tree, shallowest), f"{self.path}/{shallowest}")

    def fingerprint(self) -> Any:
        return [self._tree.fingerprint(), _beside_fingerprint(self.path)]

    def close(self) -> None:
        self._tree.close()


class TableSource:
    """Pictures listed in a CSV or JSON-lines file; names are relative to its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tree = FolderTree(path.parent)

    @functools.cached_property
    def _rows(self) -> Mapping[str, Row]:
        return read_table(_file_content(self.path), str(self.path))

    def entries(self) -> Sequence[Entry]:
        return _tree_entries(self._tree, list(self._rows), self._rows)

    def forms(self) -> Mapping[str, Forms]:
        return _forms_beside(self.path)

    def fingerprint(self) -> Any:
        files = [self.path.parent / name for name in self._rows]
        stamps = [file_fingerprint(file) for file in files if file.is_file()]
        return [file_fingerprint(self.path), stamps, _beside_fingerprint(self.path)]

    def close(self) -> None:
        pass


class ArraySource:
    """Pictures in an npz file, named `train/00017` by split and position."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> Sequence[Entry]:
        entries = []
        for part in read_parts(self.path):
            for index, class_name in enumerate(part.class_names):
                name = f"{part.prefix}/{index:05d}"
                split = part.split or split_of(name)
                entries.append(Entry(name, class_name, split, part.opener(index)))
        return entries

    def forms(self) -> Mapping[str, Forms]:
        return _forms_beside(self.path)

    def fingerprint(self) -> Any:
        return [file_fingerprint(self.path), _beside_fingerprint(self.path)]

    def close(self) -> None:
        pass


def open_sources(paths: Sequence[Path]) -> list[Source]:
    """The sources under `paths`, in order; the zips of a folder are sorted by name.

    Raises:
        DataError: no such path, an empty folder, or a file of an unsupported kind.
        UnsafeFile: a pickle.
    """
    if not paths:
        raise DataError(f"No data was given: name {ACCEPTED}.")
    return [source for path in paths for source in _open(Path(path))]


def _open(path: Path) -> list[Source]:
    try:
        path.stat()
    except OSError as error:
        raise DataError(f"Cannot find {path} ({error.strerror}): give {ACCEPTED}.") from error
    if path.is_dir():
        return _open_folder(path)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return [TreeSource(ZipTree(path))]
    if suffix == ".npz":
        return [ArraySource(path)]
    if suffix in TABLE_SUFFIXES:
        return [TableSource(path)]
    if suffix in _PICKLES:
        raise UnsafeFile(
            f"{path} is a pickle, which can run code when loaded; it was refused. Save the "
            "pictures as files, or as uint8 arrays with np.savez_compressed."
        )
    raise DataError(f"{path} is not a kind of data that can be read: give {ACCEPTED}.")


def _open_folder(path: Path) -> list[Source]:
    tree = FolderTree(path)
    names = tree.names()
    archives = [n for n in names if "/" not in n and n.lower().endswith((".zip", ".npz"))]
    sources: list[Source] = []
    loose = set(names) - set(archives)
    if any(not _is_sidecar(n) or _basename(n) in _METADATA for n in loose):
        sources.append(TreeSource(tree, leave_out=archives))
    sources.extend(source for name in archives for source in _open(path / name))
    if not sources:
        what = "is empty" if not names else "holds no pictures"
        raise DataError(f"The folder {path} {what}: put pictures in it, one folder per class.")
    return sources


def _tree_entries(tree: Tree, names: Sequence[str], rows: Mapping[str, Row]) -> list[Entry]:
    entries = []
    for name, place in zip(names, arrange(names), strict=True):
        row = rows.get(name)
        entries.append(
            Entry(
                name=name,
                class_name=(row and row.class_name) or place.class_name,
                split=(row and row.split) or place.split or split_of(place.key),
                open=functools.partial(tree.read, name),
                columns=row.columns if row else {},
            )
        )
    return entries


def _described(tree: Tree, metadata: Sequence[str]) -> dict[str, Row]:
    """Full name -> row, for the rows of every metadata file of the tree."""
    rows = {}
    for name in metadata:
        table = read_table(_content(tree, name), f"{tree.path}/{name}")
        for row in table.values():
            rows[str(PurePosixPath(name).parent / row.file_name)] = row
    return rows


def _content(tree: Tree, name: str) -> bytes:
    try:
        return tree.read(name)
    except Unreadable as error:
        raise DataError(f"{tree.path}/{name} cannot be read: {error}.") from error


def _file_content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _parse(content: bytes, source: str) -> dict[str, Forms]:
    try:
        return parse_forms(content.decode("utf-8-sig"), source=source)
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text: save it in the UTF-8 encoding.") from error


def _forms_beside(path: Path) -> dict[str, Forms]:
    beside = path.parent / CLASSES_FILE
    return _parse(_file_content(beside), str(beside)) if beside.is_file() else {}


def _beside_fingerprint(path: Path) -> Any:
    beside = path.parent / CLASSES_FILE
    return file_fingerprint(beside) if path.is_file() and beside.is_file() else None


def _basename(name: str) -> str:
    return name.rpartition("/")[2]


def _is_sidecar(name: str) -> bool:
    base = _basename(name).lower()
    return base.endswith(_SIDECARS) or base in _SIDECAR_NAMES
