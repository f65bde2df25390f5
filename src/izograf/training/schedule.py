"""The learning rate as a share of its base value, a function of the images seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LearningRateSchedule:
    """Linear warm-up, a plateau, and a decay to zero over the last part of the run.

    Attributes:
        warmup: share of all images over which the rate rises from zero.
        decay: shape of the end: none, a cosine (Loshchilov & Hutter 2017) or a straight line.
        decay_share: share of all images over which it falls.
    """

    warmup: float = 0.02
    decay: Literal["none", "cosine", "linear"] = "cosine"
    decay_share: float = 0.2

    def factor(self, images_seen: int, total: int) -> float:
        """Multiplier in [0,1] of the base rate after `images_seen` of `total` images."""
        progress = min(1.0, images_seen / total)
        rise = min(1.0, (progress + 1 / total) / self.warmup) if self.warmup > 0 else 1.0
        if self.decay == "none" or self.decay_share <= 0:
            return rise
        into_decay = max(0.0, 1 - (1 - progress) / self.decay_share)
        if self.decay == "linear":
            return rise * (1 - into_decay)
        return rise * (1 + math.cos(math.pi * into_decay)) / 2
