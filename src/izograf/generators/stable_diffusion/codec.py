"""The autoencoder of a checkpoint between pictures and the latents that are denoised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.generators.tiling import decode_tiled, ramp, tiles

OVERLAP = 0.25  # of a tile's side, shared with the next one
REACH = 0.0625  # of a tile's side, unused at inner edges


class EncoderMean(nn.Module):
    """Pictures -> the mean of the posterior over latents."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quantise = vae.encoder, vae.quant_conv or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        moments: Tensor = self.quantise(self.encoder(x))
        return moments.chunk(2, dim=1)[0]


class Decoder(nn.Module):
    """Latents -> pictures."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.prepare, self.decoder = vae.post_quant_conv or nn.Identity(), vae.decoder

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.prepare(x))
        return made


class Autoencoder(nn.Module):
    """diffusers' AutoencoderKL as the two maps it consists of, without sampling."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder: nn.Module = EncoderMean(vae)
        self.decoder: nn.Module = Decoder(vae)


@dataclass(frozen=True)
class LatentScale:
    """standardised = (latent - shift) * scale, each a number per channel."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, config: Any) -> LatentScale:
        """From an autoencoder's configuration: scaling_factor, and mean and deviation if stated."""
        channels = int(config["latent_channels"])
        factor = float(config.get("scaling_factor") or 1.0)
        shift = config.get("latents_mean") or [config.get("shift_factor") or 0.0] * channels
        deviation = config.get("latents_std") or [1.0] * channels
        return cls(tuple(map(float, shift)), tuple(factor / float(d) for d in deviation))


@dataclass(frozen=True)
class SizedCodec:
    """An autoencoder for latents of one size; a `Codec`.

    Attributes:
        network: with `encoder` and `decoder`, in the precision `dtype`, on `device`.
        shape: (C, h, w) of the latents.
        factor: pixels along a side of one latent.
        to_rgb: [3,C+1], see `flat_colours`.
        tile: latents along a side up to which one is computed whole. Tiles see nothing of each
            other, so that colours may differ a little between them; they are blended.
    """

    network: Any
    latents: LatentScale
    shape: tuple[int, int, int]
    factor: int
    tile: int
    dtype: torch.dtype
    device: torch.device
    to_rgb: Tensor

    def encode(self, images: Tensor) -> Tensor:
        means = torch.cat([self._encode(image[None]) for image in images])
        return (means - self._shift) * self._scale

    def decode(self, x: Tensor) -> Tensor:
        """One picture after the other: their numbers at full size are what takes memory."""
        raw = x.float() / self._scale + self._shift
        return torch.cat([self._decode(latent[None]) for latent in raw]).to(self.device)

    def preview(self, x: Tensor) -> Tensor:
        """Mean colours of the latents, each as large as its pixels."""
        raw = x.float() / self._scale + self._shift
        to_rgb = self.to_rgb.to(self.device)
        colours = torch.einsum("rc,bchw->brhw", to_rgb[:, :-1], raw)
        colours = (colours + to_rgb[:, -1, None, None]).clamp(-1, 1)
        return F.interpolate(colours, scale_factor=float(self.factor))

    def _encode(self, image: Tensor) -> Tensor:
        given = image.to(self.device, self.dtype, memory_format=torch.channels_last)
        if max(self.shape[1:]) <= self.tile:
            return self.network.encoder(given).float()  # type: ignore[no-any-return]
        return encode_tiled(
            lambda part: self.network.encoder(part).float(), given,
            channels=self.shape[0], factor=self.factor, tile=self.tile, overlap=self._overlap,
            reach=self._reach,
        )  # fmt: skip

    def _decode(self, latent: Tensor) -> Tensor:
        if max(self.shape[1:]) <= self.tile:
            return self._decode_whole(latent)
        return decode_tiled(
            self._decode_whole, latent, factor=self.factor, tile=self.tile,
            overlap=self._overlap, reach=self._reach,
        )  # fmt: skip

    def _decode_whole(self, latent: Tensor) -> Tensor:
        given = latent.to(self.dtype, memory_format=torch.channels_last)
        made: Tensor = self.network.decoder(given)
        return made.float().clamp(-1, 1)

    @property
    def _overlap(self) -> int:
        return max(1, round(self.tile * OVERLAP))

    @property
    def _reach(self) -> int:
        return round(self.tile * REACH)

    @cached_property
    def _shift(self) -> Tensor:
        return torch.tensor(self.latents.shift, device=self.device)[:, None, None]

    @cached_property
    def _scale(self) -> Tensor:
        return torch.tensor(self.latents.scale, device=self.device)[:, None, None]


@torch.inference_mode()
def flat_colours(network: Autoencoder, channels: int, *, side: int = 4) -> Tensor:
    """The affine map [3,C+1] from a raw latent to a colour in [-1,1], for previews.

    The mean answer of a float32 decoder to flat latents: zero, and one in a channel at a time.
    """
    flat = torch.cat([torch.zeros(1, channels), torch.eye(channels)])
    colours = network.decoder(flat[:, :, None, None].expand(-1, -1, side, side)).mean((2, 3))
    return torch.cat([colours[1:] - colours[:1], colours[:1]]).T


def encode_tiled(
    encode: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    channels: int,
    factor: int,
    tile: int,
    overlap: int,
    reach: int,
) -> Tensor:
    """`encode(image)` of [B,3,factor h,factor w] by tiles of at most `tile` latents along a side.

    The counterpart of `generators.tiling.decode_tiled`: float32 [B,channels,h,w] on image's
    device, blended linearly over what remains of the overlap after `reach` unused latents.
    """
    height, width = (length // factor for length in image.shape[-2:])
    out = torch.zeros(len(image), channels, height, width, device=image.device)
    total = torch.zeros(height, width, device=image.device)
    for top, bottom in tiles(height, tile, overlap):
        down = ramp(top, bottom, height, overlap, reach, 1).to(image.device)
        for left, right in tiles(width, tile, overlap):
            across = ramp(left, right, width, overlap, reach, 1).to(image.device)
            weights = down[:, None] * across
            part = image[..., factor * top : factor * bottom, factor * left : factor * right]
            out[..., top:bottom, left:right] += encode(part) * weights
            total[top:bottom, left:right] += weights
    return out / total
