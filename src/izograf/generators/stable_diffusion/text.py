"""Prompts -> what the U-Net attends to: CLIP's hidden states, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from izograf.core.types import Condition
from izograf.generators.stable_diffusion.prompts import chunks, weighted

REMEMBERED = 64  # prompts whose encoding is kept


@dataclass(frozen=True)
class Encoder:
    """One text encoder with its tokenizer.

    Attributes:
        penultimate: whether its last but one layer is used (SDXL), or the last, normalised.
        projected: whether it gives the whole prompt as a vector too.
    """

    tokenizer: Any
    model: Any
    penultimate: bool = False
    projected: bool = False

    def encode(self, prompt: str) -> tuple[Tensor, Tensor | None]:
        """Hidden states, float32 [L,D] on the CPU, and the first chunk's vector [P] if projected.

        The states are multiplied by their words' weights and brought back to their root mean
        square, so that stressing a word does not strengthen the whole. (Automatic1111's web
        interface brings back the mean instead, which may be next to zero.)
        """
        ids, weights = self._tokens(prompt)
        output = self.model(ids.to(self.model.device), output_hidden_states=True)
        states = output.hidden_states[-2] if self.penultimate else output.last_hidden_state
        states = states.float().cpu()
        if bool((weights != 1).any()):
            stressed = states * weights[..., None]
            states = stressed * (states.norm() / stressed.norm().clamp(min=1e-9))
        pooled = output.text_embeds[0].float().cpu() if self.projected else None
        return states.flatten(0, 1), pooled

    def _tokens(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Ids, int64 [chunks, length], and weights, float32 of the same shape."""
        tokens = [
            (token, weight)
            for text, weight in weighted(prompt)
            for token in self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        ]
        ids, weights = chunks(
            tokens, length=self.tokenizer.model_max_length,
            begin=self.tokenizer.bos_token_id, end=self.tokenizer.eos_token_id,
            pad=self.tokenizer.pad_token_id,
        )  # fmt: skip
        return torch.tensor(ids), torch.tensor(weights)


class Prompts:
    """The text encoders of one checkpoint; `zero_null` where no prompt means zeros (SDXL)."""

    def __init__(self, encoders: Sequence[Encoder], *, zero_null: bool) -> None:
        self.encoders = tuple(encoders)
        self.zero_null = zero_null
        self._encoded = lru_cache(REMEMBERED)(self._encode)

    @torch.inference_mode()
    def condition(self, prompts: Sequence[str]) -> Condition:
        """Text [B,L,D], and as attributes the prompts' vectors [B,P] where there are any.

        A prompt of more than 75 tokens is encoded in chunks of as many, one after the other along
        L. Shorter prompts of the batch are filled up with rows of zeros, which the U-Net ignores.
        """
        encoded = [self._encoded(prompt) for prompt in prompts]
        text = stacked([states for states, _ in encoded])
        vectors = [vector for _, vector in encoded if vector is not None]
        return Condition(text=text, attributes=torch.stack(vectors) if vectors else None)

    def null(self, count: int) -> Condition:
        """What stands for no prompt, for `count` pictures."""
        null = self.condition([""] * count)
        return null.map(torch.zeros_like) if self.zero_null else null

    def _encode(self, prompt: str) -> tuple[Tensor, Tensor | None]:
        made = [encoder.encode(prompt) for encoder in self.encoders]
        longest = max(len(states) for states, _ in made)
        states = torch.cat([padded(states, longest) for states, _ in made], dim=-1)
        return states, made[-1][1]


def stacked(texts: Sequence[Tensor]) -> Tensor:
    """Texts [L_i,D] as [B,L,D], filled up with rows of zeros."""
    longest = max(len(text) for text in texts)
    return torch.stack([padded(text, longest) for text in texts])


def padded(text: Tensor, length: int) -> Tensor:
    """Text [...,L,D] with rows of zeros up to `length`."""
    missing = length - text.shape[-2]
    if missing <= 0:
        return text
    return torch.cat([text, text.new_zeros(*text.shape[:-2], missing, text.shape[-1])], dim=-2)
