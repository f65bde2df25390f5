"""Metrics of two pictures of the same scene: PSNR and SSIM.

Both take pairs [B,C,H,W] of one type: uint8, or float in [-1,1]; and give float64 [B].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.schema.errors import InvalidInput

WINDOW = 11  # pixels; with a standard deviation of 1.5 (Wang et al. 2004, section III-B)
WINDOW_SIGMA = 1.5
K1, K2 = 0.01, 0.03


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(range^2 / mean squared difference).

    Infinite for equal pictures.

    Raises:
        InvalidInput: shapes or types differ, or are neither uint8 nor float.
    """
    data_range = _checked_range(first, second)
    squares = (first.double() - second.double()).square().mean(dim=(1, 2, 3))
    return 20 * math.log10(data_range) - 10 * squares.log10()


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13), the mean over windows and channels.

    Gaussian windows of 11x11 that lie wholly inside the picture; population covariances; 1 for
    equal pictures.

    Raises:
        InvalidInput: shapes or types differ, neither uint8 nor float, or smaller than 11x11.
    """
    data_range = _checked_range(first, second)
    if min(first.shape[-2:]) < WINDOW:
        raise InvalidInput(
            f"SSIM needs pictures of at least {WINDOW}x{WINDOW} pixels, got "
            f"{first.shape[-2]}x{first.shape[-1]}."
        )
    x, y = first.double(), second.double()
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _windowed(x: Tensor) -> Tensor:
    """Gaussian-weighted means of all windows inside the picture; the window is separable."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, WINDOW)
    rows = F.conv2d(x, weights, groups=x.shape[1])
    return F.conv2d(rows, weights.transpose(-1, -2), groups=x.shape[1])


def _checked_range(first: Tensor, second: Tensor) -> float:
    if first.ndim != 4 or first.shape != second.shape:
        raise InvalidInput(
            "Two pictures can be compared pixel by pixel only at one size, got "
            f"{list(first.shape)} and {list(second.shape)}."
        )
    if first.dtype == second.dtype == torch.uint8:
        return 255.0
    if first.is_floating_point() and second.is_floating_point():
        return 2.0
    raise InvalidInput(
        "Pictures to compare must both be uint8 or both be float in [-1,1], got "
        f"{first.dtype} and {second.dtype}."
    )
