"""Training on texts: a caption for each picture of a batch, drawn anew at every step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from izograf.core.rng import derive_seed
from izograf.core.types import Batch
from izograf.data.batches import BatchStream
from izograf.data.captions import CaptionSource
from izograf.schema.vocabulary import Vocabulary

Language = Literal["en", "ru"]
LANGUAGES: tuple[Language, ...] = ("en", "ru")


@dataclass(frozen=True)
class CaptionedBatches:
    """The batches of `pictures`, each picture with its captions as word ids.

    The text of a batch is int64 [B,2,L], English and Russian, or [B,L] with `one_language`, where
    each picture's is drawn. What is drawn depends on the seed and the step alone.

    Attributes:
        read: what becomes of the ids, where the text is to be more than ids: an encoder.
    """

    pictures: BatchStream
    captions: CaptionSource
    vocabulary: Vocabulary
    max_words: int
    seed: int
    one_language: bool = False
    held_out: bool = False
    read: Callable[[Tensor], Tensor] | None = None

    def __call__(self, step: int) -> Batch:
        batch = self.pictures(step)
        rng = random.Random(derive_seed(self.seed, "captions", step))
        drawn = [self._ids(index, rng) for index in self.pictures.indices(step).tolist()]
        ids = torch.stack(drawn).to(batch.image.device)
        text = ids if self.read is None else self.read(ids)
        return Batch(batch.image, replace(batch.condition, class_ids=None, text=text))

    def _ids(self, index: int, rng: random.Random) -> Tensor:
        languages = (rng.choice(LANGUAGES),) if self.one_language else LANGUAGES
        texts = [self.captions.caption(index, rng, way, self.held_out) for way in languages]
        ids = torch.tensor([self.vocabulary.encode(text, self.max_words).ids for text in texts])
        return ids[0] if self.one_language else ids
