"""Contrastive learning of texts and pictures: which of a batch belongs to which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from izograf.core.types import Batch, Phase

Augment = Callable[[Tensor, torch.Generator], Tensor]


class Embeds(Protocol):
    """Two encoders into one space; `models.clip.Clip` is one."""

    def embed_text(self, ids: Tensor, /) -> Tensor:
        """Word ids, int64 [N,L] -> unit vectors [N,D]."""
        ...

    def embed_image(self, images: Tensor, /) -> Tensor:
        """Pictures [B,3,S,S] in [-1,1] -> unit vectors [B,D]."""
        ...

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by before the softmax, learned."""
        ...


class ContrastiveObjective:
    """Symmetric cross-entropy over the cosines of a batch (Radford et al. 2021, figure 3).

    Every picture comes with one text in each language, `condition.text` int64 [B,2,L]. The terms
    are pictures against the one, against the other, and the two languages against each other,
    which is what makes them mean the same to whatever reads the text's tokens. That other pictures
    of a batch may suit a text as well does no harm: in expectation the cosines measure how much
    more often a text goes with a picture than by chance.
    """

    averaged: Sequence[str] = ("clip",)

    def __init__(self, clip: nn.Module, optimizer: Optimizer, *, augment: Augment) -> None:
        self.modules = nn.ModuleDict({"clip": clip})
        self._clip, self._optimizer, self._augment = cast(Embeds, clip), optimizer, augment

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"clip": self._optimizer}

    def phases(self) -> Sequence[Phase]:
        return (Phase("contrast", "clip", self._loss),)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Nothing adapts to the statistics here."""

    def held_out_loss(self, clip: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        """The loss of `clip` on pictures and texts not trained on."""
        del rng
        return _terms(cast(Embeds, clip), batch.image, batch)[0]

    def _loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        image = self._augment(batch.image, rng).contiguous(memory_format=torch.channels_last)
        return _terms(self._clip, image, batch)


def _terms(clip: Embeds, image: Tensor, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The loss, and how often the right text is the nearest in either language."""
    ids = batch.condition.text
    assert ids is not None
    pictures = clip.embed_image(image)
    first, second = clip.embed_text(ids.flatten(0, 1)).reshape(len(ids), 2, -1).unbind(1)
    pairs = {"first": (pictures, first), "second": (pictures, second), "both": (first, second)}
    logits = {name: clip.scale * a @ b.T for name, (a, b) in pairs.items()}
    right = torch.arange(len(image), device=image.device)
    loss = torch.stack([_symmetric(each, right) for each in logits.values()]).mean()
    found = {
        f"top1_{name}": (each.argmax(1) == right).float().mean().detach()
        for name, each in logits.items()
    }
    return loss, {**found, "scale": clip.scale.detach()}


def _symmetric(logits: Tensor, right: Tensor) -> Tensor:
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
