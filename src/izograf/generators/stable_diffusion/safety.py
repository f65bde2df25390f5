"""The safety checker that a checkpoint may carry: flagged pictures come out black."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SWITCH = "IZOGRAF_SAFETY_CHECKER"  # "off" leaves it out; for whoever runs the program

log = logging.getLogger(__name__)


def allowed_off() -> bool:
    """Whether whoever runs the program has switched the checker off."""
    return os.environ.get(SWITCH, "").strip().casefold() in ("off", "0", "false", "no")


class SafetyChecker:
    """diffusers' StableDiffusionSafetyChecker on our pictures.

    `config` is the feature extractor's (`preprocessor_config.json`): size, mean and deviation.
    """

    def __init__(self, model: Any, config: Mapping[str, Any]) -> None:
        self.model = model
        self._side = _side(config.get("crop_size", config.get("size", 224)))
        self._mean = torch.tensor(config.get("image_mean", [0.4815, 0.4578, 0.4082]))
        self._deviation = torch.tensor(config.get("image_std", [0.2686, 0.2613, 0.2758]))

    def __call__(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] in [-1,1]; flagged ones become black."""
        weight = next(self.model.parameters())
        seen = self.prepared(images).to(weight)
        _, flagged = self.model(clip_input=seen, images=list(torch.zeros(len(images), 1)))
        kept = torch.tensor([not bad for bad in flagged], device=images.device)
        if not bool(kept.all()):
            log.warning(
                "The checkpoint's safety checker has blackened %d of %d pictures: try another "
                "prompt or another seed.", int((~kept).sum()), len(images),
            )  # fmt: skip
        return torch.where(kept[:, None, None, None], images, torch.full_like(images, -1))

    def prepared(self, images: Tensor) -> Tensor:
        """As CLIP sees them: the middle square at its size, standardised, [B,3,S,S]."""
        height, width = images.shape[-2:]
        ratio = self._side / min(height, width)
        size = [max(self._side, round(height * ratio)), max(self._side, round(width * ratio))]
        small = F.interpolate(images.float(), size, mode="bicubic", antialias=True)
        top, left = ((length - self._side) // 2 for length in size)
        square = small[..., top : top + self._side, left : left + self._side]
        mean, deviation = (
            v.to(images.device)[:, None, None] for v in (self._mean, self._deviation)
        )
        return (square.clamp(-1, 1) / 2 + 0.5 - mean) / deviation


def _side(size: Any) -> int:
    if isinstance(size, Mapping):
        return int(size.get("height") or size.get("shortest_edge") or 224)
    return int(size)
