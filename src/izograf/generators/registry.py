"""Families: how a model card and its weights become a `Generator`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from izograf.core.devices import Placement
from izograf.core.registry import Registry
from izograf.core.types import Generator
from izograf.schema.card import ModelCard


class Family(Protocol):
    """Builds the generator that `card` describes from its weights, placed as asked."""

    def __call__(
        self, card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement
    ) -> Generator: ...


@runtime_checkable
class TakesGuide(Protocol):
    """A generator whose model may have a guide: a worse network of the same kind."""

    def take_guide(self, read: Callable[[], Mapping[str, Tensor]], /) -> None:
        """`read` gives the guide's tensors; it is called at the first picture that needs them."""
        ...


FAMILIES: Registry[Family] = Registry("family", package="izograf.generators")
