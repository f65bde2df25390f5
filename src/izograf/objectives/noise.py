"""Which noise levels a denoiser is trained at, and how much each of them counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from izograf.core.registry import Registry
from izograf.diffusion.tables import BETAS, table_of


class NoiseLaw(Protocol):
    """A distribution of noise levels, a frozen dataclass whose fields go on the card."""

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """sigma [count], float32 on the generator's device."""
        ...


class Weighting(Protocol):
    """(sigma [B], c_out [B]) -> weights [B] of the squared error of the network's output."""

    def __call__(self, sigma: Tensor, c_out: Tensor) -> Tensor: ...


NOISE_LAWS: Registry[NoiseLaw] = Registry("noise law", package="izograf.objectives")
WEIGHTINGS: Registry[Weighting] = Registry("weighting", package="izograf.objectives")


@dataclass(frozen=True)
class LogNormal:
    """ln sigma ~ N(mean, deviation^2).

    For the flow preconditioner this is the logit-normal law of t (Esser et al. 2024, section 3.1),
    since ln sigma = logit t; for EDM it is Karras et al. 2022, table 1.
    """

    mean: float = -0.4
    deviation: float = 1.2

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        normal = torch.randn(count, generator=rng, device=rng.device)
        return (normal * self.deviation + self.mean).exp()


@dataclass(frozen=True)
class UniformTable:
    """One of the levels of a beta schedule, each as likely as any other (Ho et al. 2020).

    Attributes:
        betas: name of the schedule.
        num_steps: T, the number of levels.
    """

    betas: str = "linear"
    num_steps: int = 1000

    @cached_property
    def levels(self) -> Tensor:
        """sigma_t, float32 [T] increasing."""
        return table_of(BETAS[self.betas](self.num_steps)).float()

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        index = torch.randint(self.num_steps, (count,), generator=rng, device=rng.device)
        return self.levels.to(rng.device)[index]


NOISE_LAWS.register("log-normal")(LogNormal())
# what Esser et al. 2024 found best for a flow over latents of unit deviation: rf/lognorm(0, 1)
NOISE_LAWS.register("logit-normal")(LogNormal(0.0, 1.0))
for _betas in BETAS:
    NOISE_LAWS.register(_betas)(UniformTable(_betas))


@dataclass(frozen=True)
class Uniform:
    """Every level's target counts alike: |D - x0|^2 / c_out^2 (Karras et al. 2022, section 5)."""

    def __call__(self, sigma: Tensor, c_out: Tensor) -> Tensor:
        del c_out
        return torch.ones_like(sigma)


@dataclass(frozen=True)
class MinSNR:
    """|D - x0|^2 counts min(SNR, gamma), where SNR = 1 / sigma^2 (Hang et al. 2023, eq. 8).

    In the network's own output, D - x0 = c_out (F - F*), so its squared error counts
    c_out^2 min(SNR, gamma): min(1, gamma sigma^2) for epsilon, min(SNR, gamma) / (SNR + 1) for
    velocity, as in their section 3.4.
    """

    gamma: float = 5.0

    def __call__(self, sigma: Tensor, c_out: Tensor) -> Tensor:
        return c_out.square() * sigma.pow(-2).clamp(max=self.gamma)


WEIGHTINGS.register("uniform")(Uniform())
WEIGHTINGS.register("min-snr")(MinSNR())
