"""Where pictures come from: every path a user gives becomes sources, lists of entries.

`open_sources` asks each registered format (`data/formats`) whether the path is its own. A folder
or zip that none of them claims is a plain one: its layout says class and split (see `layout`), and
`metadata.csv` or `metadata.jsonl` inside it describes the pictures beside and below it. A folder
may also hold zips and npz files, which are read one after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from izograf.data.entries import (
    FORMATS,
    Entry,
    Location,
    Source,
    TreeSource,
    basename,
    content,
    is_sidecar,
)
from izograf.data.layout import arrange, split_of
from izograf.data.tables import Row, read_table
from izograf.data.trees import FolderTree, Tree, ZipTree
from izograf.schema.errors import DataError, UnsafeFile

ACCEPTED = "an image folder, a zip of one, an .npz, a .csv or .jsonl table, or hf:owner/name"

_METADATA = ("metadata.csv", "metadata.jsonl")
_ARCHIVES = (".zip", ".npz")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")


def open_sources(paths: Sequence[Path]) -> list[Source]:
    """The sources under `paths`, in order; the zips of a folder are sorted by name.

    Raises:
        DataError: no such path, an empty folder, or a file of an unsupported kind.
        UnsafeFile: a pickle.
        MissingExtra: the format needs a package that is not installed.
    """
    if not paths:
        raise DataError(f"No data was given: name {ACCEPTED}.")
    return [source for path in paths for source in _open(Path(path))]


def _open(path: Path) -> list[Source]:
    location = locate(path)
    try:
        for name in FORMATS:
            if (source := FORMATS[name](location)) is not None:
                return [source]
        if location.tree is None:
            raise _not_read(path)
        return _open_plain(location.tree)
    except Exception:
        if location.tree is not None:
            location.tree.close()
        raise


def locate(path: Path) -> Location:
    """`path` with its tree; a path that does not exist may still be a name that a format knows.

    Raises:
        DataError: the path, or the zip, cannot be read.
    """
    try:
        if path.is_dir():
            return Location(path, FolderTree(path))
        if path.suffix.lower() == ".zip" and path.is_file():
            return Location(path, ZipTree(path))
    except OSError as error:
        raise _not_found(path, error) from error
    return Location(path)


def _not_found(path: Path, error: OSError) -> DataError:
    return DataError(f"Cannot find {path} ({error.strerror}): give {ACCEPTED}.")


def _not_read(path: Path) -> DataError | UnsafeFile:
    """Why no format reads `path`, which is neither a folder nor a zip."""
    try:
        path.stat()
    except OSError as error:
        return _not_found(path, error)
    if path.suffix.lower() in _PICKLES:
        return UnsafeFile(
            f"{path} is a pickle, which can run code when loaded; it was refused. Save the "
            "pictures as files, or as uint8 arrays with np.savez_compressed."
        )
    return DataError(f"{path} is not a kind of data that can be read: give {ACCEPTED}.")


def _open_plain(tree: Tree) -> list[Source]:
    path = tree.path
    if not isinstance(tree, FolderTree):
        return [TreeSource(tree, _plain_entries)]
    names = tree.names()
    archives = [n for n in names if "/" not in n and n.lower().endswith(_ARCHIVES)]
    sources: list[Source] = []
    loose = set(names) - set(archives)
    if any(not is_sidecar(n) or basename(n) in _METADATA for n in loose):
        listed = functools.partial(_plain_entries, leave_out=frozenset(archives))
        sources.append(TreeSource(tree, listed))
    sources.extend(source for name in archives for source in _open(path / name))
    if not sources:
        what = "is empty" if not names else "holds no pictures"
        raise DataError(f"The folder {path} {what}: put pictures in it, one folder per class.")
    return sources


def _plain_entries(tree: Tree, leave_out: frozenset[str] = frozenset()) -> list[Entry]:
    """Every file that may be a picture; `leave_out` names files that are sources of their own."""
    names = tree.names()
    rows = _described(tree, [n for n in names if basename(n) in _METADATA])
    pictures = [n for n in names if n not in leave_out and not is_sidecar(n)]
    missing = sorted(rows.keys() - set(pictures))
    return described_entries(tree, pictures + missing, rows)


def described_entries(tree: Tree, names: Sequence[str], rows: Mapping[str, Row]) -> list[Entry]:
    """Entries of the files `names`: what their rows say, and where those are silent the layout."""
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
        table = read_table(content(tree, name), f"{tree.path}/{name}")
        for row in table.values():
            rows[str(PurePosixPath(name).parent / row.file_name)] = row
    return rows
