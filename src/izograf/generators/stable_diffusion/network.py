"""The U-Net of a checkpoint, called like every denoiser here: (x, c_noise, Condition) -> F."""

from __future__ import annotations

import math
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
    """diffusers' UNet2DConditionModel as a backbone: (x, timestep [B], Cond) -> like x."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self._num_size_features = 0
        if unet.config.addition_embed_type == "text_time":
            self._num_size_features = NUM_SIZES * unet.config.addition_time_embed_dim

    def forward(self, x: Tensor, c_noise: Tensor, cond: Cond) -> Tensor:
        if cond.tokens is None:
            raise ValueError("the network draws from text only")
        tokens = cond.tokens.to(x.dtype)
        more: dict[str, Any] = {}
        if cond.vector is not None:
            vector = cond.vector.to(x.dtype)
            pooled = vector[:, : -self._num_size_features]
            sizes = vector[:, -self._num_size_features :]
            more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
        if tokens.shape[1] > PLAIN_LENGTH:
            more["encoder_attention_mask"] = tokens.ne(0).any(dim=-1)
        predicted: Tensor = self.unet(
            x, c_noise, encoder_hidden_states=tokens, return_dict=False, **more
        )[0]
        return predicted


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
