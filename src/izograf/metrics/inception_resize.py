"""The three ways in which published FID code brings pictures to the Inception's 299x299 input.

The same pictures get different FIDs (Parmar et al. 2022), so the name of the resize is part of
every score. Each maps uint8 [B,3,H,W] to float32 [B,3,299,299],
about [-1,1], scaled as the code it stands for does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

INPUT_SIZE = 299


def legacy_tf(pictures: Tensor) -> Tensor:
    """TensorFlow 1's bilinear resize: no antialiasing, and pixel corners, not centres, aligned.

    The original FID code (Heusel et al. 2017), and torch-fidelity.
    """
    rows = _corner_weights(pictures.shape[-2], pictures.device)
    columns = _corner_weights(pictures.shape[-1], pictures.device)
    return (rows @ pictures.float() @ columns.T - 128) / 128


def legacy_torch(pictures: Tensor) -> Tensor:
    """PyTorch's bilinear resize without antialiasing: pytorch-fid."""
    resized = F.interpolate(
        pictures.float() / 255, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False
    )
    return 2 * resized - 1


def clean(pictures: Tensor) -> Tensor:
    """Antialiased bicubic, clipped to 0..255 but not rounded: clean-fid (Parmar et al. 2022)."""
    resized = F.interpolate(
        pictures.float(),
        size=(INPUT_SIZE, INPUT_SIZE),
        mode="bicubic",
        align_corners=False,
        antialias=True,
    )
    return (resized.clamp(0, 255) - 128) / 128


RESIZES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "legacy_tf": legacy_tf,
    "legacy_torch": legacy_torch,
    "clean": clean,
}


def _corner_weights(size: int, device: torch.device) -> Tensor:
    """[299,size]: output pixel i reads the input at i * size / 299, between its two neighbours."""
    positions = torch.arange(INPUT_SIZE, dtype=torch.float32) * (size / INPUT_SIZE)
    lower = positions.long()
    upper = (lower + 1).clamp(max=size - 1)
    fraction = positions - lower
    weights = torch.zeros(INPUT_SIZE, size)
    index = torch.arange(INPUT_SIZE)
    weights.index_put_((index, lower), 1 - fraction, accumulate=True)
    weights.index_put_((index, upper), fraction, accumulate=True)
    return weights.to(device)
