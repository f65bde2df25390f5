"""From what the user asked (`Condition`) to what a network sees (`Cond`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from izograf.core.types import Cond, Condition


class ClassEncoder(nn.Module):
    """Class ids -> a learned vector [B,dim]; id -1 (dropped) and no ids at all share the null row.

    Row 0 is the null class of classifier-free guidance (Ho & Salimans 2022).
    """

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes + 1, dim)

    def forward(self, condition: Condition, batch_size: int) -> Cond:
        ids = condition.class_ids
        if ids is None:
            ids = torch.full((batch_size,), -1, device=self.table.weight.device)
        return Cond(vector=self.table(ids + 1))


class Conditioned(nn.Module):
    """A denoising backbone with its condition encoder: (x, c_noise [B], Condition) -> like x."""

    def __init__(self, encoder: nn.Module, backbone: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.backbone = backbone

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        return self.backbone(x, c_noise, self.encoder(condition, len(x)))  # type: ignore[no-any-return]
