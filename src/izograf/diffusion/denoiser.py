"""A network plus a preconditioner: `denoise(x, sigma, condition) -> x0`, where everything meets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from izograf.core.types import Condition
from izograf.diffusion.precondition import Preconditioner


class Denoiser(nn.Module):
    """D(x, sigma, condition), an estimate of E[x0 | x = x0 + sigma n, condition].

    `network(x [B,C,H,W], c_noise [B], condition) -> [B,C,H,W]` may compute in a lower precision
    than its caller: x and the result keep x's dtype, and the coefficients are applied in it.
    """

    def __init__(self, network: nn.Module, precondition: Preconditioner) -> None:
        super().__init__()
        self.network = network
        self.precondition = precondition

    def raw(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """The network's own output F(c_in x, c_noise, condition), in x's dtype."""
        scalars = self.precondition(sigma)
        dtype = next(self.network.parameters()).dtype
        scaled = (x * _per_image(scalars.c_in)).to(dtype, memory_format=torch.channels_last)
        output: Tensor = self.network(scaled, scalars.c_noise, condition)
        return output.to(x.dtype)

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        scalars = self.precondition(sigma)
        output = self.raw(x, sigma, condition)
        return _per_image(scalars.c_skip) * x + _per_image(scalars.c_out) * output


def _per_image(coefficient: Tensor) -> Tensor:
    return coefficient[:, None, None, None]
