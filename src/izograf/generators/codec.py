"""Between what a diffusion model denoises and pictures: nothing, or an autoencoder's latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.core.config import config_from_json, config_to_json
from izograf.core.devices import Placement
from izograf.generators.tiling import decode_tiled
from izograf.models.autoencoder import KLAutoencoder
from izograf.schema.errors import CardError

TILE = 64  # latents along a side up to which a latent is decoded whole


class Codec(Protocol):
    """What stands between the denoiser's space and pictures.

    Attributes:
        shape: (C, h, w) of what is denoised.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def encode(self, images: Tensor) -> Tensor:
        """Images [B,3,S,S] in [-1,1] -> what is denoised, float32 [B,C,h,w]."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> float32 images [B,3,S,S] in [-1,1]."""
        ...

    def preview(self, x: Tensor) -> Tensor:
        """As `decode`, roughly and at almost no cost, for showing what happens."""
        ...


@dataclass(frozen=True)
class Pixels:
    """Pictures themselves: nothing to decode."""

    shape: tuple[int, int, int]

    def encode(self, images: Tensor) -> Tensor:
        return images.float()

    def decode(self, x: Tensor) -> Tensor:
        return x.clamp(-1, 1).float()

    def preview(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class LatentFacts:
    """What was measured on an autoencoder's latents of training pictures; goes on its card.

    Attributes:
        shift, scale: mean and deviation of each channel; (latent - shift) / scale is standardised.
        to_rgb: three rows of C + 1: the affine map from a standardised latent to the mean colour
            of its pixels, in [-1,1], by least squares.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    to_rgb: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        channels = len(self.shift)
        if not channels or len(self.scale) != channels or min(self.scale) <= 0:
            raise ValueError("shift and scale must have a number per channel, scale positive ones")
        if len(self.to_rgb) != 3 or any(len(row) != channels + 1 for row in self.to_rgb):
            raise ValueError(f"to_rgb must have three rows of {channels + 1}")

    def to_json(self) -> dict[str, Any]:
        return config_to_json(self)

    @classmethod
    def from_json(cls, values: Any, *, source: str) -> LatentFacts:
        """
        Raises:
            CardError: not what `to_json` gives.
        """
        if not isinstance(values, Mapping):
            raise CardError(f"{source} does not state what its latents are like.")
        return config_from_json(cls, values, source=source)


class LatentCodec:
    """A KL autoencoder between pictures and standardised latents."""

    def __init__(self, network: KLAutoencoder, facts: LatentFacts, placement: Placement) -> None:
        if len(facts.shift) != network.config.latent_channels:
            raise ValueError(
                f"the latents have {network.config.latent_channels} channels, and facts about "
                f"{len(facts.shift)} are given"
            )
        self.network, self.facts = network, facts
        self._device = torch.device(placement.device)
        self._shift, self._scale = (
            _per_channel(values, self._device) for values in (facts.shift, facts.scale)
        )
        self._to_rgb = torch.tensor(facts.to_rgb, device=self._device)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.network.config.latent_shape

    def encode(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] in [-1,1] -> the posterior's means, standardised, float32 [B,C,h,w]."""
        given = images.to(self._device, self._dtype, memory_format=torch.channels_last)
        mean, _ = self.network.posterior(given)
        return (mean - self._shift) / self._scale

    def decode(self, x: Tensor) -> Tensor:
        """Standardised latents of any height and width -> images in [-1,1]; large ones in tiles."""
        x = x.to(self._device)
        if max(x.shape[-2:]) <= TILE:
            return self._decode(x)
        config = self.network.config
        return decode_tiled(
            self._decode, x,
            factor=config.factor, tile=TILE, overlap=min(TILE - 1, 2 * config.reach + 4),
            reach=config.reach,
        )  # fmt: skip

    def preview(self, x: Tensor) -> Tensor:
        """Mean colours of the latents, each as large as its pixels."""
        colours = torch.einsum("rc,bchw->brhw", self._to_rgb[:, :-1], x.float())
        colours = colours + self._to_rgb[:, -1, None, None]
        return F.interpolate(colours, scale_factor=float(self.network.config.factor))

    def _decode(self, x: Tensor) -> Tensor:
        latent = torch.addcmul(self._shift, x.float(), self._scale)
        given = latent.to(self._dtype, memory_format=torch.channels_last)
        image: Tensor = self.network.decoder(given)
        return image.float().clamp(-1, 1)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype


def measure_latents(latents: Sequence[Tensor], images: Sequence[Tensor]) -> LatentFacts:
    """The facts about raw latents [B,C,h,w] of `images` [B,3,f h,f w] in [-1,1], in batches.

    A channel that never varies has scale 1.
    """
    raw = torch.cat([_rows(batch) for batch in latents])
    size = (latents[0].shape[-2], latents[0].shape[-1])
    colours = torch.cat([_rows(F.adaptive_avg_pool2d(batch.float(), size)) for batch in images])
    scale, shift = torch.std_mean(raw, dim=0, correction=0)
    scale = torch.where(scale > 1e-6, scale, torch.ones_like(scale))
    inputs = torch.cat([(raw - shift) / scale, torch.ones(len(raw), 1, dtype=raw.dtype)], dim=1)
    # a ridge far below the latents' unit variance, for channels that never vary
    gram = inputs.T @ inputs + 1e-6 * len(raw) * torch.eye(inputs.shape[1], dtype=raw.dtype)
    to_rgb = torch.linalg.solve(gram, inputs.T @ colours).T
    return LatentFacts(
        shift=_rounded(shift), scale=_rounded(scale), to_rgb=tuple(_rounded(r) for r in to_rgb)
    )


def _rows(maps: Tensor) -> Tensor:
    """[B,C,h,w] -> float64 [B*h*w,C] on the CPU."""
    return maps.double().permute(0, 2, 3, 1).flatten(0, 2).cpu()


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values.tolist())


def _per_channel(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)[:, None, None]
