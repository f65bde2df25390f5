"""Reconstruction, perceptual, KL and adversarial terms of an autoencoder for latents.

Rombach et al. 2022, section 3.1 and appendix G; Esser et al. 2021, section 3.1, eq. 5-7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from izograf.core.registry import Registry
from izograf.core.types import Batch, Phase
from izograf.objectives.adversarial import ADVERSARIAL_LOSSES
from izograf.objectives.perceptual import Features, feature_distance

PIXEL_LOSSES: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry("pixel loss")
"""(reconstruction, image) -> scalar, the mean over everything."""


@PIXEL_LOSSES.register("l1")
def absolute_error(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference; blurs less than the squared one (Isola et al. 2017)."""
    return (reconstruction - image).abs().mean()


@PIXEL_LOSSES.register("l2")
def squared_error(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean squared difference; what PSNR measures."""
    return (reconstruction - image).square().mean()


HEAD_START = 0.05
"""Share of the run for which the discriminator learns before it is heard: the adaptive weight would
give a new one's random gradient as much pull as the reconstruction's."""


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts beside the pixel loss.

    Attributes:
        kl: of the divergence in nats per picture, divided by the numbers in a picture. So small
            that it only keeps latents from drifting; their scale is measured afterwards.
        perceptual: of the feature distance, where there is a network for it.
        adversarial: factor of the adaptive weight; 0 for no discriminator.
        adversarial_start: share of the run after which the discriminator is heard: before that
            the reconstructions are too blurred to learn from it.
    """

    kl: float = 1e-6
    perceptual: float = 1.0
    adversarial: float = 0.5
    adversarial_start: float = 0.5

    def __post_init__(self) -> None:
        if min(self.kl, self.perceptual, self.adversarial) < 0:
            raise ValueError("the weights kl, perceptual and adversarial must not be negative")
        if not 0 <= self.adversarial_start <= 1:
            raise ValueError(
                f"adversarial_start must be from 0 to 1, got {self.adversarial_start:g}"
            )


@dataclass(frozen=True)
class Parties:
    """The networks and their optimisers.

    `autoencoder` has `posterior(image) -> (mean, log-variance)`, `decoder(latent) -> image` whose
    last layer is `decoder.out`; `discriminator(image) -> logits` of any shape.
    """

    autoencoder: nn.Module
    discriminator: nn.Module
    autoencoder_optimizer: Optimizer
    discriminator_optimizer: Optimizer


class AutoencodingObjective:
    """The autoencoder at every step; after a share of the run, the discriminator as well."""

    averaged: Sequence[str] = ("autoencoder",)

    def __init__(
        self,
        parties: Parties,
        *,
        pixel_loss: Callable[[Tensor, Tensor], Tensor],
        features: Features | None,
        weights: LossWeights,
        images: int,
    ) -> None:
        """`images` is the length of the run; `features` that of a frozen network, or None."""
        self._parties, self._pixel_loss = parties, pixel_loss
        self._features, self._weights = features, weights
        self._game = ADVERSARIAL_LOSSES["hinge"]
        self._start = round(weights.adversarial_start * images)
        self._first_lesson = max(0, self._start - round(HEAD_START * images))
        self._clock = _Clock()
        self.modules = nn.ModuleDict({"autoencoder": parties.autoencoder, "clock": self._clock})
        if weights.adversarial:
            self.modules["discriminator"] = parties.discriminator

    def optimizers(self) -> Mapping[str, Optimizer]:
        optimizers = {"autoencoder": self._parties.autoencoder_optimizer}
        if self._weights.adversarial:
            optimizers["discriminator"] = self._parties.discriminator_optimizer
        return optimizers

    def phases(self) -> Sequence[Phase]:
        reconstruct = Phase("reconstruct", "autoencoder", self._reconstruction_loss)
        if not self._weights.adversarial:
            return (reconstruct,)
        discriminate = Phase(
            "discriminate", "discriminator", self._discriminator_loss, after=self._first_lesson
        )
        return (reconstruct, discriminate)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Lets the discriminator be heard when its time has come."""
        del stats
        self._clock.playing.fill_(bool(self._weights.adversarial) and images_seen >= self._start)

    def likeness(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """The pixel loss plus, where there is a network for it, the weighted perceptual one."""
        return self._terms(reconstruction, image)[0]

    def _terms(self, reconstruction: Tensor, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        pixels = self._pixel_loss(reconstruction, image)
        if self._features is None:
            return pixels, {"pixels": pixels}
        distance = feature_distance(self._features, reconstruction, image).mean()
        likeness = pixels + self._weights.perceptual * distance
        return likeness, {"pixels": pixels, "perceptual": distance}

    def _reconstruct(self, image: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A reconstruction by way of a drawn latent, and the posterior's mean and log-variance."""
        network = self._parties.autoencoder
        mean, log_variance = network.posterior(image)  # type: ignore[operator]
        noise = torch.randn(mean.shape, generator=rng, device=mean.device)
        latent = mean + (log_variance / 2).exp() * noise
        reconstruction: Tensor = network.decoder(latent)  # type: ignore[operator]
        return reconstruction.float(), mean, log_variance

    def _reconstruction_loss(
        self, batch: Batch, rng: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        image, weights = batch.image, self._weights
        reconstruction, mean, log_variance = self._reconstruct(image, rng)
        divergence = kl_to_standard_normal(mean, log_variance).mean()
        likeness, stats = self._terms(reconstruction, image)
        stats["kl"] = divergence
        loss = likeness + weights.kl * divergence / image[0].numel()
        if self._clock.playing:
            verdict = self._game.generator(self._parties.discriminator(reconstruction).float())
            last = self._parties.autoencoder.decoder.out.weight  # type: ignore[union-attr]
            adaptive = adaptive_weight(likeness, verdict, last)  # type: ignore[arg-type]
            loss = loss + weights.adversarial * adaptive * verdict
            stats |= {"adversarial": verdict, "adaptive_weight": adaptive}
        return loss, stats

    def _discriminator_loss(
        self, batch: Batch, rng: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        with torch.no_grad():
            fake, _, _ = self._reconstruct(batch.image, rng)
        images = torch.cat([batch.image, fake]).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self._parties.discriminator(images).float()
        real_logits, fake_logits = logits.chunk(2)
        loss = self._game.discriminator(real_logits, fake_logits)
        return loss, {"real": real_logits.mean(), "fake": fake_logits.mean()}


class _Clock(nn.Module):
    """Whether the discriminator takes part, where checkpoints find it."""

    playing: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("playing", torch.zeros((), dtype=torch.bool))


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) | N(0, I)) in nats, summed over [B,C,h,w] to [B].

    Kingma & Welling 2014, appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


def adaptive_weight(likeness: Tensor, verdict: Tensor, last: Tensor) -> Tensor:
    """|d likeness / d last| / (|d verdict / d last| + 1e-4), at most 10^4, without gradient.

    Both terms then pull equally at the decoder's `last` layer (Esser et al. 2021, eq. 7).
    """
    (wanted,) = torch.autograd.grad(likeness, last, retain_graph=True)
    (found,) = torch.autograd.grad(verdict, last, retain_graph=True)
    weight: Tensor = (wanted.norm() / (found.norm() + 1e-4)).clamp(0, 1e4)
    return weight.detach()
