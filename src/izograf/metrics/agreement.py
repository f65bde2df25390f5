"""How often the judge names the class that was asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from izograf.metrics.intervals import wilson_interval
from izograf.schema.errors import InvalidInput

AGREEMENT_NAME = "class agreement"


def class_agreement(logits: Tensor, asked: Tensor) -> dict[str, Any]:
    """Share of pictures whose largest logit [N,K] is at the asked class [N], for a card.

    Returns `name`, `value` in [0,1], `ci95` (Wilson), `num_fake`, and `per_class`, the share
    by class index as a string for the classes that were asked for.

    Raises:
        InvalidInput: no pictures, shapes disagree, a class is out of range, or logits are not
            finite.
    """
    if logits.ndim != 2 or asked.shape != logits.shape[:1] or not len(asked):
        raise InvalidInput(
            "Class agreement takes logits [N,K] and classes [N] with N of at least 1, got "
            f"{list(logits.shape)} and {list(asked.shape)}."
        )
    if asked.min() < 0 or asked.max() >= logits.shape[1]:
        raise InvalidInput(f"Asked classes must be from 0 to {logits.shape[1] - 1}.")
    if not torch.isfinite(logits).all():
        raise InvalidInput("The judge gave NaN or infinite logits.")
    agrees = logits.argmax(dim=1) == asked
    per_class = {str(k): float(agrees[asked == k].double().mean()) for k in set(asked.tolist())}
    return {
        "name": AGREEMENT_NAME,
        "value": float(agrees.double().mean()),
        "ci95": list(wilson_interval(int(agrees.sum()), len(agrees))),
        "num_fake": len(agrees),
        "per_class": per_class,
    }
