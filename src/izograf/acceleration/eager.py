"""Torch as it is: always there, and the reference the others are tested against."""

from __future__ import annotations

from torch import nn

from izograf.core.backends import BACKENDS, EAGER
from izograf.core.devices import Placement


class Eager:
    """Every operation as its module calls it."""

    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    summary = "torch as it is"

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        return ""

    def place(
        self,
        network: nn.Module,
        placement: Placement,
        *,
        kind: str,
        identity: str,
        weights: str = "",
    ) -> nn.Module:
        del kind, identity, weights
        return placed(network, placement)


def placed(network: nn.Module, placement: Placement) -> nn.Module:
    """The network on the placement's device, in its precision and memory format."""
    network.to(device=placement.device, dtype=placement.dtype)
    return network.to(memory_format=placement.memory_format)  # type: ignore[call-overload,no-any-return]


BACKENDS.register(EAGER)(Eager())
