"""What Vision-Transformer denoisers share: patches, positions, attention, their configuration.

After Dosovitskiy et al. 2021 (ViT). A picture becomes tokens [B,N,D], N = (S / patch_size)^2, in
row-major order. Queries and keys are normalised per head, which keeps bfloat16 stable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.core.types import Cond
from izograf.models.conditioning import TextTokens
from izograf.models.layers import Activation, HeadNorm, activation, attend


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a Vision-Transformer denoiser.

    Attributes:
        image_size: H = W of the input, a multiple of `patch_size`.
        channels: of input and output.
        num_classes: 0 for an unconditional network.
        patch_size: pixels of a token's side; the cost falls with its square and faster.
        width: numbers in a token; a multiple of `head_dim` and of 4.
        depth: transformer blocks.
        head_dim: numbers per attention head.
        mlp_ratio: hidden width of a block's perceptron as a multiple of `width`.
        dropout: at the end of both branches of a block.
        text_tokens, text_dim: number and width of a prompt's tokens; 0 for a network without text.
        image_channels: channels of the picture given as condition, its mask included; 0 for none.
        learned_variance: twice the channels of output, the second half for the variance of a step.
        positions: fixed two-dimensional sines and cosines, or learned.
    """

    image_size: int = 64
    channels: int = 3
    num_classes: int = 0
    patch_size: int = 4
    width: int = 256
    depth: int = 8
    head_dim: int = 64
    mlp_ratio: int = 4
    dropout: float = 0.0
    text_tokens: int = 0
    text_dim: int = 0
    image_channels: int = 0
    learned_variance: bool = False
    positions: Literal["sincos", "learned"] = "sincos"
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        positive = (self.width, self.depth, self.patch_size, self.head_dim, self.mlp_ratio)
        if min(positive) < 1:
            raise ValueError("width, depth, patch_size, head_dim and mlp_ratio must be positive")
        if self.image_size < 1 or self.image_size % self.patch_size:
            raise ValueError(
                f"image_size must be a multiple of the patch size {self.patch_size}, "
                f"got {self.image_size}"
            )
        if self.num_classes < 0 or self.channels < 1:
            raise ValueError("num_classes must not be negative, and channels must be positive")
        if self.width % self.head_dim or self.width % 4:
            raise ValueError(
                f"width must be a multiple of head_dim {self.head_dim} and of 4, got {self.width}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {self.dropout:g}")
        if min(self.text_tokens, self.text_dim, self.image_channels) < 0:
            raise ValueError("text_tokens, text_dim and image_channels must not be negative")
        if (self.text_tokens == 0) != (self.text_dim == 0):
            raise ValueError("text_tokens and text_dim must both be 0 or both be positive")

    @property
    def grid(self) -> int:
        """Tokens along each side of the picture."""
        return self.image_size // self.patch_size

    @property
    def out_channels(self) -> int:
        """Channels of output."""
        return self.channels * (2 if self.learned_variance else 1)


class PatchTokens(nn.Module):
    """(x [B,C,S,S], Cond) -> tokens [B,N,D]: one linear map of each patch, plus its position.

    With `image_channels` the condition's picture, resized to x, joins x as further channels; a
    missing one is zeros.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        channels, patch = config.channels + config.image_channels, config.patch_size
        self.image_channels = config.image_channels
        self.project = nn.Conv2d(channels, config.width, patch, stride=patch)
        if config.positions == "learned":
            self.positions = nn.Parameter(0.02 * torch.randn(config.grid**2, config.width))
        else:
            self.register_buffer("positions", sincos_positions(config.grid, config.width))

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        if self.image_channels:
            x = torch.cat([x, self._picture(x, cond.spatial)], dim=1)
        tokens: Tensor = self.project(x).flatten(2).transpose(1, 2)
        return tokens + self.positions.to(tokens.dtype)

    def _picture(self, x: Tensor, spatial: Tensor | None) -> Tensor:
        size = x.shape[-2:]
        if spatial is None:
            return x.new_zeros(len(x), self.image_channels, *size)
        if spatial.shape[1] != self.image_channels:
            raise ValueError(
                f"the condition's picture has {spatial.shape[1]} channels, "
                f"this network takes {self.image_channels}"
            )
        if spatial.shape[-2:] != size:
            spatial = F.interpolate(spatial, size, mode="bilinear", antialias=True)
        return spatial.to(x.dtype)


def sincos_positions(grid: int, width: int) -> Tensor:
    """Sines and cosines of both coordinates at width/4 frequencies from 1 to 1e-4, [grid^2,width].

    Vaswani et al. 2017, section 3.5, once for each axis, as in Peebles & Xie 2023.
    """
    count = width // 4
    frequencies = 10_000.0 ** (-torch.arange(count, dtype=torch.float32) / count)
    angles = torch.arange(grid, dtype=torch.float32)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = axis[:, None].expand(grid, grid, 2 * count)
    columns = axis[None].expand(grid, grid, 2 * count)
    return torch.cat([rows, columns], dim=2).reshape(grid * grid, 4 * count)


def to_picture(patches: Tensor, grid: int, patch_size: int) -> Tensor:
    """Tokens [B,grid^2,C*patch_size^2] laid out as a picture [B,C,S,S]."""
    maps = patches.transpose(1, 2).reshape(len(patches), -1, grid, grid)
    return F.pixel_shuffle(maps, patch_size)


def text_tokens(config: TransformerConfig) -> TextTokens | None:
    """The prompt's part of a network, where it has one."""
    if not config.text_tokens:
        return None
    return TextTokens(config.text_tokens, config.text_dim, config.width)


class TokenAttention(nn.Module):
    """Multi-head self-attention over tokens [B,N,D], without norm and residual."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.width // config.head_dim
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.query_norm = HeadNorm(config.head_dim)
        self.key_norm = HeadNorm(config.head_dim)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(self.query_norm(q), self.key_norm(k), v)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def perceptron(config: TransformerConfig) -> nn.Sequential:
    """The two-layer perceptron of a block."""
    hidden = config.mlp_ratio * config.width
    return nn.Sequential(
        nn.Linear(config.width, hidden),
        activation(config.activation),
        nn.Linear(hidden, config.width),
    )


def initialise(network: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear map, as in Peebles & Xie 2023."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
