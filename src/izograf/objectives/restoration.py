"""Supervised restoration: a picture is made worse in a known way, and the network mends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from izograf.core.registry import Registry
from izograf.core.types import Batch, Phase

FACTOR = 2
BLUR_REACH = 3  # pixels of the blur's kernel on either side of its middle
CHARBONNIER_EPSILON = 1e-3

RESTORATION_LOSSES: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry("restoration loss")
"""(restored, picture) -> scalar, the mean over everything."""


@RESTORATION_LOSSES.register("charbonnier")
def charbonnier(restored: Tensor, picture: Tensor) -> Tensor:
    """Mean sqrt(d^2 + epsilon^2), the absolute difference made smooth (Lai et al. 2017, eq. 3)."""
    return ((restored - picture).square() + CHARBONNIER_EPSILON**2).sqrt().mean()


@RESTORATION_LOSSES.register("l1")
def absolute_error(restored: Tensor, picture: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (restored - picture).abs().mean()


@dataclass(frozen=True)
class Degradation:
    """How pictures are made small for training.

    Attributes:
        crop: side of the random square, in pixels, that is cut out of each picture first; even.
        blur: most standard deviation of a Gaussian blur, in pixels of the large picture; each has
            its own between 0 and this. Generated pictures are softer than reduced photographs.
        noise: most standard deviation of white noise on the small picture, in data units (2 is the
            range); each has its own. Little of it, and the grain that generators leave is taken
            for detail and sharpened.
    """

    crop: int = 64
    blur: float = 0.8
    noise: float = 0.1

    def __post_init__(self) -> None:
        if self.crop < FACTOR or self.crop % FACTOR:
            raise ValueError(f"crop must be even and positive, got {self.crop}")
        if not 0 <= self.blur <= 2:
            raise ValueError(f"blur must be from 0 to 2, got {self.blur:g}")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise must be from 0 to 1, got {self.noise:g}")


class RestorationObjective:
    """The loss between what the network makes of a degraded picture and the picture."""

    averaged: Sequence[str] = ("upscaler",)

    def __init__(
        self,
        upscaler: nn.Module,
        optimizer: Optimizer,
        *,
        loss: Callable[[Tensor, Tensor], Tensor],
        degradation: Degradation,
    ) -> None:
        self.modules = nn.ModuleDict({"upscaler": upscaler})
        self._upscaler, self._optimizer = upscaler, optimizer
        self._pixel_loss, self._degradation = loss, degradation

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"upscaler": self._optimizer}

    def phases(self) -> Sequence[Phase]:
        return (Phase("restore", "upscaler", self._loss),)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Nothing adapts to the statistics here."""

    def _loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        picture = random_crop(batch.image, self._degradation.crop, rng)
        given = degrade(picture, self._degradation, rng)
        restored: Tensor = self._upscaler(given).float()
        error = (restored.detach().clamp(-1, 1) - picture).square().mean()
        psnr = 10 * torch.log10(4 / error.clamp(min=1e-10))  # of the batch's mean squared error
        return self._pixel_loss(restored, picture), {"psnr": psnr}


def random_crop(image: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """A square of `size` pixels from a random place of each of [B,C,H,W]; channels last.

    Pictures that are not larger are taken whole.
    """
    count, _, height, width = image.shape
    if min(height, width) <= size:
        return image
    top, left = (
        torch.randint(0, length - size + 1, (count, 1), generator=rng, device=image.device)
        for length in (height, width)
    )
    offsets = torch.arange(size, device=image.device)
    which = torch.arange(count, device=image.device)[:, None, None]
    rows, columns = (top + offsets)[:, :, None], (left + offsets)[:, None, :]
    return image.permute(0, 2, 3, 1)[which, rows, columns].permute(0, 3, 1, 2)


def degrade(image: Tensor, degradation: Degradation, rng: torch.Generator) -> Tensor:
    """Pictures [B,C,H,W] at half their size, blurred before and noisy afterwards, each by its own.

    Height and width must be even.
    """
    shares = torch.rand(2, len(image), generator=rng, device=image.device)
    blurred = gaussian_blur(image, degradation.blur * shares[0]) if degradation.blur else image
    small = halved(blurred)
    noise = torch.randn(small.shape, generator=rng, device=image.device)
    noisy = small + (degradation.noise * shares[1])[:, None, None, None] * noise
    return noisy.contiguous(memory_format=torch.channels_last)


def halved(image: Tensor) -> Tensor:
    """[B,C,H,W] -> [B,C,H/2,W/2], the mean of each 2x2 pixels."""
    return F.avg_pool2d(image, FACTOR)


def gaussian_blur(image: Tensor, sigma: Tensor) -> Tensor:
    """[B,C,H,W], each blurred with its own standard deviation, `sigma` [B] in pixels.

    The kernel ends `BLUR_REACH` pixels from its middle; beyond the edge the edge is repeated.
    """
    count, channels, height, width = image.shape
    offsets = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=image.device)
    weights = torch.exp(-(offsets**2) / (2 * sigma.clamp(min=1e-3)[:, None] ** 2))
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    rows = image.reshape(1, count * channels, height, width)
    rows = F.pad(rows, [BLUR_REACH] * 4, mode="replicate")
    rows = F.conv2d(rows, weights[:, None, None, :], groups=count * channels)
    rows = F.conv2d(rows, weights[:, None, :, None], groups=count * channels)
    return rows.reshape(image.shape)
