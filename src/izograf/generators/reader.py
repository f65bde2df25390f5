"""A contrastive model in use: prompts to tokens, and pictures ranked by a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.core.devices import Placement
from izograf.generators.network import described_network
from izograf.models.clip import Clip
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError
from izograf.schema.vocabulary import PADDING, UNKNOWN, Vocabulary


class Reader:
    """What a text-to-image model knows of words: a `Clip` with its vocabulary.

    Computed in float32 by torch itself: it is small, and reads a prompt once for a whole picture.
    """

    def __init__(self, clip: Clip, vocabulary: Vocabulary, device: str) -> None:
        self.clip = clip
        self.vocabulary = vocabulary
        self._device = torch.device(device)

    @property
    def max_words(self) -> int:
        """Words of a prompt that are read."""
        return self.clip.text.max_words

    @property
    def shape(self) -> tuple[int, int]:
        """Number and width of a prompt's tokens."""
        return self.max_words + 1, self.clip.text.words.embedding_dim

    @torch.inference_mode()
    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> float32 [N,max_words + 1,width]; one without a known word is zeros, the null.

        A denoiser was trained on captions and on the null, not on a sentence without words.
        """
        ids = self._ids(prompts)
        tokens: Tensor = self.clip.text(ids)
        said = ((ids != PADDING) & (ids != UNKNOWN)).any(dim=1)
        return tokens * said[:, None, None]

    @torch.inference_mode()
    def agreement(self, images: Tensor, prompt: str) -> Tensor:
        """How well pictures [B,3,H,W] in [-1,1] suit the prompt: cosines [B] on the CPU."""
        size = self.clip.image.config.image_size
        pictures = images.to(self._device)
        if pictures.shape[-2:] != (size, size):
            pictures = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True)
        text = self.clip.embed_text(self._ids([prompt]))[0]
        return (self.clip.embed_image(pictures) @ text).cpu()

    def _ids(self, prompts: Sequence[str]) -> Tensor:
        rows = [self.vocabulary.encode(prompt, self.max_words).ids for prompt in prompts]
        return torch.tensor(rows, dtype=torch.int64, device=self._device)


def read_reader(
    card: ModelCard,
    network: Any,
    words: Any,
    tensors: Mapping[str, Tensor],
    placement: Placement,
) -> Reader:
    """The reader of a card: its `network` as described there, and its vocabulary as stored.

    Raises:
        CardError: the card describes no such thing, or weights do not fit.
    """
    source = f"The card of {card.name!r}"
    if not isinstance(words, str):
        raise CardError(f"{source} has no vocabulary.")
    vocabulary = Vocabulary(tuple(words.split()))
    exact = Placement(placement.device, "fp32")
    clip = described_network(
        network, tensors, exact,
        sizes={"image_size": card.image_size, "num_words": len(vocabulary.words)}, name=card.name,
    )  # fmt: skip
    if not isinstance(clip, Clip):
        raise CardError(f"{source} is of a text encoder, but its network is none.")
    return Reader(clip, vocabulary, placement.device)
