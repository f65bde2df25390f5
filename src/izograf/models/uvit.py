"""U-ViT, a transformer that takes everything as a token (Bao et al. 2023, arXiv:2209.12152).

Noise level, class, prompt and patches are tokens of one sequence; long skips join the blocks of
the first half with those of the second by concatenation and a linear map, and a 3x3 convolution
ends the network (their section 3, the choices marked best in figure 2).
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


class UViTBlock(nn.Module):
    """A pre-normalised transformer block; with `skip` it first takes in the tokens of another."""

    def __init__(self, config: TransformerConfig, *, skip: bool) -> None:
        super().__init__()
        width = config.width
        self.join = nn.Linear(2 * width, width) if skip else None
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.attention = TokenAttention(config)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.mlp = perceptron(config)
        self.dropout = nn.Dropout(config.dropout)

    def start_as_identity(self) -> None:
        """Both branches begin at zero, and so does what comes through the skip."""
        zeroed(self.attention.out)
        zeroed(cast(nn.Linear, self.mlp[-1]))
        if self.join is not None:
            with torch.no_grad():
                self.join.weight.copy_(torch.eye(*self.join.weight.shape))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.join is not None and skip is not None:
            x = self.join(torch.cat([x, skip], dim=-1))
        x = x + self.dropout(self.attention(self.norm_attention(x)))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))  # type: ignore[no-any-return]


class UViT(nn.Module):
    """(x [B,C,S,S], c_noise [B], Cond) -> F [B,C,S,S]; zero at initialisation.

    With learned variance [B,2C,S,S]. Of `depth` blocks the first (depth - 1) // 2 are joined with
    as many at the end.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.grid, self.patch_size = config.grid, config.patch_size
        num_skips = (config.depth - 1) // 2
        self.patches = PatchTokens(config)
        self.text = text_tokens(config)
        self.noise_level = NoiseLevelEmbedding(config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(2, config.width))  # of level and class
        self.first = nn.ModuleList(UViTBlock(config, skip=False) for _ in range(num_skips))
        self.middle = nn.ModuleList(
            UViTBlock(config, skip=False) for _ in range(config.depth - 2 * num_skips)
        )
        self.last = nn.ModuleList(UViTBlock(config, skip=True) for _ in range(num_skips))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.to_patch = nn.Linear(config.width, config.out_channels * config.patch_size**2)
        self.out = nn.Conv2d(config.out_channels, config.out_channels, 3, padding=1)
        initialise(self)
        for block in (*self.first, *self.middle, *self.last):
            cast(UViTBlock, block).start_as_identity()
        # the identity behind a zero learns much faster than a zero behind random patches
        zeroed(self.to_patch)
        nn.init.dirac_(self.out.weight)
        nn.init.zeros_(cast(Tensor, self.out.bias))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Cond) -> Tensor:
        return self.keeping(x, c_noise, cond)[0]

    def keeping(self, x: Tensor, c_noise: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """F, and what all blocks within the outermost skip add, [B,2+L+N,D] (`DeepReusing`)."""
        tokens = self._entered(x, c_noise, cond)
        skips: list[Tensor] = []
        deep = tokens
        for block in self.first[1:]:
            deep = block(deep)
            skips.append(deep)
        for block in self.middle:
            deep = block(deep)
        for block in self.last[:-1]:
            deep = block(deep, skips.pop())
        return self._left(deep, tokens), deep - tokens

    def reusing(self, x: Tensor, c_noise: Tensor, cond: Cond, kept: Tensor) -> Tensor:
        """F of the first and the last block, with `kept` added between."""
        tokens = self._entered(x, c_noise, cond)
        return self._left(tokens + kept, tokens)

    def _entered(self, x: Tensor, c_noise: Tensor, cond: Cond) -> Tensor:
        tokens = self._sequence(x, c_noise, cond)
        for block in self.first[:1]:
            tokens = block(tokens)
        return tokens

    def _left(self, tokens: Tensor, skip: Tensor) -> Tensor:
        """The last block, joined with the first one's answer, and the way back to a picture."""
        for block in self.last[-1:]:
            tokens = block(tokens, skip)
        patches = self.to_patch(self.norm(tokens[:, -(self.grid**2) :]))
        return self.out(to_picture(patches, self.grid, self.patch_size))  # type: ignore[no-any-return]

    def _sequence(self, x: Tensor, c_noise: Tensor, cond: Cond) -> Tensor:
        """Noise level, class, prompt, patches: [B,2+L+N,D]."""
        patches = self.patches(x, cond)
        level = self.noise_level(c_noise)
        label = torch.zeros_like(level) if cond.vector is None else cond.vector
        vectors = torch.stack([level, label.to(level.dtype)], dim=1) + self.positions
        parts = [vectors.to(patches.dtype), patches]
        if self.text is not None:
            parts.insert(1, self.text(cond.tokens, len(x)).to(patches.dtype))
        return torch.cat(parts, dim=1)


def build_uvit(config: TransformerConfig) -> Conditioned:
    """U-ViT with its condition encoder, as a diffusion model trains and samples it."""
    return Conditioned(ConditionEncoder(config.num_classes, config.width), UViT(config))


NETWORKS.register("uvit")(NetworkType(TransformerConfig, build_uvit, "denoiser"))
