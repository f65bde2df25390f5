"""The denoising U-Net: ResNet blocks with adaptive group norm and attention at low resolution.

After Ho et al. 2020 (DDPM) and Dhariwal & Nichol 2021 (ADM): scale-and-shift conditioning of the
second norm, zero-initialised residual branches. The optional pixel-unshuffle stem (Shi et al.
2016) trades channels for resolution at both ends, which on a CPU is worth a factor of ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.core.types import Cond
from izograf.models.conditioning import Conditioned, ConditionEncoder, TextTokens
from izograf.models.layers import (
    Activation,
    CrossAttention,
    NoiseLevelEmbedding,
    SelfAttention,
    activation,
    num_groups,
    zeroed,
)
from izograf.models.registry import NETWORKS, NetworkType


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the U-Net.

    Attributes:
        image_size: H = W of the input; divisible by patch_size * 2^(levels - 1).
        channels: of input and output.
        num_classes: 0 for an unconditional network.
        patch_size: pixel-unshuffle factor of the stem, 1 for none.
        width: channels of the first level.
        multipliers: channels of each level as a multiple of `width`; each level halves H and W.
        depth: ResNet blocks per level (one more on the way up).
        attention: resolutions (after the stem) that have self-attention.
        head_dim: channels per attention head.
        dropout: between the two convolutions of a block.
        learned_variance: twice the channels of output, the second half for the variance of a step.
        text_tokens, text_dim: number and width of a prompt's tokens, to which every stage with
            self-attention then attends; 0 for a network without text.
    """

    image_size: int = 64
    channels: int = 3
    num_classes: int = 0
    patch_size: int = 4
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2)
    depth: int = 3
    attention: tuple[int, ...] = (8,)
    head_dim: int = 64
    dropout: float = 0.0
    learned_variance: bool = False
    activation: Activation = "silu"
    text_tokens: int = 0
    text_dim: int = 0

    def __post_init__(self) -> None:
        if not self.multipliers:
            raise ValueError("multipliers must name at least one level")
        smallest = self.patch_size * 2 ** (len(self.multipliers) - 1)
        if min(self.width, self.depth, self.patch_size, self.head_dim, *self.multipliers) < 1:
            raise ValueError("width, depth, patch_size, head_dim and multipliers must be positive")
        if self.image_size < 4 or self.image_size % smallest:
            raise ValueError(
                f"image_size must be a multiple of {smallest} for this network, "
                f"got {self.image_size}"
            )
        if self.num_classes < 0 or self.channels < 1:
            raise ValueError("num_classes must not be negative, and channels must be positive")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {self.dropout:g}")
        if min(self.text_tokens, self.text_dim) < 0:
            raise ValueError("text_tokens and text_dim must not be negative")
        if (self.text_tokens == 0) != (self.text_dim == 0):
            raise ValueError("text_tokens and text_dim must both be 0 or both be positive")
        resolutions = [
            self.image_size // self.patch_size // 2**level for level in range(len(self.multipliers))
        ]
        factors = zip(self.multipliers, resolutions, strict=True)
        attending = {factor for factor, resolution in factors if resolution in self.attention}
        if self.attention:  # then the middle attends too
            attending.add(self.multipliers[-1])
        for factor in attending:
            if self.width * factor % self.head_dim:
                raise ValueError(
                    f"head_dim {self.head_dim} must divide the {self.width * factor} channels "
                    f"of a level with attention"
                )


