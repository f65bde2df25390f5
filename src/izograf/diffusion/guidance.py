"""Guidance: functions Denoise -> Denoise; no sampler knows about them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from izograf.core.types import Condition, Denoise, Guidance
from izograf.diffusion.variance import keeping_variance


def classifier_free(
    scale: float,
    *,
    sigma_low: float = 0.0,
    sigma_high: float = math.inf,
    rescale: float = 0.0,
    negative: Condition | None = None,
) -> Guidance:
    """Classifier-free guidance: D_null + scale (D_cond - D_null) (Ho & Salimans 2022, eq. 6).

    `scale` 1 is the conditional model alone. Outside sigma_low < sigma <= sigma_high only the
    conditional branch is evaluated (guidance interval, Kynkaanniemi et al. 2024): half the cost
    and better pictures than guiding everywhere.

    Args:
        scale: how far to go from the null, or negative, condition's answer.
        sigma_low: no guidance at levels up to this.
        sigma_high: no guidance at levels above this.
        rescale: from 0 to 1, see `rescaled`.
        negative: for the same B pictures, what to move away from, instead of what the condition
            itself says. Its class, text and attributes take the place of the null ones; whatever
            it leaves out stays null.
    """

    def guide(denoise: Denoise) -> Denoise:
        def guided(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
            if not _within(sigma, sigma_low, sigma_high):
                return denoise(x, sigma, condition)
            against = _against(condition, negative or condition.negative)
            if _share_a_batch(condition, against):
                both = condition.repeat_with(against)
                stacked = denoise(torch.cat([x, x]), torch.cat([sigma, sigma]), both)
                conditional, other = stacked.chunk(2)
            else:  # text of its own length, say, whose null the network supplies itself
                conditional = denoise(x, sigma, condition)
                other = denoise(x, sigma, against)
            return rescaled(other.lerp(conditional, scale), conditional, rescale)

        return denoise if scale == 1 else guided

    return keeping_variance(guide)


def autoguidance(
    bad: Denoise,
    scale: float,
    *,
    sigma_low: float = 0.0,
    sigma_high: float = math.inf,
    rescale: float = 0.0,
) -> Guidance:
    """Guidance by a worse version of the model: D_bad + scale (D - D_bad) (Karras et al. 2024).

    `bad` is the same task learned less well, an early snapshot or a smaller network, under the
    same condition; unlike the null condition it need not know how to draw without one. The other
    arguments are those of `classifier_free`.
    """

    def guide(denoise: Denoise) -> Denoise:
        def guided(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
            good = denoise(x, sigma, condition)
            if not _within(sigma, sigma_low, sigma_high):
                return good
            return rescaled(bad(x, sigma, condition).lerp(good, scale), good, rescale)

        return denoise if scale == 1 else guided

    return keeping_variance(guide)


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """`guided` [B,C,H,W] given back, by `share`, the deviation of the unguided answer.

    Strong guidance inflates a picture's contrast until it clips (Lin et al. 2024, eq. 15-16; their
    share is 0.7). Deviations are per picture over all its numbers; both tensors are expectations
    of x0, which at high noise, where it matters, is what the paper's velocity network predicts.
    """
    if share == 0:
        return guided
    ratio = conditional.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
    return guided * (1 + share * (ratio - 1))


def _within(sigma: Tensor, low: float, high: float) -> bool:
    if low <= 0 and high == math.inf:  # reading a level would wait for the accelerator
        return True
    return low < float(sigma[0]) <= high


def _against(condition: Condition, negative: Condition | None) -> Condition:
    null = condition.to_null()
    if negative is None:
        return null
    kinds = ("class_ids", "towards_ids", "share", "text", "attributes")
    given = {kind: getattr(negative, kind) for kind in kinds}
    if null.towards_ids is not None and negative.towards_ids is None:
        given["towards_ids"] = negative.class_ids  # the way from a class to itself is that class
    return replace(null, **{kind: value for kind, value in given.items() if value is not None})


def _share_a_batch(first: Condition, second: Condition) -> bool:
    """Whether their tensors can be joined: the same kinds, and texts of the same length."""
    if not first.same_kinds(second):
        return False
    return first.text is None or second.text is None or first.text.shape == second.text.shape
