"""An objective small enough for arithmetic: one linear layer learns to copy its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from izograf.core.devices import Placement
from izograf.core.types import Batch, Condition, Phase
from izograf.training.schedule import LearningRateSchedule

CPU = Placement("cpu", "fp32")
STEADY = LearningRateSchedule(warmup=0.0, decay="none")


class Line:
    """Learns the identity on [B,12] pixels; `losses` are replaced by those given, by step."""

    averaged: Sequence[str] = ("line",)

    def __init__(self, *, rate: float = 0.05, spoil: Mapping[int, float] | None = None) -> None:
        layer = nn.Linear(12, 12)
        with torch.no_grad():
            layer.weight.fill_(0.5)
            layer.bias.fill_(0.5)
        self.modules = nn.ModuleDict({"line": layer})
        self.optimizer = torch.optim.SGD(layer.parameters(), lr=rate)
        self.sizes: list[int] = []
        self.seen: list[int] = []
        self._spoil = spoil or {}

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"line": self.optimizer}

    def phases(self) -> Sequence[Phase]:
        return (Phase("fit", "line", self._loss),)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        del stats
        self.seen.append(images_seen)

    def _loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        del rng
        x = batch.image.flatten(1)
        loss = (self.modules["line"](x) - x).square().mean()
        factor = self._spoil.get(len(self.sizes), 1.0)
        self.sizes.append(len(batch))
        return loss * factor, {"twice": 2 * loss}


def batches(step: int, size: int = 4) -> Batch:
    rng = torch.Generator().manual_seed(step)
    image = torch.randn(size, 3, 2, 2, generator=rng)
    return Batch(image, Condition(class_ids=torch.zeros(size, dtype=torch.int64)))
