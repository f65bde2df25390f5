"""The exponential moving average of the weights: what is evaluated and served."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn


class MovingAverage:
    """Averages named modules with a half-life measured in images.

    The half-life is `share` of the images seen so far (Karras et al. 2024, section 3.1, motivate
    averaging lengths relative to training time), so the average of a short run does not remember
    its initialisation. Floating-point buffers (batch-norm statistics) are averaged, others copied.
    """

    def __init__(self, modules: nn.ModuleDict, names: Sequence[str], *, share: float) -> None:
        self.modules = nn.ModuleDict({name: copy.deepcopy(modules[name]) for name in names})
        self.modules.requires_grad_(False).eval()
        self._share = share

    @torch.no_grad()
    def update(self, modules: nn.ModuleDict, images_seen: int, batch_size: int) -> None:
        """Moves the average towards `modules` by one step of `batch_size` images."""
        half_life = self._share * images_seen
        weight = 1.0 if half_life <= 0 else 1 - 0.5 ** (batch_size / half_life)
        for name, averaged in self.modules.items():
            current = modules[name].state_dict()
            for key, target in averaged.state_dict().items():
                if target.is_floating_point():
                    target.lerp_(current[key].to(target.dtype), weight)
                else:
                    target.copy_(current[key])
