"""The U-Net of a checkpoint, called like every denoiser here: (x, c_noise, Condition) -> F."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from izograf.core.types import Cond, Condition
from izograf.models.conditioning import Conditioned
from izograf.models.layers import NoiseLevelEmbedding

PLAIN_LENGTH = 77  # tokens of one chunk: longer texts may have rows to ignore
NUM_SIZES = 6  # of SDXL: original height and width, top and left of the crop, height and width


class TimestepFeatures(NoiseLevelEmbedding):
    """Sines and cosines of timesteps [N] (Vaswani et al. 2017, section 3.5), float32 [N,dim].

    No parameters; a `NoiseLevelEmbedding`, so that a backend computes it outside of its graph.
    """

    def __init__(self, dim: int, *, cosines_first: bool, shift: float) -> None:
        nn.Module.__init__(self)
        self.dim, self.cosines_first, self.shift = dim, cosines_first, shift

    def forward(self, c_noise: Tensor) -> Tensor:
        half = self.dim // 2
        places = torch.arange(half, dtype=torch.float32, device=c_noise.device)
        rates = torch.exp(places * (-math.log(10_000.0) / (half - self.shift)))
        angles = c_noise.float()[:, None] * rates
        parts = [angles.sin(), angles.cos()]
        return torch.cat(parts[::-1] if self.cosines_first else parts, dim=1)


class PromptEncoder(nn.Module):
    """Text -> tokens; SDXL's vector and six sizes -> the vector with the sizes' features."""

    def __init__(self, size_features: TimestepFeatures | None) -> None:
        super().__init__()
        self.size_features = size_features

    def forward(self, condition: Condition, batch_size: int) -> Cond:
        if condition.attributes is None or self.size_features is None:
            return Cond(tokens=condition.text)
        pooled = condition.attributes[:, :-NUM_SIZES]
        sizes = condition.attributes[:, -NUM_SIZES:].reshape(-1)
        features = self.size_features(sizes).reshape(batch_size, -1)
        return Cond(vector=torch.cat([pooled, features], dim=1), tokens=condition.text)


class UNetBackbone(nn.Module):
    """diffusers' UNet2DConditionModel as a backbone: (x, timestep [B], Cond) -> like x.

    Its deep layers (`models.conditioning.DeepReusing`) are all but the first convolution, the
    last ResNet block with its attention, and the last convolution.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self._num_size_features = 0
        if unet.config.addition_embed_type == "text_time":
            self._num_size_features = NUM_SIZES * unet.config.addition_time_embed_dim

    def forward(self, x: Tensor, c_noise: Tensor, cond: Cond) -> Tensor:
        tokens, masked, added = self._asked(x, cond)
        predicted: Tensor = self.unet(
            x, c_noise, encoder_hidden_states=tokens, encoder_attention_mask=masked,
            added_cond_kwargs=added, return_dict=False,
        )[0]  # fmt: skip
        return predicted

    def keeping(self, x: Tensor, c_noise: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """The prediction, and what enters the last ResNet block from below, [B,C,h,w]."""
        entered: list[Tensor] = []
        last = self.unet.up_blocks[-1].resnets[-1]
        hook = last.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
        try:
            predicted = self(x, c_noise, cond)
        finally:
            hook.remove()
        (joined,) = entered  # beside what the first convolution gave
        return predicted, joined[:, : -self.unet.conv_in.out_channels]

    def reusing(self, x: Tensor, c_noise: Tensor, cond: Cond, kept: Tensor) -> Tensor:
        """The prediction with `kept` of an earlier `keeping`."""
        unet, last = self.unet, self.unet.up_blocks[-1]
        tokens, masked, added = self._asked(x, cond)
        vector = unet.time_embedding(unet.get_time_embed(sample=x, timestep=c_noise))
        further = unet.get_aug_embed(
            emb=vector, encoder_hidden_states=tokens, added_cond_kwargs=added
        )
        vector = vector if further is None else vector + further
        h = last.resnets[-1](torch.cat([kept, unet.conv_in(x)], dim=1), vector)
        if getattr(last, "has_cross_attention", False):
            bias = None if masked is None else -10_000.0 * (1 - masked.to(h.dtype))[:, None]
            h = last.attentions[-1](
                h, encoder_hidden_states=tokens, encoder_attention_mask=bias, return_dict=False
            )[0]
        predicted: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))
        return predicted

    def _asked(
        self, x: Tensor, cond: Cond
    ) -> tuple[Tensor, Tensor | None, Mapping[str, Tensor] | None]:
        """The prompt's tokens, which of them count if not all do, and SDXL's conditions."""
        if cond.tokens is None:
            raise ValueError("the network draws from text only")
        tokens = cond.tokens.to(x.dtype)
        masked = tokens.ne(0).any(dim=-1) if tokens.shape[1] > PLAIN_LENGTH else None
        if cond.vector is None:
            return tokens, masked, None
        vector = cond.vector.to(x.dtype)
        pooled = vector[:, : -self._num_size_features]
        sizes = vector[:, -self._num_size_features :]
        return tokens, masked, {"text_embeds": pooled, "time_ids": sizes}


def conditioned(unet: Any) -> Conditioned:
    """The U-Net as the denoiser's network; its features of timesteps and sizes become ours."""
    config = unet.config
    flips, shift = bool(config.flip_sin_to_cos), float(config.freq_shift)
    unet.time_proj = TimestepFeatures(
        config.block_out_channels[0], cosines_first=flips, shift=shift
    )
    sizes = None
    if config.addition_embed_type == "text_time":
        sizes = TimestepFeatures(config.addition_time_embed_dim, cosines_first=flips, shift=shift)
        unet.add_time_proj = nn.Identity()  # features are made outside of the graph
    return Conditioned(PromptEncoder(sizes), UNetBackbone(unet))
