"""A diffusion model that reads prompts: a denoiser with the text encoder it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from izograf.core.devices import Placement
from izograf.core.rng import Seed
from izograf.core.types import Condition, Generator, OnStep, ignore
from izograf.generators import diffusion
from izograf.generators.autoencoder import split_weights
from izograf.generators.reader import Reader, read_reader
from izograf.generators.registry import TakesGuide, family
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError
from izograf.schema.options import OptionValue

PREFIX = "clip."  # of the text encoder's tensors among those of the model


class TextToImageGenerator:
    """A `Generator` that is also `TextConditioned`; it ranks its pictures by their prompt."""

    def __init__(self, inner: Generator, reader: Reader) -> None:
        self.card = inner.card
        self.reader = reader
        self._inner = inner

    def take_guide(self, read: Callable[[], Mapping[str, Tensor]], /) -> None:
        """What autoguidance moves away from; see `generators.registry.TakesGuide`."""
        if isinstance(self._inner, TakesGuide):
            self._inner.take_guide(read)

    def text_condition(self, prompts: Sequence[str]) -> Condition:
        """The condition of one prompt per picture; an empty one is no prompt."""
        return Condition(text=self.reader.tokens(prompts))

    def agreement(self, images: Tensor, prompt: str) -> Tensor:
        """Cosines [B] of pictures [B,3,H,W] in [-1,1] with the prompt."""
        return self.reader.agreement(images, prompt)

    def sample(
        self,
        condition: Condition,
        seeds: Sequence[Seed],
        *,
        options: Mapping[str, OptionValue] | None = None,
        on_step: OnStep = ignore,
    ) -> Tensor:
        return self._inner.sample(condition, seeds, options=options or {}, on_step=on_step)


@family("text-to-image")
def build(
    card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement
) -> TextToImageGenerator:
    """The generator of a card of this family.

    Raises:
        CardError: the card lacks sampling facts or its text encoder, or weights do not fit.
    """
    described = card.sampling.get("text")
    if not isinstance(described, Mapping):
        raise CardError(f"The card of {card.name!r} lacks its text encoder.")
    own, text = split_weights(tensors, PREFIX)
    reader = read_reader(
        card, described.get("network"), described.get("vocabulary"), text, placement
    )
    return TextToImageGenerator(diffusion.build(card, own, placement), reader)
