"""Every registered adversarial loss is a game: each player gains where the other loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from izograf.objectives.adversarial import ADVERSARIAL_LOSSES, AdversarialLoss

LEVELS = torch.arange(-6.0, 6.25, 0.25)


def undecided(loss: AdversarialLoss) -> list[float]:
    """The levels on either side of which the discriminator is rewarded for telling apart.

    A real image below such a level is pushed up and a fake above it down. For the losses of a
    margin or a likelihood that is so at many levels, for least squares (Mao et al. 2017) only
    between the two targets: beyond its target a logit is pulled back.
    """
    real, fake = LEVELS.clone().requires_grad_(), LEVELS.clone().requires_grad_()
    on_real, on_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    return [
        float(level)
        for i, level in enumerate(LEVELS)
        if (on_real[: i + 1] < 0).all() and (on_fake[i:] > 0).all()
    ]


def contested(loss: AdversarialLoss) -> list[float]:
    """Of those, the levels up to which the generator is rewarded for higher logits."""
    fake = LEVELS.clone().requires_grad_()
    (on_fake,) = torch.autograd.grad(loss.generator(fake), fake)
    return [level for level in undecided(loss) if (on_fake[level >= LEVELS] < 0).all()]


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_the_discriminator_is_rewarded_for_telling_real_from_fake(name: str) -> None:
    assert undecided(ADVERSARIAL_LOSSES[name]), (
        "raising the logits of real images must lower the loss, raising those of fakes raise it"
    )


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_the_generator_is_rewarded_for_higher_logits_where_it_is_found_out(name: str) -> None:
    assert contested(ADVERSARIAL_LOSSES[name]), "the generator must raise what D lowers"


def least_squares(real_target: float, fake_target: float, goal: float) -> AdversarialLoss:
    """Mao et al. 2017, eq. 2: the targets of the discriminator, and what the generator aims at."""
    return AdversarialLoss(
        lambda real, fake: ((real - real_target) ** 2 + (fake - fake_target) ** 2).mean() / 2,
        lambda fake: ((fake - goal) ** 2).mean() / 2,
    )


GAMES: Mapping[str, AdversarialLoss] = {
    **ADVERSARIAL_LOSSES,
    "least squares 0, 1": least_squares(1, 0, 1),
    "least squares -1, 1": least_squares(1, -1, 1),
    "least squares, Pearson": least_squares(1, -1, 0),
}


def swapped(loss: AdversarialLoss) -> AdversarialLoss:
    """The discriminator takes real for fake."""
    return loss._replace(discriminator=lambda real, fake: loss.discriminator(fake, real))


def rising(loss: AdversarialLoss) -> AdversarialLoss:
    """The discriminator climbs what it should descend."""
    return loss._replace(discriminator=lambda real, fake: -loss.discriminator(real, fake))


def climbing_real(loss: AdversarialLoss) -> AdversarialLoss:
    """Only the term of the real images has the wrong sign."""

    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        return loss.discriminator(real.detach(), fake) - loss.discriminator(real, fake.detach())

    return loss._replace(discriminator=discriminator)


def climbing_fake(loss: AdversarialLoss) -> AdversarialLoss:
    """Only the term of the fakes has the wrong sign."""

    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        return loss.discriminator(real, fake.detach()) - loss.discriminator(real.detach(), fake)

    return loss._replace(discriminator=discriminator)


def conceding(loss: AdversarialLoss) -> AdversarialLoss:
    """The generator climbs what it should descend."""
    return loss._replace(generator=lambda fake: -loss.generator(fake))


def colluding(loss: AdversarialLoss) -> AdversarialLoss:
    """The generator helps the discriminator."""
    return loss._replace(generator=lambda fake: loss.discriminator(torch.zeros_like(fake), fake))


@pytest.mark.parametrize("name", GAMES)
def test_a_sound_loss_passes_both(name: str) -> None:
    assert contested(GAMES[name])


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize(
    "damage", [swapped, rising, climbing_real, climbing_fake, conceding, colluding]
)
def test_a_sign_error_fails_one_of_them(
    name: str, damage: Callable[[AdversarialLoss], AdversarialLoss]
) -> None:
    assert not contested(damage(GAMES[name]))


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_losses_are_finite_scalars_even_for_a_won_game(name: str) -> None:
    losses = ADVERSARIAL_LOSSES[name]
    sure = torch.full((3,), 200.0)
    values = (losses.discriminator(sure, -sure), losses.generator(-sure))
    for value in values:
        assert value.shape == ()
        assert torch.isfinite(value)
