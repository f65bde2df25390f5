"""Supervised classification: how a judge is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from izograf.core.types import DROPPED, Batch, Phase

Augment = Callable[[Tensor, torch.Generator], Tensor]


class ClassificationObjective:
    """Cross-entropy with label smoothing (Szegedy et al. 2016, section 7) on augmented images."""

    averaged: Sequence[str] = ("classifier",)

    def __init__(
        self,
        classifier: nn.Module,
        optimizer: Optimizer,
        *,
        augment: Augment,
        label_smoothing: float = 0.1,
    ) -> None:
        self.modules = nn.ModuleDict({"classifier": classifier})
        self._classifier, self._optimizer = classifier, optimizer
        self._augment, self._label_smoothing = augment, label_smoothing

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"classifier": self._optimizer}

    def phases(self) -> Sequence[Phase]:
        return (Phase("classify", "classifier", self._loss),)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Nothing adapts to the statistics here."""

    def held_out_error(self, classifier: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        """Share of a batch whose class is not named."""
        del rng
        labels = _labels(batch)
        wrong = (classifier(batch.image).argmax(1) != labels) & (labels >= 0)
        return wrong.sum() / (labels >= 0).sum().clamp(min=1)  # type: ignore[no-any-return]

    def _loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        image = self._augment(batch.image, rng).contiguous(memory_format=torch.channels_last)
        logits = self._classifier(image).float()
        labels = _labels(batch)
        total = F.cross_entropy(
            logits,
            labels,
            label_smoothing=self._label_smoothing,
            ignore_index=DROPPED,
            reduction="sum",
        )
        loss = total / (labels >= 0).sum().clamp(min=1)  # unlabelled pictures do not count
        return loss, {"accuracy": (logits.argmax(1) == labels).float().mean()}


def _labels(batch: Batch) -> Tensor:
    labels = batch.condition.class_ids
    assert labels is not None
    return labels