class ResNetBlock(nn.Module):
    """norm, act, conv, adaptive norm, act, dropout, conv, plus skip; changes C, keeps H and W."""

    def __init__(self, config: UNetConfig, c_in: int, c_out: int, dim: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(num_groups(c_in), c_in)
        self.conv_in = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.modulation = zeroed(nn.Linear(dim, 2 * c_out))
        self.norm_out = nn.GroupNorm(num_groups(c_out), c_out)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_out = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.act = activation(config.activation)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.modulation(vector)[:, :, None, None].chunk(2, dim=1)
        h = self.conv_in(self.act(self.norm_in(x)))
        h = self.act(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        return self.skip(x) + self.conv_out(self.dropout(h))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A ResNet block and, where asked, self-attention and then attention to the prompt."""

    def __init__(
        self, config: UNetConfig, c_in: int, c_out: int, dim: int, *, attend: bool
    ) -> None:
        super().__init__()
        self.block = ResNetBlock(config, c_in, c_out, dim)
        self.attention = SelfAttention(c_out, config.head_dim) if attend else nn.Identity()
        reads = attend and config.text_tokens > 0
        self.reading = CrossAttention(c_out, dim, config.head_dim) if reads else None

    def forward(self, x: Tensor, vector: Tensor, prompt: Tensor | None) -> Tensor:
        x = self.attention(self.block(x, vector))
        return x if self.reading is None else self.reading(x, prompt)


class UNet(nn.Module):
    """(x [B,C,S,S], c_noise [B], Cond) -> F [B,C,S,S]; zero at initialisation.

    With learned variance [B,2C,S,S]. A prompt joins twice: its first token, which stands for the
    sentence, in the vector that scales and shifts, and all of them where pixels attend (Rombach et
    al. 2022, section 3.3).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        dim = 4 * config.width
        widths = [config.width * factor for factor in config.multipliers]
        resolutions = [
            config.image_size // config.patch_size // 2**level for level in range(len(widths))
        ]
        patch_channels = config.channels * config.patch_size**2

        self.noise_level = NoiseLevelEmbedding(dim)
        has_text = config.text_tokens > 0
        self.text = TextTokens(config.text_tokens, config.text_dim, dim) if has_text else None
        self.sentence = nn.Linear(config.text_dim, dim, bias=False) if has_text else None
        self.act = activation(config.activation)
        self.stem = nn.Conv2d(patch_channels, widths[0], 3, padding=1)
        self.down, self.downsample = nn.ModuleList(), nn.ModuleList()
        self.up, self.upsample = nn.ModuleList(), nn.ModuleList()

        skips, c = [widths[0]], widths[0]
        for level, (width, resolution) in enumerate(zip(widths, resolutions, strict=True)):
            stages = nn.ModuleList()
            for _ in range(config.depth):
                attend = resolution in config.attention
                stages.append(Stage(config, c, width, dim, attend=attend))
                c = width
                skips.append(c)
            self.down.append(stages)
            if level < len(widths) - 1:
                self.downsample.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)

        self.middle = nn.ModuleList(
            [
                Stage(config, c, c, dim, attend=bool(config.attention)),
                Stage(config, c, c, dim, attend=False),
            ]
        )

        for level in reversed(range(len(widths))):
            stages = nn.ModuleList()
            for _ in range(config.depth + 1):
                attend = resolutions[level] in config.attention
                stages.append(Stage(config, c + skips.pop(), widths[level], dim, attend=attend))
                c = widths[level]
            self.up.append(stages)
            if level > 0:
                self.upsample.append(nn.Conv2d(c, c, 3, padding=1))

        self.norm = nn.GroupNorm(num_groups(c), c)
        outputs = patch_channels * (2 if config.learned_variance else 1)
        self.out = zeroed(nn.Conv2d(c, outputs, 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Cond) -> Tensor:
        return self.keeping(x, c_noise, cond)[0]

    def keeping(self, x: Tensor, c_noise: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """F, and what enters the last stage from below, [B,width,s,s] (`DeepReusing`)."""
        vector, prompt = self._asked(len(x), c_noise, cond)
        x = self.stem(F.pixel_unshuffle(x, self.patch_size))
        deep = self._deep(x, vector, prompt)
        return self._outer(x, deep, vector, prompt), deep

    def reusing(self, x: Tensor, c_noise: Tensor, cond: Cond, kept: Tensor) -> Tensor:
        """F of the stem, the last stage and the output alone, with the deep layers as `kept`."""
        vector, prompt = self._asked(len(x), c_noise, cond)
        return self._outer(self.stem(F.pixel_unshuffle(x, self.patch_size)), kept, vector, prompt)

    def _asked(self, batch_size: int, c_noise: Tensor, cond: Cond) -> tuple[Tensor, Tensor | None]:
        """The vector that scales and shifts, and the prompt's tokens where there is text."""
        vector = self.noise_level(c_noise)
        if cond.vector is not None:
            vector = vector + cond.vector
        prompt = None
        if self.text is not None and self.sentence is not None:
            prompt = self.text(cond.tokens, batch_size)
            if cond.tokens is not None:  # whose first stands for the whole sentence
                vector = vector + self.sentence(cond.tokens[:, 0].to(vector.dtype))
        return self.act(vector), prompt

    def _deep(self, x: Tensor, vector: Tensor, prompt: Tensor | None) -> Tensor:
        """From the stem to the last stage but one."""
        skips = [x]
        for level, stages in enumerate(self.down):
            for stage in cast(nn.ModuleList, stages):
                x = stage(x, vector, prompt)
                skips.append(x)
            if level < len(self.downsample):
                x = self.downsample[level](x)
                skips.append(x)
        for stage in self.middle:
            x = stage(x, vector, prompt)
        for level, stages in enumerate(self.up):
            is_last = level == len(self.upsample)
            for stage in cast(nn.ModuleList, stages)[: -1 if is_last else None]:
                x = stage(torch.cat([x, skips.pop()], dim=1), vector, prompt)
            if not is_last:
                x = self.upsample[level](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x

    def _outer(self, x: Tensor, deep: Tensor, vector: Tensor, prompt: Tensor | None) -> Tensor:
        """The last stage, which sees the stem's `x` beside what comes from below; the output."""
        last = cast(nn.ModuleList, self.up[-1])[-1]
        x = last(torch.cat([deep, x], dim=1), vector, prompt)
        return F.pixel_shuffle(self.out(self.act(self.norm(x))), self.patch_size)


def build_unet(config: UNetConfig) -> Conditioned:
    """The U-Net with its class encoder, as a diffusion model trains and samples it."""
    return Conditioned(ConditionEncoder(config.num_classes, 4 * config.width), UNet(config))


NETWORKS.register("unet")(NetworkType(UNetConfig, build_unet, "denoiser"))
