"""The variance of a reverse step, fixed or learned (Ho et al. 2020; Nichol & Dhariwal 2021).

A step from level t to s < t of x = x0 + sigma n has the posterior variance s^2 (t^2 - s^2) / t^2,
the smaller choice (beta~ in the papers), or that of the forward step of the variance-preserving
process seen from x, (t^2 - s^2) (1 + s^2) / (1 + t^2), the larger one (beta). A network with
learned variance says for every number of the picture where between the two, in the logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from izograf.core.types import Condition, Denoise, Guidance


@runtime_checkable
class DenoiseWithVariance(Protocol):
    """A denoise function that can be asked for the variance too; `Denoiser` is one."""

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition, /) -> Tensor: ...

    def with_variance(
        self, x: Tensor, sigma: Tensor, condition: Condition, /
    ) -> tuple[Tensor, Tensor | None]:
        """(x0 [B,C,H,W], share [B,C,H,W] of the larger variance; None where none was learned)."""
        ...


def posterior_variance(sigma: Tensor, following: Tensor) -> Tensor:
    """Of x at `following` given x at `sigma` and x0; 0 where `following` is 0."""
    return following**2 * (sigma**2 - following**2) / sigma**2


def forward_variance(sigma: Tensor, following: Tensor) -> Tensor:
    """Of the forward step from `following` to `sigma`, in the units of x at `following`."""
    return (sigma**2 - following**2) * (1 + following**2) / (1 + sigma**2)


def learned_log_variance(sigma: Tensor, following: Tensor, share: Tensor) -> Tensor:
    """share ln(forward) + (1 - share) ln(posterior): Nichol & Dhariwal 2021, eq. 15.

    All three broadcast; `following` must be positive.
    """
    small = posterior_variance(sigma, following).log()
    return small + share * (forward_variance(sigma, following).log() - small)


def keeping_variance(guidance: Guidance) -> Guidance:
    """`guidance`, but what it makes of a function with learned variance has learned variance.

    It is that of the conditional model, which a guidance must evaluate first, alone or in front in
    its batch: guidance moves the mean (Dhariwal & Nichol 2021, algorithm 1), at no further cost.
    """

    def guide(denoise: Denoise) -> Denoise:
        guided = guidance(denoise)
        if guided is denoise or not isinstance(denoise, DenoiseWithVariance):
            return guided
        return _Guided(guided, guidance, denoise)

    return guide


@dataclass(frozen=True)
class _Guided:
    guided: Denoise
    guidance: Guidance
    denoise: DenoiseWithVariance

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition, /) -> Tensor:
        return self.guided(x, sigma, condition)

    def with_variance(
        self, x: Tensor, sigma: Tensor, condition: Condition, /
    ) -> tuple[Tensor, Tensor | None]:
        shares: list[Tensor | None] = []

        def noted(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
            x0, share = self.denoise.with_variance(x, sigma, condition)
            shares.append(share)
            return x0

        x0 = self.guidance(noted)(x, sigma, condition)
        first = shares[0]
        return x0, None if first is None else first[: len(x)]
