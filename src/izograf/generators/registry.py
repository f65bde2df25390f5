"""Families: how a model card and its weights become a `Generator`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from izograf.core.devices import Placement
from izograf.core.registry import Registry
from izograf.core.types import Generator
from izograf.schema.card import ModelCard


class Build(Protocol):
    """Builds the generator that `card` describes from its weights, placed as asked."""

    def __call__(
        self, card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement
    ) -> Generator: ...


Files = Callable[[ModelCard], Sequence[Path]]


@dataclass(frozen=True)
class Family:
    """How the models of one family come to be generators.

    Attributes:
        build: see `Build`.
        files: where the weights of a model lie that is another program's checkpoint; its family
            reads and checks them itself, and `build` is given no tensors. None: in the model's own
            folder, under the names and hashes of its card.
        half_on_mps: whether MPS computes it in float16 by itself.
    """

    build: Build
    files: Files | None = None
    half_on_mps: bool = False


@runtime_checkable
class TakesGuide(Protocol):
    """A generator whose model may have a guide: a worse network of the same kind."""

    def take_guide(self, read: Callable[[], Mapping[str, Tensor]], /) -> None:
        """`read` gives the guide's tensors; it is called at the first picture that needs them."""
        ...


FAMILIES: Registry[Family] = Registry("family", package="izograf.generators")

Builder = TypeVar("Builder", bound=Build)


def family(
    name: str, *, files: Files | None = None, half_on_mps: bool = False
) -> Callable[[Builder], Builder]:
    """Registers the decorated function as what builds the generators of cards of that family."""

    def add(build: Builder) -> Builder:
        FAMILIES.register(name)(Family(build, files, half_on_mps))
        return build

    return add


def weight_files(folder: Path, card: ModelCard) -> list[Path]:
    """The files that loading the model in `folder` reads."""
    known = FAMILIES[card.family].files if card.family in FAMILIES else None
    return [folder / name for name in card.weights] if known is None else list(known(card))
