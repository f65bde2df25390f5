"""Opening feature extractors by id, and running one over many pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from izograf.metrics.registry import (
    EXTRACTORS,
    BuildNetwork,
    ExtractorSource,
    FeatureExtractor,
)
from izograf.schema.errors import InvalidInput


def open_extractor(
    extractor_id: str,
    weights: Path | str | None = None,
    *,
    device: str = "cpu",
    resize: str | None = None,
    networks: Mapping[str, BuildNetwork] | None = None,
) -> FeatureExtractor:
    """The registered extractor `extractor_id`; see `ExtractorSource` for the arguments.

    Raises:
        NotFound: unknown id, or no such weights file.
        InvalidInput: weights are needed but none were given, or the resize is unknown.
        CardError, UnsafeFile: the weights file is unusable.
    """
    path = None if weights is None else Path(weights)
    return EXTRACTORS[extractor_id](ExtractorSource(path, device, resize, networks or {}))


def extract_features(
    pictures: Tensor | Iterable[Tensor], extractor: FeatureExtractor, *, batch_size: int = 64
) -> Tensor:
    """Features of all pictures, float32 [N,D] on the CPU; row i belongs to picture i.

    `pictures` is one uint8 tensor [N,3,H,W], or an iterable of them (each split to
    `batch_size`), which need not fit in memory together.

    Raises:
        InvalidInput: no pictures, not uint8 [B,3,H,W], or a feature is NaN or infinite.
    """
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        rows = [extractor(batch) for batch in batches(pictures, batch_size)]
    if not rows:
        raise InvalidInput("There are no pictures to measure.")
    features = torch.cat(rows)
    if not torch.isfinite(features).all():
        raise InvalidInput(f"The extractor {extractor.id} gave NaN or infinite features.")
    return features.clone()  # a plain tensor: inference tensors refuse in-place work


def batches(pictures: Tensor | Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    """`pictures` in uint8 batches of at most `batch_size`, checked."""
    for group in [pictures] if isinstance(pictures, Tensor) else pictures:
        yield from torch.split(checked_pictures(group), batch_size) if len(group) else ()


class Pictures(Protocol):
    """uint8 [N,3,H,W]: a tensor, or groups of pictures that are read as they are iterated."""

    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def ndim(self) -> int: ...
    @property
    def shape(self) -> torch.Size: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Tensor]: ...


P = TypeVar("P", bound=Pictures)


def checked_pictures(pictures: P) -> P:
    """`pictures`, refused unless uint8 [B,3,H,W].

    Raises:
        InvalidInput: another type or shape.
    """
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3:
        raise InvalidInput(
            "Pictures must be uint8 [B,3,H,W], got "
            f"{str(pictures.dtype).removeprefix('torch.')} {list(pictures.shape)}."
        )
    return pictures
