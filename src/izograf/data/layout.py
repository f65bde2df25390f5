"""What a picture's path says about it: class and split, from the usual folder layouts.

    train/<class>/x.webp, test/<class>/x.webp   split and class
    <class>/train/x.webp, <class>/test/...      the same
    <class>/x.jpg, <class>/more/x.jpg           class; the split is made from the name
    x.jpg                                       neither
    anything/<one of the above>                 folders that merely wrap everything are dropped

A folder `val`, `valid`, `validation` or `dev` holds held-out pictures and counts as test. A
single folder with a generic name (`images`, `photos`, ...) is not a class.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Literal

from izograf.schema.errors import DataError

Split = Literal["train", "test"]

SPLITS: Mapping[str, Split] = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "val": "test",
    "valid": "test", "validation": "test", "dev": "test", "held-out": "test",
}  # fmt: skip

_GENERIC = frozenset({"images", "image", "imgs", "img", "pictures", "photos", "jpegimages"})
_TEST_ONE_IN = 10


@dataclass(frozen=True)
class Place:
    """Class and split that a layout states, either may be `None`; `key` decides a missing split."""

    class_name: str | None
    split: Split | None
    key: str


def arrange(names: Sequence[str]) -> list[Place]:
    """The place of each picture; `names` are relative paths with `/`, all of one source."""
    paths = [PurePosixPath(unicodedata.normalize("NFC", name)).parts for name in names]
    depth = _wrapping_depth(paths)
    paths = [path[depth:] for path in paths]
    if all(len(path) > 2 and path[1].casefold() in SPLITS for path in paths):
        paths = [(path[1], path[0], *path[2:]) for path in paths]
    has_splits = _has_splits(paths)
    places = [_place(path, has_splits) for path in paths]
    classes = {place.class_name for place in places} - {None}
    if len(classes) == 1 and str(next(iter(classes))).casefold() in _GENERIC:
        places = [Place(None, place.split, place.key) for place in places]
    return places


def _wrapping_depth(paths: Sequence[tuple[str, ...]]) -> int:
    """How many leading folders contain everything and are neither a class nor a split."""
    depth = 0
    while paths and all(len(path) >= depth + 2 for path in paths):
        tops = {path[depth] for path in paths}
        if len(tops) != 1 or next(iter(tops)).casefold() in SPLITS:
            break
        # A stray file beside the splits must not turn `train` and `test` into classes.
        only_folders = all(len(path) >= depth + 3 for path in paths)
        if not only_folders and not _has_splits([path[depth + 1 :] for path in paths]):
            break
        depth += 1
    return depth


def _has_splits(paths: Sequence[tuple[str, ...]]) -> bool:
    """Whether the outermost folders are splits: only such, or train and test among others.

    A lone `train` among other names is a class: the vehicle.
    """
    tops = {path[0].casefold() for path in paths if len(path) > 1}
    return bool(tops) and (tops <= SPLITS.keys() or {"train", "test"} <= tops)


def _place(path: tuple[str, ...], has_splits: bool) -> Place:
    split = SPLITS.get(path[0].casefold()) if has_splits and len(path) > 1 else None
    rest = path[1:] if split else path
    return Place(rest[0] if len(rest) > 1 else None, split, "/".join(path))


def split_of(key: str) -> Split:
    """The split of a picture whose layout states none: test for a tenth, by sha256 of its name.

    It depends on this name alone, so adding or removing other pictures moves none.
    """
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return "test" if int.from_bytes(digest[:8], "big") % _TEST_ONE_IN == 0 else "train"


def safe_name(name: str, where: str) -> str:
    """`name` as a relative path with `/`, guaranteed to stay inside its folder or zip.

    Raises:
        DataError: it is absolute, has a drive, climbs with `..`, or is empty.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or PureWindowsPath(name).drive
        or "\0" in name
    ):
        raise DataError(
            f"{where} names {name!r}, which is not a file inside its own folder: only relative "
            "names without .. are read. Correct the name."
        )
    return str(path)
