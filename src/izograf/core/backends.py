"""What computes a network: torch as it is, a compiler or another runtime, by the name one types.

A backend takes a network and gives back a module that is called in the same way, so that
generators, samplers and guidance never learn which one computes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import nn

from izograf.core.registry import Registry
from izograf.schema.errors import InvalidInput

if TYPE_CHECKING:
    from izograf.core.devices import Placement

EAGER, OPENVINO, OPENVINO_INT8 = "eager", "openvino", "openvino-int8"


class Backend(Protocol):
    """One way to compute networks.

    Attributes:
        devices: the kinds it computes on (`cpu`, `cuda`, `mps`).
        summary: a line about it, for people.
    """

    devices: tuple[str, ...]
    summary: str

    def missing(self) -> str:
        """What to install before it can be used; empty where nothing is missing."""
        ...

    def version(self) -> str:
        """What, besides torch's version, must be equal for equal results; may be empty."""
        ...

    def place(
        self,
        network: nn.Module,
        placement: Placement,
        *,
        kind: str,
        identity: str,
        weights: str = "",
    ) -> nn.Module:
        """The network, float32 or not, in eval mode, ready to be called where `placement` says.

        Args:
            network: is changed, and belongs to the result.
            placement: device and precision.
            kind: `models.registry.Kind`, which says how the network is called.
            identity: what determines the network besides its weights: its name and configuration.
            weights: what determines the weights, where that is known without reading them all.
        """
        ...


@runtime_checkable
class Calibrated(Protocol):
    """A placed network that must see what it will be asked before it computes as it should."""

    @property
    def needs_calibration(self) -> bool:
        """Whether this machine has not seen it yet."""
        ...

    def calibrating(self) -> AbstractContextManager[None]:
        """Inside the block it takes note of what it is asked."""
        ...


BACKENDS: Registry[Backend] = Registry("backend", package="izograf.acceleration")


def uncalibrated(backend: str) -> str:
    """The backend for a network that nobody calibrates, where `backend` computes the others."""
    return OPENVINO if backend == OPENVINO_INT8 else backend


def choose_backend(wanted: str, *, device: str, precision: str) -> str:
    """The name of the backend for `wanted`, which may be "auto"; `device` is the chosen one.

    "auto" is OpenVINO on a CPU where it is installed, unless float32 was asked for by name: then
    the plain arithmetic of torch is what is wanted. Anywhere else it is eager.

    Raises:
        InvalidInput: the one named is not installed, or does not compute on that device.
    """
    kind = device.split(":")[0]
    if wanted == "auto":
        openvino = BACKENDS[OPENVINO]
        wins = kind in openvino.devices and precision != "fp32" and not openvino.missing()
        return OPENVINO if wins else EAGER
    backend = BACKENDS[wanted]
    if kind not in backend.devices:
        raise InvalidInput(
            f"The backend {wanted} computes on {' or '.join(backend.devices)}, not on {device}: "
            f"choose another device or another backend."
        )
    if missing := backend.missing():
        raise InvalidInput(
            f"The backend {wanted} cannot be used here: {missing}, or choose {EAGER}."
        )
    return wanted


def describe_backend(name: str) -> str:
    """Name and version of a backend, as a picture's record has them."""
    return f"{name} {BACKENDS[name].version()}".strip()


def usable_backend(described: object) -> str:
    """The backend of `describe_backend`'s text, eager where that one cannot be used here.

    `described` may come from a picture's record, and be anything; the records made before there
    was a choice have none, and mean eager.
    """
    name = described.partition(" ")[0] if isinstance(described, str) else EAGER
    return name if name in BACKENDS and not BACKENDS[name].missing() else EAGER
