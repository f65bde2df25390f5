"""The adversarial game: discriminator, lazy R1 penalty, generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from izograf.core.registry import Registry
from izograf.core.types import Batch, Condition, Phase

Augment = Callable[[Tensor, torch.Generator], Tensor]


class AdversarialLoss(NamedTuple):
    """A pair of losses: (real logits, fake logits) -> scalar, and (fake logits) -> scalar."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


ADVERSARIAL_LOSSES: Registry[AdversarialLoss] = Registry(
    "adversarial loss", package="izograf.objectives"
)


def _non_saturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _non_saturating_generator(fake: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


def _hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _hinge_generator(fake: Tensor) -> Tensor:
    return -fake.mean()


# Goodfellow et al. 2014, section 3, and Lim & Ye 2017
ADVERSARIAL_LOSSES.register("non-saturating")(
    AdversarialLoss(_non_saturating_discriminator, _non_saturating_generator)
)
ADVERSARIAL_LOSSES.register("hinge")(AdversarialLoss(_hinge_discriminator, _hinge_generator))


@dataclass(frozen=True)
class Players:
    """The two networks and their optimisers.

    `generator(z [B,latent_dim], Condition) -> image`, `discriminator(image, Condition) -> [B]`.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer
    latent_dim: int


class AdversarialObjective:
    """D phase, R1 every 16th step, G phase; the averaged generator is served.

    R1 (Mescheder et al. 2018, eq. 9) is applied lazily, with its weight multiplied by the
    interval (Karras et al. 2020, section 3.1).
    """

    averaged: Sequence[str] = ("generator",)

    def __init__(
        self,
        players: Players,
        loss: AdversarialLoss,
        *,
        augment: Augment,
        r1_weight: float = 1.0,
        r1_every: int = 16,
    ) -> None:
        self.modules = nn.ModuleDict(
            {"generator": players.generator, "discriminator": players.discriminator}
        )
        self._players, self._losses, self._augment = players, loss, augment
        self._r1_weight, self._r1_every = r1_weight, r1_every

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {
            "generator": self._players.generator_optimizer,
            "discriminator": self._players.discriminator_optimizer,
        }

    def phases(self) -> Sequence[Phase]:
        discriminator = Phase("discriminator", "discriminator", self._discriminator_loss)
        generator = Phase("generator", "generator", self._generator_loss)
        if self._r1_weight == 0:
            return (discriminator, generator)
        penalty = Phase("r1", "discriminator", self._r1, every=self._r1_every)
        return (discriminator, penalty, generator)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Nothing adapts to the statistics here."""

    def _fake(self, condition: Condition, count: int, rng: torch.Generator) -> Tensor:
        z = torch.randn(count, self._players.latent_dim, generator=rng, device=rng.device)
        fake: Tensor = self._players.generator(z, condition)
        return self._augment(fake.float(), rng)

    def _discriminator_loss(
        self, batch: Batch, rng: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        with torch.no_grad():
            fake = self._fake(batch.condition, len(batch), rng)
        images = torch.cat([self._augment(batch.image, rng), fake])
        images = images.contiguous(memory_format=torch.channels_last)
        both = batch.condition.repeat_with(batch.condition)
        real_logits, fake_logits = self._players.discriminator(images, both).float().chunk(2)
        loss = self._losses.discriminator(real_logits, fake_logits)
        return loss, {"real": real_logits.mean(), "fake": fake_logits.mean()}

    def _generator_loss(
        self, batch: Batch, rng: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        fake = self._fake(batch.condition, len(batch), rng)
        logits = self._players.discriminator(fake, batch.condition).float()
        return self._losses.generator(logits), {}

    def _r1(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        real = self._augment(batch.image, rng).detach().requires_grad_(True)
        logits = self._players.discriminator(real, batch.condition).float()
        (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        penalty = gradient.float().square().sum((1, 2, 3)).mean()
        return penalty * (self._r1_weight / 2 * self._r1_every), {"penalty": penalty}
