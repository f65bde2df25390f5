"""Families: how a model card and its weights become a `Generator`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

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


FAMILIES: Registry[Family] = Registry("family", package="izograf.generators")
