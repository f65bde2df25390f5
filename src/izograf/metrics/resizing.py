"""The antialiased resize with which our own extractors meet pictures of any size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from izograf.schema.errors import InvalidInput


def antialiased(pictures: Tensor, size: int) -> Tensor:
    """uint8 [B,3,H,W] -> float32 [B,3,size,size] in 0..255, bilinear with antialiasing.

    A picture that already has the size is passed through untouched.
    """
    levels = pictures.float()
    if pictures.shape[-2:] == (size, size):
        return levels
    return F.interpolate(
        levels, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )


def antialiased_name(size: int) -> str:
    return f"bilinear-antialias-{size}"


def only_resize(wanted: str | None, known: str, extractor_id: str) -> str:
    """`known`, the one resize of an extractor, unless another was asked for.

    Raises:
        InvalidInput: `wanted` is another.
    """
    if wanted not in (None, known):
        raise InvalidInput(f"The extractor {extractor_id} has only the resize {known!r}.")
    return known
