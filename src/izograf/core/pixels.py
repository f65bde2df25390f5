"""Stored pixels (uint8) and inner images (float in [-1,1]): the only conversions, and a hash."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def to_float(pixels: Tensor) -> Tensor:
    """uint8 [...] -> float32 in [-1,1]; 0 -> -1 and 255 -> 1 exactly."""
    if pixels.dtype != torch.uint8:
        raise TypeError(f"expected uint8 pixels, got {pixels.dtype}")
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(image: Tensor) -> Tensor:
    """Float in [-1,1] -> uint8, rounded to the nearest level and clipped; inverse of `to_float`."""
    if not image.is_floating_point():
        raise TypeError(f"expected a floating-point image, got {image.dtype}")
    levels = image.float().add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0)
    return levels.to(torch.uint8)


def pixels_sha256(pixels: Tensor) -> str:
    """sha256 of uint8 [C,H,W], a picture or a mask: its size, then the bytes row by row."""
    _, height, width = pixels.shape
    digest = hashlib.sha256(f"{width}x{height}".encode())
    digest.update(pixels.permute(1, 2, 0).contiguous().numpy().tobytes())
    return digest.hexdigest()
