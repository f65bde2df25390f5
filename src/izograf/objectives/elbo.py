"""The evidence lower bound of Kingma & Welling 2014, and the plain autoencoder without its KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from izograf.core.types import Batch, Condition, Phase
from izograf.objectives.denoising import drop_condition

ACTIVE_VARIANCE = 1e-2


@dataclass(frozen=True)
class ElboConfig:
    """What the KL divergence weighs.

    Attributes:
        beta: its weight at the end (Higgins et al. 2017, eq. 4); 1 is the bound itself.
        beta_warmup: share of the run over which the weight rises linearly from zero, so that the
            decoder learns to use the code before the code is pressed into the prior (Fu et al.
            2019; one cycle); 0 for none.
        free_bits: nats that each dimension may carry without being charged for them (Kingma et
            al. 2016, eq. 15, each dimension a group); keeps dimensions from collapsing.
    """

    beta: float = 1.0
    beta_warmup: float = 0.1
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1000:
            raise ValueError(f"beta must be from 0 to 1000, got {self.beta}")
        if not 0 <= self.beta_warmup <= 1:
            raise ValueError(f"beta_warmup must be from 0 to 1, got {self.beta_warmup}")
        if not 0 <= self.free_bits <= 100:
            raise ValueError(f"free_bits must be from 0 to 100 nats, got {self.free_bits}")

    def weight(self, images_seen: int, total: int) -> float:
        """Beta after `images_seen` of `total` images."""
        if self.beta_warmup == 0:
            return self.beta
        return self.beta * min(1.0, images_seen / (self.beta_warmup * total))


class LatentNetwork(Protocol):
    """Encoder and decoder as this objective needs them; `models.vae.VAE` is one."""

    def encode(self, image: Tensor, condition: Condition) -> tuple[Tensor, Tensor | None]:
        """Mean and log variance [B,L] of the posterior; None where the code is certain."""
        ...

    def decode(self, code: Tensor, condition: Condition) -> Tensor:
        """The output [B,C,S,S] that a reconstruction loss takes."""
        ...


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, e^log_variance) | N(0, 1)) of each dimension (Kingma & Welling 2014, app. B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def charged_kl(kl: Tensor, free_bits: float) -> Tensor:
    """The KL divergence [B,L] that is charged: batch mean, at least `free_bits` a dimension."""
    return kl.mean(0).clamp(min=free_bits).sum()


def num_active(means: Tensor) -> Tensor:
    """How many dimensions of the posterior means [N,L] vary with the picture.

    Active is a variance above 0.01 (Burda et al. 2016, section 5.2); zero is posterior collapse.
    """
    return (means.var(0, unbiased=False) > ACTIVE_VARIANCE).sum()


class _Clock(nn.Module):
    """The images seen, among the modules so that a resumed run goes on with the same beta."""

    images_seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))


class ElboObjective:
    """(reconstruction + beta KL) / number of pixel values, in nats per value.

    For an encoder without variance only the reconstruction is left. The class is dropped with
    probability `class_dropout`, for encoder and decoder alike, so that both work without one.
    """

    averaged: Sequence[str] = ("autoencoder",)

    def __init__(
        self,
        network: nn.Module,
        likelihood: nn.Module,
        optimizer: Optimizer,
        config: ElboConfig,
        *,
        images: int,
        class_dropout: float = 0.0,
    ) -> None:
        """`likelihood` is a `reconstruction.RECONSTRUCTION_LOSSES`; `images` the whole run's."""
        self._clock = _Clock()
        self.modules = nn.ModuleDict(
            {"autoencoder": network, "likelihood": likelihood, "clock": self._clock}
        )
        self._network, self._likelihood, self._optimizer = network, likelihood, optimizer
        self._config, self._images, self._class_dropout = config, images, class_dropout

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"autoencoder": self._optimizer}

    def phases(self) -> Sequence[Phase]:
        return (Phase("reconstruct", "autoencoder", self._loss),)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Moves the warm-up of beta on."""
        del stats
        self._clock.images_seen.fill_(images_seen)

    def held_out_loss(self, network: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        """The negative bound itself (beta = 1, no free bits) in nats per pixel value."""
        coder = cast(LatentNetwork, network)
        mean, log_variance = coder.encode(batch.image, batch.condition)
        output = coder.decode(sampled(mean, log_variance, rng), batch.condition)
        nats: Tensor = self._likelihood(output, batch.image).mean()
        if log_variance is not None:
            nats = nats + gaussian_kl(mean, log_variance).sum(1).mean()
        return nats / batch.image[0].numel()

    def _loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        network = cast(LatentNetwork, self._network)
        condition = drop_condition(batch.condition, self._class_dropout, rng)
        mean, log_variance = network.encode(batch.image, condition)
        output = network.decode(sampled(mean, log_variance, rng), condition)
        nats = self._likelihood(output, batch.image).mean()
        size = batch.image[0].numel()
        stats = {"reconstruction": nats / size, "psnr": psnr(output.tanh(), batch.image)}
        if log_variance is None:
            return nats / size, stats
        kl = gaussian_kl(mean, log_variance)
        beta = self._config.weight(int(self._clock.images_seen), self._images)
        loss = (nats + beta * charged_kl(kl, self._config.free_bits)) / size
        stats |= {
            "kl": kl.sum(1).mean(),
            "beta": torch.tensor(beta),
            "active_units": num_active(mean.detach()).float(),
        }
        return loss, stats


def sampled(mean: Tensor, log_variance: Tensor | None, rng: torch.Generator) -> Tensor:
    """A code from the posterior by the reparameterisation trick; the mean where it is certain."""
    if log_variance is None:
        return mean
    noise = torch.randn(mean.shape, generator=rng, device=mean.device)
    return mean + (log_variance / 2).exp() * noise


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """10 log10(peak^2 / mean squared error) of the batch in decibels, for values in [-1,1]."""
    error = (image.float() - reference.float()).square().mean()
    return 10 * torch.log10(4 / error.clamp(min=1e-12))
