"""Reading a dataset: which pictures are wanted, and one pass that decodes them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from izograf.core.registry import unknown_name
from izograf.core.types import DROPPED
from izograf.data.catalog import Forms
from izograf.data.entries import Entry, Source
from izograf.data.preprocess import Pixels, pillow_warnings, prepare
from izograf.data.scan import Unreadable, scan_report
from izograf.data.storage import Sink
from izograf.schema.errors import DataError
from izograf.schema.labels import normalise

SplitChoice = Literal["train", "test", "all"]
OnProgress = Callable[[int, int], None]
Skipped = dict[int, str]
"""Position of an entry -> the reason why its picture could not be used."""

_THREADS = 2
_CHUNK = 256


@dataclass(frozen=True)
class Listing:
    """The entries to read, all class names, the index of each spelling, and the user's forms."""

    entries: list[Entry]
    class_names: tuple[str, ...]
    index: Mapping[str, int]
    forms: Mapping[str, Forms]

    @classmethod
    def of(
        cls,
        sources: Sequence[Source],
        split: SplitChoice,
        limit: int | None,
        class_column: str | None,
        where: str,
    ) -> Listing:
        """What `dataset.load_images` is to read from `sources`; `where` names them in errors.

        Raises:
            DataError: no pictures, none in the split, or a class column that cannot serve.
        """
        everything = [entry for source in sources for entry in source.entries()]
        if not everything:
            raise DataError(f"{where} holds no pictures: put pictures in it, a folder per class.")
        if class_column is not None:
            everything = _classed_by(everything, class_column)
        spellings: dict[str, str] = {}
        for name in sorted({entry.class_name for entry in everything if entry.class_name}):
            spellings.setdefault(normalise(name), name)
        class_names = tuple(sorted(spellings.values(), key=_class_order))
        index = {normalise(name): i for i, name in enumerate(class_names)}
        chosen = [entry for entry in everything if split in ("all", entry.split)]
        if not chosen:
            raise DataError(
                f"{where} has {len(everything):,} pictures, but none in the {split} split: put "
                f"some into a folder {split}, or read split='all'."
            )
        forms: dict[str, Forms] = {}
        for source in sources:
            forms.update(source.forms())
        return cls(_sample(chosen, limit), class_names, index, forms)


def _classed_by(entries: list[Entry], column: str) -> list[Entry]:
    """The entries with the value of `column` as their class; none where it is empty."""
    known = {key for entry in entries for key in entry.columns}
    if column not in known:
        raise unknown_name("column", column, known)
    return [replace(e, class_name=_class_of(e.columns.get(column), column)) for e in entries]


def _class_of(value: Any, column: str) -> str | None:
    """A truth value becomes the column's name, or `not` and its name."""
    if isinstance(value, bool):
        name = column.replace("_", " ")
        return name if value else f"not {name}"
    if value is None or isinstance(value, str | int):
        return None if value is None else str(value).strip() or None
    raise DataError(
        f"The column {column} cannot be the class, because it holds {type(value).__name__} values "
        "and not one name or whole number per picture: choose another."
    )


def _class_order(name: str) -> tuple[int, int, str]:
    """Sorted by name, except that numbers sort by value, so that label 10 follows label 9."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _sample(entries: list[Entry], limit: int | None) -> list[Entry]:
    if limit is None or limit >= len(entries):
        return entries

    def rank(position: int) -> tuple[bytes, int]:
        name = entries[position].name.encode("utf-8", "surrogatepass")
        return hashlib.sha256(b"limit/" + name).digest(), position

    kept = sorted(range(len(entries)), key=rank)[:limit]
    return [entries[position] for position in sorted(kept)]


class Reading:
    """One pass over the entries, span by span: decodes them and tells what became of each."""

    def __init__(
        self, listing: Listing, image_size: int, resize: str, on_progress: OnProgress | None
    ) -> None:
        self.image_size = image_size
        self.count = len(listing.entries)
        self._listing = listing
        self._resize = resize
        self._on_progress = on_progress or (lambda done, total: None)  # noqa: ARG005

    def into(self, sink: Sink, span: range) -> Skipped:
        """Writes every readable picture of these positions to `sink`, in order."""
        skipped: Skipped = {}
        with pillow_warnings(), ThreadPoolExecutor(_THREADS) as pool:
            for positions in _chunks(span):
                for position, result in zip(
                    positions, pool.map(self._decode, positions), strict=True
                ):
                    if isinstance(result, str):
                        skipped[position] = result
                    else:
                        sink.write(result)
                self._on_progress(positions[-1] + 1, self.count)
        return skipped

    def pass_over(self, span: range) -> None:
        """Counts these positions as done; an earlier run decoded them."""
        self._on_progress(span.stop, self.count)

    def _decode(self, position: int) -> Pixels | str:
        """The prepared pixels, or the reason why there are none."""
        entry = self._listing.entries[position]
        try:
            return prepare(entry.open(), self.image_size, self._resize)
        except Unreadable as error:
            return str(error)

    def about(self, skipped: Mapping[int, str]) -> dict[str, Any]:
        """Everything about the set except its pixels, as JSON."""
        index, entries = self._listing.index, self._listing.entries
        kept = [entry for position, entry in enumerate(entries) if position not in skipped]
        ids = [index[normalise(e.class_name)] if e.class_name else DROPPED for e in kept]
        reasons = [(entries[position].name, skipped[position]) for position in sorted(skipped)]
        has_columns = any(entry.columns for entry in kept)
        return {
            "names": [entry.name for entry in kept],
            "class_ids": ids,
            "class_names": list(self._listing.class_names),
            "forms": {name: dict(forms) for name, forms in self._listing.forms.items()},
            "columns": [dict(entry.columns) for entry in kept] if has_columns else [],
            "report": scan_report(self._listing.class_names, ids, reasons).to_json(),
        }


def _chunks(positions: Iterable[int]) -> Iterator[list[int]]:
    iterator = iter(positions)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk
