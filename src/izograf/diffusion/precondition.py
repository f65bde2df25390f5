"""Preconditioners: four small functions of sigma that turn a network into a denoiser.

With x = x0 + sigma * n, the denoiser is D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)
(Karras et al. 2022, eq. 7). What the network F then predicts:

    epsilon    the noise n                      (Ho et al. 2020)
    velocity   v = (n - sigma x0) / sqrt(sigma^2 + 1)   (Salimans & Ho 2022, appendix D)
    edm        the unit-variance residual       (Karras et al. 2022, table 1)
    flow       n - x0 along (1-t) x0 + t n      (Lipman et al. 2023; Liu et al. 2023)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from izograf.core.registry import Registry


class Scalars(NamedTuple):
    """The four coefficients, each of sigma's shape and dtype."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Preconditioner(Protocol):
    """sigma [B] -> coefficients [B] each."""

    def __call__(self, sigma: Tensor) -> Scalars: ...


PRECONDITIONERS: Registry[type[Preconditioner]] = Registry(
    "preconditioner", package="izograf.diffusion"
)


@PRECONDITIONERS.register("epsilon")
@dataclass(frozen=True)
class Epsilon:
    """Noise prediction on the variance-preserving input x / sqrt(sigma^2 + 1)."""

    def __call__(self, sigma: Tensor) -> Scalars:
        return Scalars(torch.ones_like(sigma), -sigma, (sigma**2 + 1).rsqrt(), sigma.log() / 4)


@PRECONDITIONERS.register("velocity")
@dataclass(frozen=True)
class Velocity:
    """Velocity prediction on the variance-preserving input."""

    def __call__(self, sigma: Tensor) -> Scalars:
        variance = sigma**2 + 1
        return Scalars(1 / variance, -sigma * variance.rsqrt(), variance.rsqrt(), sigma.log() / 4)


@PRECONDITIONERS.register("edm")
@dataclass(frozen=True)
class EDM:
    """Unit variance of the network's input and target for data of deviation `sigma_data`."""

    sigma_data: float = 0.5

    def __call__(self, sigma: Tensor) -> Scalars:
        variance = sigma**2 + self.sigma_data**2
        return Scalars(
            self.sigma_data**2 / variance,
            sigma * self.sigma_data * variance.rsqrt(),
            variance.rsqrt(),
            sigma.log() / 4,
        )


@PRECONDITIONERS.register("flow")
@dataclass(frozen=True)
class Flow:
    """Rectified flow; its time is t = sigma / (1 + sigma) and its state x / (1 + sigma)."""

    def __call__(self, sigma: Tensor) -> Scalars:
        c_in = 1 / (1 + sigma)
        return Scalars(c_in, -sigma * c_in, c_in, sigma * c_in)
