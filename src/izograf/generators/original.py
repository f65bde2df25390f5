"""A picture to start from, and which part of it is kept: what editing adds to a request."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from izograf.core.pixels import pixels_sha256, to_float
from izograf.core.types import Condition
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput


@dataclass(frozen=True)
class Original:
    """The centre square of a picture at the size of a model.

    Attributes:
        pixels: uint8 [3,S,S].
        repaint: uint8 [1,S,S], 255 where it may change, 0 where it is kept; None: everywhere.
    """

    pixels: Tensor
    repaint: Tensor | None = None

    def condition(self, condition: Condition, count: int) -> Condition:
        """`condition` of `count` pictures, all from this one."""
        image = to_float(self.pixels).expand(count, -1, -1, -1)
        mask = None
        if self.repaint is not None:
            mask = (1 - self.repaint.float() / 255).expand(count, -1, -1, -1)
        return replace(condition, image=image, mask=mask)

    def to_json(self) -> dict[str, Any]:
        """What a record says about it: the sha256 of its pixels and of its mask."""
        mask = None if self.repaint is None else pixels_sha256(self.repaint)
        return {"picture": pixels_sha256(self.pixels), "mask": mask}

    def require_same(self, told: Mapping[str, Any]) -> None:
        """
        Raises:
            InvalidInput: a record's `told` is of another picture or another mask.
        """
        own = self.to_json()
        for part in ("picture", "mask"):
            if own[part] != told[part]:
                raise InvalidInput(
                    f"the {part} given is not the one that the picture was made from: give that."
                )


def prepare_original(card: ModelCard, pixels: Tensor, repaint: Tensor | None = None) -> Original:
    """The centre square of a whole picture, at the size of the card's model.

    Args:
        pixels: uint8 [3,H,W], upright.
        repaint: uint8 [1,H,W], white where the picture may change.

    Raises:
        InvalidInput: the model cannot start from a picture; a mask of another size, or a black one.
    """
    card.require_editing()
    size = card.image_size
    if repaint is None:
        return Original(_square(pixels, size))
    if repaint.shape[1:] != pixels.shape[1:]:
        (height, width), (own_height, own_width) = repaint.shape[1:], pixels.shape[1:]
        raise InvalidInput(
            f"The mask is {width} x {height} and the picture {own_width} x {own_height} pixels: "
            "paint it on the same picture."
        )
    square = _square(repaint, size, Image.Resampling.BOX)  # nothing rings over the edge
    if not square.any():
        raise InvalidInput(
            "The mask leaves nothing to repaint in the centre square: paint white what may change."
        )
    return Original(_square(pixels, size), square)


def read_plain(png: bytes) -> Tensor:
    """uint8 [3,H,W] of a clean 8-bit RGB file, as the service keeps pictures.

    Raises:
        InvalidInput: it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(png)) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidInput(f"The picture cannot be read: {error}.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def brightness(pixels: Tensor) -> Tensor:
    """uint8 [1,H,W] of a mask that was saved as a picture [3,H,W]: the mean of its colours."""
    return pixels.float().mean(dim=0, keepdim=True).round().to(torch.uint8)


def _square(
    pixels: Tensor, size: int, resample: Image.Resampling = Image.Resampling.LANCZOS
) -> Tensor:
    """The centre square, resized antialiased, uint8 [C,S,S]."""
    height, width = pixels.shape[1:]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = pixels[:, top : top + side, left : left + side]
    array = square.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(array[..., 0] if len(pixels) == 1 else array)
    small = np.array(image.resize((size, size), resample))
    return torch.from_numpy(small.reshape(size, size, -1)).permute(2, 0, 1).contiguous()
