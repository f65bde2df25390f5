"""A network plus a preconditioner: `denoise(x, sigma, condition) -> x0`, where everything meets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from izograf.core.types import Condition
from izograf.diffusion.precondition import Preconditioner


class Denoiser(nn.Module):
    """D(x, sigma, condition), an estimate of E[x0 | x = x0 + sigma n, condition].

    `network(x [B,C,H,W], c_noise [B], condition) -> [B,C,H,W]` may compute in a lower precision
    than its caller: x and the result keep x's dtype, and the coefficients are applied in it. A
    network with learned variance gives 2 C channels, F and then its variance (`with_variance`).
    """

    def __init__(self, network: nn.Module, precondition: Preconditioner) -> None:
        super().__init__()
        self.network = network
        self.precondition = precondition

    def outputs(
        self, x: Tensor, sigma: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor | None]:
        """The network's own F(c_in x, c_noise, condition), and what it says of the variance.

        Both have x's dtype and shape. The second, None if the network does not say, is the share
        of the larger variance of `diffusion.variance`; 0.5 is an output of zero.
        """
        scalars = self.precondition(sigma)
        dtype = next(self.network.parameters()).dtype
        scaled = (x * _per_image(scalars.c_in)).to(dtype, memory_format=torch.channels_last)
        output: Tensor = self.network(scaled, scalars.c_noise, condition).to(x.dtype)
        if output.shape[1] == x.shape[1]:
            return output, None
        prediction, variance = output.chunk(2, dim=1)
        return prediction, (variance + 1) / 2

    def raw(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """The network's own output F(c_in x, c_noise, condition), in x's dtype."""
        return self.outputs(x, sigma, condition)[0]

    def with_variance(
        self, x: Tensor, sigma: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor | None]:
        """x0, and the share of the larger variance where the network has learned one."""
        output, share = self.outputs(x, sigma, condition)
        return self.from_output(x, sigma, output), share

    def from_output(self, x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        """x0 = c_skip x + c_out F from the network's own output F."""
        scalars = self.precondition(sigma)
        return _per_image(scalars.c_skip) * x + _per_image(scalars.c_out) * output

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        return self.from_output(x, sigma, self.raw(x, sigma, condition))


def _per_image(coefficient: Tensor) -> Tensor:
    return coefficient[:, None, None, None]
