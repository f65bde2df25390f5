"""Datasets: any supported pictures on disk -> one uint8 tensor with class indices.

    images = load_images([Path("scenes")], 64, split="train", cache_dir=Path("cache"))

Reading is deterministic: the same files give the same tensor, classes and order.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import PIL
import torch
from torch import Tensor

from izograf.core.types import DROPPED
from izograf.data.catalog import Forms, label_classes
from izograf.data.preprocess import (
    PREPROCESS_VERSION,
    Pixels,
    check_filter,
    describe,
    pillow_warnings,
    prepare,
)
from izograf.data.scan import ScanReport, Unreadable, scan_report
from izograf.data.sources import Entry, Source, open_sources
from izograf.data.storage import (
    MemorySink,
    Sink,
    cache_key,
    in_temporary_file,
    is_large,
    load_cached,
    store_about,
    store_images,
)
from izograf.schema.errors import DataError, InvalidInput, StorageError
from izograf.schema.labels import ClassLabel, normalise

SplitChoice = Literal["train", "test", "all"]
OnProgress = Callable[[int, int], None]

MAX_IMAGE_SIZE = 1024
_THREADS = 2
_CHUNK = 256
_CACHE_VERSION = 1


@dataclass(frozen=True)
class ImageSet:
    """Prepared pictures of one dataset and split.

    Attributes:
        images: uint8 [N,3,S,S], in memory or memory-mapped.
        class_ids: int64 [N], index into `classes`, -1 (`DROPPED`) where unlabelled.
        classes: sorted by name over train and test together, so that both splits agree.
        names: the stable name of each picture inside its source.
        name: of the dataset, the stem of its path or paths.
        split: `train`, `test` or `all`.
        resize: the preprocessing in words, for the model card.
        report: what was read and what was skipped.
        columns: per picture, what a table says about it; empty without tables.
    """

    images: Tensor
    class_ids: Tensor
    classes: tuple[ClassLabel, ...]
    names: tuple[str, ...]
    name: str
    split: str
    resize: str
    report: ScanReport
    columns: tuple[Mapping[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def load_images(
    paths: Sequence[Path],
    image_size: int,
    *,
    split: SplitChoice = "train",
    resize: str = "lanczos",
    strict: bool = False,
    limit: int | None = None,
    cache_dir: Path | None = None,
    on_progress: OnProgress | None = None,
) -> ImageSet:
    """The pictures under `paths`, as S x S squares, S = `image_size`.

    Args:
        paths: what `sources.open_sources` takes; several are concatenated, and classes of the
            same name are one class.
        split: the split as the data states it, else a fixed tenth is test (`layout.split_of`).
        resize: filter, a key of `preprocess.FILTERS`.
        strict: refuse the dataset when a single picture cannot be used, instead of skipping it.
        limit: at most so many pictures, chosen by a hash of their names, hence of all classes.
        cache_dir: keep the prepared set there and reuse it while the files are unchanged.
        on_progress: called with (pictures done, pictures in total) every few hundred.

    Raises:
        DataError: nothing can be read, the split is empty, or `strict` and something is skipped.
        UnsafeFile: pickled data.
        InvalidInput: image size, filter, split or limit out of range.
        StorageError: the cache cannot be written.
    """
    _check_arguments(image_size, split, resize, limit)
    where = ", ".join(str(path) for path in paths)
    with ExitStack() as stack:
        sources = open_sources(paths)
        for source in sources:
            stack.callback(source.close)
        name = "+".join(dict.fromkeys(_stem(Path(path)) for path in paths))

        def read() -> _Reading:
            listing = _Listing.of(sources, split, limit, where)
            return _Reading(listing, image_size, resize, on_progress)

        if cache_dir is None:
            images, about = _in_memory(read())
        else:
            key = _key(sources, image_size, split, resize, limit)
            images, about = load_cached(cache_dir, key) or _through_cache(read(), cache_dir, key)
    found = _image_set(images, about, name, split, resize)
    found.report.raise_if_empty(where)
    if strict:
        found.report.raise_if_skipped(where)
    return found


def _check_arguments(image_size: int, split: str, resize: str, limit: int | None) -> None:
    check_filter(resize)
    if not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise InvalidInput(f"image_size must be from 1 to {MAX_IMAGE_SIZE}, got {image_size}.")
    if split not in ("train", "test", "all"):
        raise InvalidInput(f"split must be train, test or all, got {split!r}.")
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit must be at least 1, got {limit}.")


def _stem(path: Path) -> str:
    resolved = path.resolve()
    return resolved.name if resolved.is_dir() else resolved.stem


def _key(sources: Sequence[Source], *settings: Any) -> str:
    versions = [_CACHE_VERSION, PREPROCESS_VERSION, PIL.__version__]
    return cache_key([versions, settings, [source.fingerprint() for source in sources]])


@dataclass(frozen=True)
class _Listing:
    """The entries to read, all class names, the index of each spelling, and the user's forms."""

    entries: list[Entry]
    class_names: tuple[str, ...]
    index: Mapping[str, int]
    forms: Mapping[str, Forms]

    @classmethod
    def of(
        cls, sources: Sequence[Source], split: SplitChoice, limit: int | None, where: str
    ) -> _Listing:
        everything = [entry for source in sources for entry in source.entries()]
        if not everything:
            raise DataError(f"{where} holds no pictures: put pictures in it, a folder per class.")
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


