"""Deep layers of a denoiser computed at some steps only, and reused at those between.

From one noise level to the next the deep, semantic layers of a U-Net hardly change their answer
(Ma et al. 2024, "DeepCache", arXiv:2312.00858). No sampler and no guidance knows about it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from izograf.core.types import Condition
from izograf.diffusion.denoiser import Denoiser

INTERVAL = "cache_interval"  # the option of cards whose networks can


@dataclass(frozen=True)
class Kept:
    """What the deep layers gave at the level number `level` of a sampling."""

    level: int
    value: Tensor


class DeepReuse(nn.Module):
    """A `Conditioned` whose deep layers are computed at every `interval`-th noise level.

    It lives for one sampling: each evaluation at another level than the one before it counts as
    the next. Branches of guidance that are evaluated apart keep answers of their own.
    """

    def __init__(self, network: nn.Module, interval: int) -> None:
        super().__init__()
        self.network = network
        self._interval = interval
        self._level, self._c_noise = -1, float("nan")
        self._kept: dict[object, Kept] = {}

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        if float(c_noise[0]) != self._c_noise:
            self._level, self._c_noise = self._level + 1, float(c_noise[0])
        present = tuple(name for name, value in condition.tensors().items() if value is not None)
        branch = (tuple(x.shape), present)
        kept = self._kept.get(branch)
        if kept is not None and self._level - kept.level < self._interval:
            return self.network.reusing(x, c_noise, condition, kept.value)  # type: ignore[operator,no-any-return]
        output, value = self.network.keeping(x, c_noise, condition)  # type: ignore[operator]
        self._kept[branch] = Kept(self._level, value)
        return output  # type: ignore[no-any-return]


def can_reuse(network: nn.Module) -> bool:
    """Whether the deep layers of a denoiser's network can be told from its outer ones."""
    return bool(getattr(network, "reuses", False))


def reusing_deep(denoiser: Denoiser, interval: int) -> Denoiser:
    """The denoiser for one sampling, with its deep layers computed at every `interval`-th level."""
    if interval == 1 or not can_reuse(denoiser.network):
        return denoiser
    return Denoiser(DeepReuse(denoiser.network, interval), denoiser.precondition)
