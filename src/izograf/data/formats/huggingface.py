"""Data sets of the Hugging Face hub by name, with the extra `hf`: `hf:owner/name[:config]`.

The schema tells what is what: the first feature of type Image is the picture, the first ClassLabel
the class, and every other plain value a column; a feature of text called `text`, `caption` or
`captions` becomes the column `text` as well. The package downloads into its own cache, once.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from izograf.data.catalog import Forms
from izograf.data.entries import FORMATS, Entry, Location, Source
from izograf.data.layout import SPLITS, split_of
from izograf.data.scan import Unreadable
from izograf.data.trees import file_fingerprint
from izograf.schema.errors import DataError, MissingExtra

PREFIX = "hf:"
_CAPTIONS = ("text", "caption", "captions")


@dataclass(frozen=True)
class HubSource:
    """One data set of the hub, all of its splits.

    Attributes:
        path: the name as given, `hf:owner/name`.
        splits: split's name -> its `datasets.Dataset`.
        picture, label: the names of these features; there may be no label.
        classes: the names of the label's values.
    """

    path: Path
    splits: Mapping[str, Any]
    picture: str
    label: str | None
    classes: tuple[str, ...]

    def entries(self) -> Sequence[Entry]:
        entries = []
        for split_name, rows in self.splits.items():
            described = _columns(rows, self.picture)
            labels = rows[self.label] if self.label else [None] * rows.num_rows
            pictures = rows.select_columns([self.picture])
            stated = SPLITS.get(split_name.casefold())
            for index, (label, columns) in enumerate(zip(labels, described, strict=True)):
                name = f"{split_name}/{index:07d}"
                class_name = None if label is None or label < 0 else self.classes[label]
                opened = functools.partial(_picture, pictures, index, self.picture)
                split = stated or split_of(name)
                entries.append(Entry(name, class_name, split, opened, columns))
        return entries

    def forms(self) -> Mapping[str, Forms]:
        return {}

    def fingerprint(self) -> Any:
        files = [
            file_fingerprint(Path(file["filename"]))
            for rows in self.splits.values()
            for file in rows.cache_files
        ]
        counts = [[name, rows.num_rows] for name, rows in self.splits.items()]
        return ["huggingface-1", self.path.as_posix(), counts, files]

    def close(self) -> None:
        pass


@FORMATS.register("huggingface")
def huggingface(location: Location) -> Source | None:
    """`hf:owner/name`, or `hf:owner/name:config` for sets of several configurations.

    Raises:
        MissingExtra: the package `datasets` is not installed.
        DataError: no such set, no network, or none of its features is a picture.
    """
    name = location.path.as_posix()
    if location.tree is not None or not name.startswith(PREFIX):
        return None
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise MissingExtra(f"Reading {name} needs an extra: pip install 'izograf[hf]'.") from error
    repository, _, config = name.removeprefix(PREFIX).partition(":")
    try:
        splits = datasets.load_dataset(repository, config or None)
    except Exception as error:  # the package raises its own, the network's and the file system's
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"Cannot load {name}: {reason}. Check the name and the network; a set of several "
            "configurations is named hf:owner/name:configuration."
        ) from error
    return _source(datasets, location.path, splits)


def _source(datasets: Any, path: Path, splits: Mapping[str, Any]) -> HubSource:
    features = next(iter(splits.values())).features
    pictures = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not pictures:
        raise DataError(
            f"{path.as_posix()} has no feature of type Image, only {', '.join(features)}: choose "
            "a set of pictures."
        )
    # Undecoded: the file's bytes go through the same preparation as every other picture.
    as_bytes = datasets.Image(decode=False)
    raw = {name: rows.cast_column(pictures[0], as_bytes) for name, rows in splits.items()}
    label = labels[0] if labels else None
    classes = tuple(features[label].names) if label else ()
    return HubSource(path, raw, pictures[0], label, classes)


def _columns(rows: Any, picture: str) -> list[dict[str, Any]]:
    """Per row, every value that JSON can hold, without nested records and pictures."""
    plain = {
        key: list(rows[key])
        for key, kind in rows.features.items()
        if key != picture and (hasattr(kind, "names") or _is_plain(kind))
    }
    names = {key: kind.names for key, kind in rows.features.items() if hasattr(kind, "names")}
    for key, values in plain.items():
        if key in names:
            plain[key] = [None if v is None or v < 0 else names[key][v] for v in values]
    columns = [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
    columns = columns or [{} for _ in range(rows.num_rows)]
    caption = next((key for key in _CAPTIONS if key in plain), None)
    for row in columns if caption else ():
        value = row[caption]
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str):
            row.setdefault("text", first)
    return columns


def _is_plain(kind: Any) -> bool:
    """Whether a feature is a text, a number or a truth value, or a list of such."""
    inner = getattr(kind, "feature", None)
    inner = kind[0] if isinstance(kind, list) and kind else inner
    if inner is not None:
        return _is_plain(inner)
    dtype = str(getattr(kind, "dtype", ""))
    return dtype == "bool" or dtype.startswith(("string", "large_string", "int", "uint", "float"))


def _picture(rows: Any, index: int, picture: str) -> bytes:
    value = rows[index][picture]
    if value is None:
        raise Unreadable("no picture in this row")
    if value.get("bytes"):
        return bytes(value["bytes"])
    try:
        return Path(value["path"]).read_bytes()
    except (OSError, TypeError) as error:
        raise Unreadable("missing file") from error
