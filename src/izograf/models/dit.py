"""DiT, the Diffusion Transformer with adaLN-zero (Peebles & Xie 2023, arXiv:2212.09748).

Noise level and class modulate every block: scale and shift of both norms, and a gate of both
branches that is zero at first, so that every block starts as the identity (their section 3.2).
A prompt's tokens stand before those of the picture and take part in its attention.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from izograf.core.types import Cond
from izograf.models.conditioning import Conditioned, ConditionEncoder
from izograf.models.layers import NoiseLevelEmbedding, zeroed
from izograf.models.registry import NETWORKS, NetworkType
from izograf.models.transformer import (
    PatchTokens,
    TokenAttention,
    TransformerConfig,
    initialise,
    perceptron,
    text_tokens,
    to_picture,
)


class AdaptiveNorm(nn.Module):
    """Layer norm whose scale and shift are given: (x [B,N,D], scale, shift [B,1,D])."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class DiTBlock(nn.Module):
    """Attention and perceptron, each between an adaptive norm and a gate; residual."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.modulation = nn.Linear(config.width, 6 * config.width)
        self.norm_attention = AdaptiveNorm(config.width)
        self.attention = TokenAttention(config)
        self.norm_mlp = AdaptiveNorm(config.width)
        self.mlp = perceptron(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = (
            self.modulation(vector)[:, None].to(x.dtype).chunk(6, dim=-1)
        )
        mixed = self.attention(self.norm_attention(x, scale_1, shift_1))
        x = torch.addcmul(x, gate_1, self.dropout(mixed))
        changed = self.mlp(self.norm_mlp(x, scale_2, shift_2))
        return torch.addcmul(x, gate_2, self.dropout(changed))


class DiT(nn.Module):
    """(x [B,C,S,S], c_noise [B], Cond) -> F [B,C,S,S]; zero at initialisation.

    With learned variance [B,2C,S,S].
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.grid, self.patch_size = config.grid, config.patch_size
        self.patches = PatchTokens(config)
        self.text = text_tokens(config)
        self.noise_level = NoiseLevelEmbedding(config.width)
        self.act = nn.SiLU()
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.modulation = nn.Linear(config.width, 2 * config.width)
        self.norm = AdaptiveNorm(config.width)
        self.out = nn.Linear(config.width, config.out_channels * config.patch_size**2)
        initialise(self)
        for block in self.blocks:
            zeroed(cast(DiTBlock, block).modulation)
        zeroed(self.modulation)
        zeroed(self.out)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Cond) -> Tensor:
        return self.keeping(x, c_noise, cond)[0]

    def keeping(self, x: Tensor, c_noise: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """F, and what all blocks but the first and last add, [B,L+N,D] (`DeepReusing`)."""
        tokens, vector = self._entered(x, c_noise, cond)
        deep = tokens
        for block in self.blocks[1:-1]:
            deep = block(deep, vector)
        return self._left(deep, vector), deep - tokens

    def reusing(self, x: Tensor, c_noise: Tensor, cond: Cond, kept: Tensor) -> Tensor:
        """F of the first and the last block, with `kept` added between."""
        tokens, vector = self._entered(x, c_noise, cond)
        return self._left(tokens + kept, vector)

    def _entered(self, x: Tensor, c_noise: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """Tokens behind the first block, and the vector that modulates all of them."""
        vector = self.noise_level(c_noise)
        if cond.vector is not None:
            vector = vector + cond.vector
        vector = self.act(vector)

        tokens = self.patches(x, cond)
        if self.text is not None:
            prompt = self.text(cond.tokens, len(x)).to(tokens.dtype)
            tokens = torch.cat([prompt, tokens], dim=1)
        return self.blocks[0](tokens, vector), vector

    def _left(self, tokens: Tensor, vector: Tensor) -> Tensor:
        """The last block and the way back to a picture."""
        for block in self.blocks[1:][-1:]:  # a single block has come first already
            tokens = block(tokens, vector)
        scale, shift = self.modulation(vector)[:, None].to(tokens.dtype).chunk(2, dim=-1)
        tokens = self.norm(tokens[:, -(self.grid**2) :], scale, shift)
        return to_picture(self.out(tokens), self.grid, self.patch_size)


def build_dit(config: TransformerConfig) -> Conditioned:
    """DiT with its condition encoder, as a diffusion model trains and samples it."""
    return Conditioned(ConditionEncoder(config.num_classes, config.width), DiT(config))


NETWORKS.register("dit")(NetworkType(TransformerConfig, build_dit, "denoiser"))
