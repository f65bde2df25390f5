"""Choosing among pictures of one prompt by how well they suit it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from izograf.core.pixels import to_float
from izograf.core.types import Generator
from izograf.generators.render import Picture
from izograf.schema.errors import InvalidInput
from izograf.schema.request import GenerationRequest


@runtime_checkable
class Ranks(Protocol):
    """A model that can say how well pictures suit a prompt."""

    def agreement(self, images: Tensor, prompt: str) -> Tensor:
        """Cosines [B] of pictures [B,3,H,W] in [-1,1] with the prompt; more is better."""
        ...


def ranking(generator: Generator) -> Ranks:
    """The model as one that ranks; to be asked before pictures are drawn for it.

    Raises:
        InvalidInput: it cannot rank.
    """
    if not isinstance(generator, Ranks):
        raise InvalidInput(
            f"{generator.card.name} cannot compare pictures with a prompt: leave out --best-of."
        )
    return generator


def best(
    generator: Generator, request: GenerationRequest, pictures: Sequence[Picture], keep: int
) -> list[Picture]:
    """The `keep` pictures that suit the prompt of `request` best, best first.

    Raises:
        InvalidInput: the model cannot rank.
    """
    images = to_float(torch.stack([picture.pixels for picture in pictures]))
    agreement = ranking(generator).agreement(images, request.condition["prompt"])
    order = agreement.argsort(descending=True, stable=True).tolist()
    return [pictures[index] for index in order[:keep]]
