"""Pictures stored as arrays: an .npz with uint8 images and integer or text labels.

Keys: `images` and `labels`, or `train_images`, `train_labels`, `test_images`, `test_labels`;
`x`, `y`, `x_train`, ... are understood as well. Images are [N,H,W], [N,H,W,1], [N,H,W,3] or
[N,3,H,W]; labels [N] or [N,1]. `classes` [K] may name the integer labels.
"""

from __future__ import annotations

import functools
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from izograf.core.memory import available_memory
from izograf.data.layout import Split
from izograf.data.preprocess import Pixels
from izograf.schema.errors import DataError, UnsafeFile

_IMAGES = ("images", "x", "data", "arr_0")
_LABELS = ("labels", "y", "targets", "arr_1")
_CLASSES = ("classes", "class_names", "label_names")
_SPLITS: tuple[tuple[str, Split | None], ...] = (
    ("train", "train"),
    ("test", "test"),
    ("val", "test"),
    ("", None),
)


# What numpy and zipfile raise on damaged or hostile files.
_UNREADABLE = (
    ValueError, TypeError, OSError, EOFError, KeyError, RuntimeError, OverflowError, MemoryError,
    SyntaxError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip


class Part:
    """One split of an npz: `split`, `prefix` of its names, uint8 `images`, `class_names`."""

    def __init__(
        self, split: Split | None, prefix: str, images: Pixels, class_names: list[str | None]
    ) -> None:
        self.split = split
        self.prefix = prefix
        self.images = images
        self.class_names = class_names

    def opener(self, index: int) -> functools.partial[Pixels]:
        return functools.partial(self.images.__getitem__, index)


def read_parts(path: Path) -> list[Part]:
    """Every split found in the file.

    Raises:
        UnsafeFile: an array holds pickled objects.
        DataError: damaged, no images, or arrays of the wrong type, shape or length.
    """
    arrays = _load(path)
    class_names = _find(arrays, "", _CLASSES)
    parts = []
    for prefix, split in _SPLITS:
        images = _find(arrays, prefix, _IMAGES)
        if images is not None:
            pixels = _pixels(images, f"{path}, {prefix or 'images'}")
            labels = _find(arrays, prefix, _LABELS)
            named = _class_names(labels, class_names, len(pixels), f"{path}, {prefix} labels")
            parts.append(Part(split, prefix or "image", pixels, named))
    if not parts:
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}, but no images: expected the keys "
            "images and labels, or train_images, train_labels, test_images and test_labels."
        )
    return parts


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            return _unpacked(np.load(file, allow_pickle=False), path)
    except _UNREADABLE as error:
        if "pickle" in str(error):
            raise UnsafeFile(
                f"{path} holds pickled Python objects, which can run code when loaded; it was "
                "refused. Save plain uint8 images and integer labels with np.savez_compressed."
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read as npz: {reason}. Save it again.") from error


def _unpacked(loaded: Any, path: Path) -> dict[str, NDArray[Any]]:
    if not isinstance(loaded, np.lib.npyio.NpzFile) or loaded.zip is None:
        raise DataError(f"{path} is a single array: save images and labels with np.savez.")
    declared = sum(info.file_size for info in loaded.zip.infolist())
    if declared > available_memory():
        raise DataError(
            f"{path} unpacks to {declared / 2**30:.1f} GiB, more than the free memory: "
            "split it, or store the pictures as files."
        )
    return {key: np.asarray(loaded[key]) for key in loaded.files}


def _find(
    arrays: Mapping[str, NDArray[Any]], prefix: str, names: tuple[str, ...]
) -> NDArray[Any] | None:
    for name in names:
        for key in (f"{prefix}_{name}", f"{name}_{prefix}") if prefix else (name,):
            if key in arrays:
                return arrays[key]
    return None


def _pixels(images: NDArray[Any], where: str) -> Pixels:
    expected = "expected uint8 [N,H,W], [N,H,W,1], [N,H,W,3] or [N,3,H,W]"
    if images.dtype != np.uint8:
        raise DataError(f"{where}: images are {images.dtype}, {expected}. Convert them to 0..255.")
    if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    grey = images.ndim == 3
    if not (grey or (images.ndim == 4 and images.shape[3] in (1, 3))) or 0 in images.shape[1:]:
        raise DataError(f"{where}: images have shape {list(images.shape)}, {expected}.")
    return images


def _class_names(
    labels: NDArray[Any] | None, names: NDArray[Any] | None, count: int, where: str
) -> list[str | None]:
    if labels is None:
        return [None] * count
    flat = labels.reshape(-1)
    if len(flat) != count:
        raise DataError(f"{where}: {len(flat):,} labels for {count:,} images.")
    if flat.dtype.kind == "U":
        return [str(label) or None for label in flat]
    if flat.dtype.kind not in "iu":
        raise DataError(f"{where}: labels are {flat.dtype}, expected integers or text.")
    if names is None:
        return [str(label) if label >= 0 else None for label in flat.tolist()]
    if names.dtype.kind != "U" or (count and int(flat.max()) >= names.size):
        raise DataError(f"{where}: classes must be text, one name per label value.")
    return [str(names.reshape(-1)[label]) if label >= 0 else None for label in flat.tolist()]
