"""Guidance: functions Denoise -> Denoise; no sampler knows about them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from izograf.core.types import Condition, Denoise, Guidance


def classifier_free(
    scale: float, *, sigma_low: float = 0.0, sigma_high: float = math.inf
) -> Guidance:
    """Classifier-free guidance: D_null + scale (D_cond - D_null) (Ho & Salimans 2022, eq. 6).

    `scale` 1 is the conditional model alone. Outside sigma_low < sigma <= sigma_high only the
    conditional branch is evaluated (guidance interval, Kynkaanniemi et al. 2024): half the cost
    and better pictures than guiding everywhere.
    """

    def guide(denoise: Denoise) -> Denoise:
        def guided(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
            level = float(sigma[0])
            if not sigma_low < level <= sigma_high:
                return denoise(x, sigma, condition)
            null = condition.to_null()
            if condition.same_kinds(null):
                both = condition.repeat_with(null)
                stacked = denoise(torch.cat([x, x]), torch.cat([sigma, sigma]), both)
                conditional, unconditional = stacked.chunk(2)
            else:  # text of its own length, say, whose null the network supplies itself
                conditional, unconditional = denoise(x, sigma, condition), denoise(x, sigma, null)
            return unconditional.lerp(conditional, scale)

        return denoise if scale == 1 else guided

    return guide
