"""Datasets: any supported pictures on disk -> one uint8 tensor with class indices.

    images = load_images([Path("scenes")], 64, split="train", cache_dir=Path("cache"))

Reading is deterministic: the same files give the same tensor, classes and order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
import torch
from torch import Tensor

from izograf.data.cache import cache_key, in_temporary_files, load, store
from izograf.data.catalog import label_classes
from izograf.data.entries import Source
from izograf.data.preprocess import PREPROCESS_VERSION, check_filter, describe
from izograf.data.reading import Listing, OnProgress, Reading, SplitChoice
from izograf.data.scan import ScanReport
from izograf.data.shards import Images
from izograf.data.sources import open_sources
from izograf.data.storage import MemorySink, is_large
from izograf.schema.errors import InvalidInput, StorageError
from izograf.schema.labels import ClassLabel

MAX_IMAGE_SIZE = 1024
_CACHE_VERSION = 1


@dataclass(frozen=True)
class ImageSet:
    """Prepared pictures of one dataset and split.

    Attributes:
        images: uint8 [N,3,S,S]; a tensor, or `ShardedImages` where they exceed a quarter of the
            free memory: these are indexed alike, and stay on disk.
        class_ids: int64 [N], index into `classes`, -1 (`DROPPED`) where unlabelled.
        classes: sorted by name over train and test together, so that both splits agree.
        names: the stable name of each picture inside its source.
        name: of the dataset, the stem of its path or paths.
        split: `train`, `test` or `all`.
        resize: the preprocessing in words, for the model card.
        report: what was read and what was skipped.
        columns: per picture, what a table says about it; empty without tables.
    """

    images: Images
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
    class_column: str | None = None,
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
        class_column: take the class from this column of the data's tables, whatever the layout
            says: `Smiling` of CelebA, `category` of COCO. True and false give the classes
            `Smiling` and `not Smiling`.
        cache_dir: keep the prepared set there and reuse it while the files are unchanged; a
            large one is kept in shards, and interrupted preparation goes on after the last.
        on_progress: called with (pictures done, pictures in total) every few hundred.

    Raises:
        DataError: nothing can be read, the split is empty, or `strict` and something is skipped.
        UnsafeFile: pickled data.
        InvalidInput: image size, filter, split or limit out of range, or no such column.
        MissingExtra: the format needs a package that is not installed.
        StorageError: the cache cannot be written.
    """
    _check_arguments(image_size, split, resize, limit)
    where = ", ".join(str(path) for path in paths)
    with ExitStack() as stack:
        sources = open_sources(paths)
        for source in sources:
            stack.callback(source.close)
        name = "+".join(dict.fromkeys(_stem(Path(path)) for path in paths))

        def read() -> Reading:
            listing = Listing.of(sources, split, limit, class_column, where)
            return Reading(listing, image_size, resize, on_progress)

        if cache_dir is None:
            images, about = _in_memory(read())
        else:
            # A choice not made leaves no trace in the key: sets prepared before it existed serve.
            column = [] if class_column is None else [class_column]
            key = _key(sources, image_size, split, resize, limit, *column)
            images, about = load(cache_dir, key) or _through_cache(read(), cache_dir, key)
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


def _in_memory(reading: Reading) -> tuple[Images, dict[str, Any]]:
    """The whole set in memory, or in nameless mapped files when memory is short."""
    if is_large(3 * reading.image_size**2 * reading.count):
        return in_temporary_files(reading)
    sink = MemorySink(reading.count, reading.image_size)
    skipped = reading.into(sink, range(reading.count))
    return sink.tensor(), reading.about(skipped)


def _through_cache(reading: Reading, folder: Path, key: str) -> tuple[Images, dict[str, Any]]:
    """The set as stored in the cache and read back from there."""
    store(folder, key, reading)
    stored = load(folder, key)
    if stored is None:
        raise StorageError(f"The data cache {folder} does not keep what is written to it.")
    return stored


def _image_set(
    images: Images, about: Mapping[str, Any], name: str, split: str, resize: str
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
