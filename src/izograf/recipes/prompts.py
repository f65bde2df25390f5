"""Training on prompts: a frozen text encoder reads captions for a denoiser that follows them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from izograf.checkpoints.files import read_weights
from izograf.core.devices import Placement
from izograf.core.types import Generator
from izograf.data.batches import BatchStream
from izograf.data.captions import CaptionSource, captions_of
from izograf.data.dataset import ImageSet
from izograf.generators.reader import Reader, read_reader
from izograf.generators.text_to_image import PREFIX, TextToImageGenerator
from izograf.recipes.captioned import LANGUAGES, CaptionedBatches
from izograf.recipes.latents import with_part
from izograf.recipes.perceptual import parent_of
from izograf.recipes.registry import RunRequest
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.library import find_model, read_card

PREVIEWED = 8  # prompts of a preview sheet


@dataclass(frozen=True)
class Prompts:
    """A text encoder, opened for a run whose denoiser learns to follow prompts.

    Attributes:
        card: the encoder's.
        captions: of the pictures to train on.
        copies: how many of these are copies of others.
    """

    card: ModelCard
    reader: Reader
    captions: CaptionSource
    copies: int = 0

    @classmethod
    def open(
        cls, name: str, request: RunRequest, placement: Placement, *, copies: int = 0
    ) -> Prompts:
        """The text encoder called `name`, or in the folder `name`.

        Raises:
            NotFound, CardError, UnsafeFile: no such model, or a broken one.
            InvalidInput: it is of another family, or of another picture size.
        """
        folder = find_model(name)
        card = read_card(folder)
        if card.family != "clip":
            raise InvalidInput(
                f"--text-encoder takes a text encoder, and {card.name} is a {card.family} model: "
                "train one with `izograf train clip`."
            )
        if card.image_size != request.image_size:
            raise InvalidInput(
                f"{card.name} compares pictures of {card.image_size} pixels, and this run has "
                f"{request.image_size}: use --image-size {card.image_size}."
            )
        words = card.sampling.get("vocabulary")
        reader = read_reader(card, card.network, words, read_weights(folder, card), placement)
        return cls(card, reader, captions_of(request.train), copies)

    def adapted(self, config: Any) -> Any:
        """A denoiser's config with the prompt in place of classes."""
        shape = self.reader.shape
        return replace(config, num_classes=0, text_tokens=shape[0], text_dim=shape[1])

    def on_card(self, card: ModelCard) -> ModelCard:
        """The card of the run's model, which reads prompts, with its text encoder as a parent."""
        text = {
            "network": self.card.network,
            "vocabulary": self.card.sampling["vocabulary"],
            "attributes": list(self.captions.attributes),
        }
        return replace(
            card,
            family="text-to-image",
            conditions=("text",),
            classes=(),
            examples=self.examples(),
            sampling={**card.sampling, "text": text},
            data={
                **card.data,
                "num_train": card.data["num_train"] - self.copies,
                "num_copies": self.copies,
            },
            recipe={**card.recipe, "text_encoder": self.card.name},
            parents=(*card.parents, parent_of(self.card)),
        )

    def batches(self, pictures: BatchStream, seed: int) -> CaptionedBatches:
        """The batches of a run, each picture with one caption as the encoder reads it."""
        return self._captioned(pictures, captions=self.captions, seed=seed)

    def held_out(self, images: ImageSet, seed: int) -> partial[CaptionedBatches]:
        """As `batches`, of pictures not trained on and sentences of other frames."""
        return partial(self._captioned, captions=captions_of(images), seed=seed, held_out=True)

    def _captioned(self, pictures: BatchStream, **options: Any) -> CaptionedBatches:
        return CaptionedBatches(
            pictures,
            vocabulary=self.reader.vocabulary,
            max_words=self.reader.max_words,
            one_language=True,
            read=self._read,
            **options,
        )

    def _read(self, ids: Tensor) -> Tensor:
        with torch.no_grad():  # not inference mode, whose tensors training cannot use
            tokens: Tensor = self.reader.clip.text(ids)
        return tokens

    def generator(self, inner: Generator) -> TextToImageGenerator:
        """`inner` with the encoder, as the finished model has it."""
        return TextToImageGenerator(inner, self.reader)

    def weights(self, network: nn.Module) -> nn.Module:
        """One module of both: the state of `network` and, under "clip.", the encoder's."""
        return with_part(network, PREFIX, self.reader.clip)

    def examples(self) -> tuple[str, ...]:
        """Prompts for a preview sheet, in both languages."""
        rng = random.Random(0)
        found = [
            self.captions.caption(rng.randrange(len(self.captions)), rng, language, held_out=True)
            for language in LANGUAGES * (PREVIEWED // len(LANGUAGES))
        ]
        return tuple(found)
