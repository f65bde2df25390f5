"""Decoding a large latent in overlapping tiles, so that memory does not grow with the picture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def decode_tiled(
    decode: Callable[[Tensor], Tensor],
    latent: Tensor,
    *,
    factor: int,
    tile: int,
    overlap: int,
    reach: int = 0,
) -> Tensor:
    """`decode(latent)` of [B,C,h,w] by tiles of at most `tile` x `tile` latents.

    Where two tiles overlap the picture passes linearly from one to the other. The outermost
    `reach` latents of a tile, as far as the decoder sees, are not used: with an overlap of
    2 * reach + 1 or more the result is the untiled one up to rounding, with less there is a
    seam of at most that width, blended over what remains of the overlap.

    Args:
        decode: local and translation-equivariant, [B,C,h,w] -> [B,3,factor h,factor w].
        overlap: latents that neighbouring tiles share, below `tile`.

    Returns:
        float32 [B,3,factor h,factor w] on the CPU.

    Raises:
        ValueError: the overlap is negative or not below `tile`.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must be from 0 to below the tile's {tile}, got {overlap}")
    height, width = latent.shape[-2:]
    rows, columns = (tiles(length, tile, overlap) for length in (height, width))
    out = torch.zeros(len(latent), 3, factor * height, factor * width)
    for top, bottom in rows:
        down = ramp(top, bottom, height, overlap, reach, factor)
        for left, right in columns:
            across = ramp(left, right, width, overlap, reach, factor)
            pixels = decode(latent[..., top:bottom, left:right]).float().cpu()
            target = out[
                ..., factor * top : factor * bottom, factor * left : factor * right
            ]  # a view
            target += pixels * down[:, None] * across
    total_down, total_across = (
        _total(spans, length, overlap, reach, factor)
        for spans, length in ((rows, height), (columns, width))
    )
    out /= total_down[:, None]
    out /= total_across
    return out


def tiles(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Spans [start, stop) of `tile` that cover `length`; the last one ends with it.

    The last two may share more than `overlap`.
    """
    if length <= tile:
        return [(0, length)]
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return [(start, start + tile) for start in starts]


def ramp(start: int, stop: int, length: int, overlap: int, reach: int, factor: int) -> Tensor:
    """Weights of a tile's pixels along one axis, [factor * (stop - start)].

    1 inside; towards a neighbour they fall linearly over the overlap, and are 0 where the decoder
    saw the tile's edge. At the picture's own edges nothing falls.
    """
    count = factor * (stop - start)
    trim = factor * min(reach, max(0, overlap - 1) // 2)
    width = max(1, factor * overlap - 2 * trim)
    distance = torch.arange(count, dtype=torch.float32) + 0.5 - trim
    rising = (distance / width).clamp(0, 1)
    weights = torch.ones(count)
    if start > 0:
        weights = weights * rising
    if stop < length:
        weights = weights * rising.flip(0)
    return weights


def _total(
    spans: list[tuple[int, int]], length: int, overlap: int, reach: int, factor: int
) -> Tensor:
    total = torch.zeros(factor * length)
    for start, stop in spans:
        weights = ramp(start, stop, length, overlap, reach, factor)
        total[factor * start : factor * stop] += weights
    return total