class _Reading:
    """One pass over the entries: decodes them into a sink and notes what became of each."""

    def __init__(
        self, listing: _Listing, image_size: int, resize: str, on_progress: OnProgress | None
    ) -> None:
        self.image_size = image_size
        self.count = len(listing.entries)
        self._listing = listing
        self._resize = resize
        self._on_progress = on_progress or (lambda done, total: None)  # noqa: ARG005
        self._kept: list[Entry] = []
        self._skipped: list[tuple[str, str]] = []

    def into(self, sink: Sink) -> None:
        """Writes every readable picture to `sink`, in order."""
        done = 0
        with pillow_warnings(), ThreadPoolExecutor(_THREADS) as pool:
            for chunk in _chunks(self._listing.entries):
                for entry, result in zip(chunk, pool.map(self._decode, chunk), strict=True):
                    if isinstance(result, str):
                        self._skipped.append((entry.name, result))
                    else:
                        sink.write(result)
                        self._kept.append(entry)
                done += len(chunk)
                self._on_progress(done, self.count)

    def _decode(self, entry: Entry) -> Pixels | str:
        """The prepared pixels, or the reason why there are none."""
        try:
            return prepare(entry.open(), self.image_size, self._resize)
        except Unreadable as error:
            return str(error)

    def about(self) -> dict[str, Any]:
        """Everything about the set except its pixels, as JSON."""
        index = self._listing.index
        ids = [index[normalise(e.class_name)] if e.class_name else DROPPED for e in self._kept]
        has_columns = any(entry.columns for entry in self._kept)
        return {
            "names": [entry.name for entry in self._kept],
            "class_ids": ids,
            "class_names": list(self._listing.class_names),
            "forms": {name: dict(forms) for name, forms in self._listing.forms.items()},
            "columns": [dict(entry.columns) for entry in self._kept] if has_columns else [],
            "report": scan_report(self._listing.class_names, ids, self._skipped).to_json(),
        }


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    iterator = iter(entries)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk


def _in_memory(reading: _Reading) -> tuple[Tensor, dict[str, Any]]:
    """The whole set in memory, or in a nameless mapped file when memory is short."""
    if is_large(3 * reading.image_size**2 * reading.count):
        images = in_temporary_file(reading.into, reading.image_size)
    else:
        sink = MemorySink(reading.count, reading.image_size)
        reading.into(sink)
        images = sink.tensor()
    return images, reading.about()


def _through_cache(reading: _Reading, folder: Path, key: str) -> tuple[Tensor, dict[str, Any]]:
    """The set as stored in the cache and read back from there."""
    store_images(folder, key, reading.into, reading.image_size)
    store_about(folder, key, reading.about())
    stored = load_cached(folder, key)
    if stored is None:
        raise StorageError(f"The data cache {folder} does not keep what is written to it.")
    return stored


def _image_set(
    images: Tensor, about: Mapping[str, Any], name: str, split: str, resize: str
) -> ImageSet:
    forms = {
        key: {language: tuple(words) for language, words in entry.items()}
        for key, entry in about["forms"].items()
    }
    return ImageSet(
        images=images,
        class_ids=torch.tensor(about["class_ids"], dtype=torch.int64),
        classes=label_classes(about["class_names"], forms),
        names=tuple(about["names"]),
        name=name,
        split=split,
        resize=describe(resize),
        report=ScanReport.from_json(about["report"]),
        columns=tuple(about["columns"]),
    )
