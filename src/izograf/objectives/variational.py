"""The variational bound that teaches a denoiser its variance (Nichol & Dhariwal 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from izograf.diffusion.variance import learned_log_variance, posterior_variance

WEIGHT = 0.001  # of the whole bound, T times its mean term (their section 3.1)


class VarianceBound:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) with the mean held fixed, for neighbouring levels.

    Their L_vlb, of which the last term, the likelihood of x0 itself, is left out: no sampler draws
    with that variance. In bits per number of the picture.
    """

    def __init__(self, levels: Tensor) -> None:
        """`levels` [T] increase; the noise law must draw from them."""
        self._levels = levels
        self.weight = WEIGHT * len(levels)

    def __call__(self, x0: Tensor, predicted: Tensor, sigma: Tensor, share: Tensor) -> Tensor:
        """The mean over the batch, a scalar.

        Args:
            x0: [B,C,H,W].
            predicted: the denoiser's x0, without gradient.
            sigma: [B], levels of the table.
            share: what the network says of its variance, [B,C,H,W].
        """
        levels = self._levels.to(sigma)
        index = torch.searchsorted(levels, sigma.contiguous())
        inner = (index > 0)[:, None, None, None]
        sigma = sigma[:, None, None, None]
        following = levels[(index - 1).clamp(min=0)][:, None, None, None]
        before_last = torch.where(inner, following, sigma / 2)  # any other level; not counted
        true = posterior_variance(sigma, before_last)
        log_ratio = learned_log_variance(sigma, before_last, share.float()) - true.log()
        shift = (1 - (before_last / sigma) ** 2) * (x0 - predicted)
        nats = 0.5 * (log_ratio + (1 + shift**2 / true) * (-log_ratio).exp() - 1)
        return torch.where(inner, nats, 0.0).mean() / math.log(2)
