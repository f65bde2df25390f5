"""CelebA (Liu et al. 2015, arXiv:1411.7766), as downloaded or as Kaggle repacks it.

    list_attr_celeba.txt          or .csv; the number of pictures, 40 names, then -1 or 1 of each
    list_eval_partition.txt       or .csv; 0 train, 1 validation and 2 test, which both are held out
    img_align_celeba/000001.jpg   anywhere below; `img_align_celeba_png` serves as well

Every attribute is a column, true or false; there is no class until one of them is asked for.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Sequence
from typing import TypeVar

from izograf.data.entries import (
    FORMATS,
    Entry,
    Location,
    Source,
    TreeSource,
    basename,
    is_sidecar,
    text,
)
from izograf.data.layout import Split, split_of
from izograf.data.trees import Tree
from izograf.schema.errors import DataError

_ATTRIBUTES = "list_attr_celeba"
_PARTITION = "list_eval_partition"
_FOLDERS = ("img_align_celeba", "img_align_celeba_png")
_VALUES = {"1": True, "-1": False, "0": False}
_SPLITS: dict[str, Split] = {"0": "train", "1": "test", "2": "test"}

T = TypeVar("T")


@FORMATS.register("celeba")
def celeba(location: Location) -> Source | None:
    """A folder or zip that holds the file of attributes."""
    tree = location.tree
    if tree is None or location.basenames.isdisjoint(_files(_ATTRIBUTES)):
        return None
    return TreeSource(tree, _entries, kind="celeba-1")


def _files(stem: str) -> tuple[str, str]:
    return f"{stem}.txt", f"{stem}.csv"


def _table(tree: Tree, stem: str) -> str | None:
    return next((name for name in tree.names() if basename(name) in _files(stem)), None)


def _entries(tree: Tree) -> Sequence[Entry]:
    attributes = _table(tree, _ATTRIBUTES)
    assert attributes is not None
    pictures = _pictures(tree)
    if not pictures:
        raise DataError(
            f"{tree.path} has {attributes} and no picture in a folder img_align_celeba: unpack "
            "img_align_celeba.zip there."
        )
    splits = _partition(tree)
    entries = []
    lines = _lines(tree, attributes)
    names = _header(lines, f"{tree.path}/{attributes}")
    for number, (file, *values) in lines:
        where = f"{tree.path}/{attributes}, line {number}"
        if len(values) != len(names):
            raise DataError(
                f"{where}: {len(values)} values for {len(names)} attributes. Download it again."
            )
        name = pictures.get(_stem(file), f"{_FOLDERS[0]}/{file}")
        columns = {
            key: _looked_up(value, _VALUES, where) for key, value in zip(names, values, strict=True)
        }
        split = splits.get(_stem(file)) or split_of(file)
        entries.append(Entry(name, None, split, functools.partial(tree.read, name), columns))
    return entries


def _pictures(tree: Tree) -> dict[str, str]:
    """`000001` -> name in the tree. Kaggle's zip has the folder inside one of the same name."""
    found = {}
    for name in tree.names():
        if name.split("/")[-2:-1] and name.split("/")[-2] in _FOLDERS and not is_sidecar(name):
            found[_stem(basename(name))] = name
    return found


def _partition(tree: Tree) -> dict[str, Split]:
    name = _table(tree, _PARTITION)
    if name is None:
        return {}
    rows = {}
    for number, cells in _lines(tree, name):
        if number == 1 and cells[-1] == "partition":
            continue
        where = f"{tree.path}/{name}, line {number}"
        if len(cells) != 2:
            raise DataError(f"{where}: expected a file name and 0, 1 or 2.")
        rows[_stem(cells[0])] = _looked_up(cells[1], _SPLITS, where)
    return rows


def _header(lines: Iterator[tuple[int, list[str]]], where: str) -> list[str]:
    """The names of the attributes, from the first line or the one after the number of pictures."""
    for _, cells in lines:
        if len(cells) == 1 and cells[0].isdecimal():
            continue
        return cells[1:] if cells[0] == "image_id" else cells
    raise DataError(f"{where} is empty: download it again.")


def _lines(tree: Tree, name: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line with content."""
    rows = text(tree, name).splitlines()
    split = csv.reader(rows) if name.endswith(".csv") else map(str.split, rows)
    yield from ((number, cells) for number, cells in enumerate(split, start=1) if cells)


def _looked_up(value: str, meanings: dict[str, T], where: str) -> T:
    try:
        return meanings[value]
    except KeyError:
        known = ", ".join(meanings)
        raise DataError(f"{where}: {value!r} is none of {known}. Download it again.") from None


def _stem(file: str) -> str:
    return file.rpartition(".")[0]
