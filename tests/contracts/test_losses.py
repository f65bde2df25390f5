"""Every registered adversarial loss is a game: each player gains where the other loses."""

from __future__ import annotations

import pytest
import torch

from izograf.objectives.adversarial import ADVERSARIAL_LOSSES


@pytest.mark.parametrize("name", list(ADVERSARIAL_LOSSES))
def test_the_discriminator_is_rewarded_for_telling_real_from_fake(name: str) -> None:
    loss = ADVERSARIAL_LOSSES[name].discriminator
    real = torch.zeros(4, requires_grad=True)
    fake = torch.zeros(4, requires_grad=True)
    loss(real, fake).backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert (real.grad < 0).all(), "raising the logits of real images must lower the loss"
    assert (fake.grad > 0).all(), "raising the logits of fakes must raise the loss"


@pytest.mark.parametrize("name", list(ADVERSARIAL_LOSSES))
@pytest.mark.parametrize("level", [-3.0, 0.0, 3.0])
def test_the_generator_is_always_rewarded_for_higher_logits(name: str, level: float) -> None:
    fake = torch.full((4,), level, requires_grad=True)
    ADVERSARIAL_LOSSES[name].generator(fake).backward()
    assert fake.grad is not None
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("name", list(ADVERSARIAL_LOSSES))
def test_losses_are_finite_scalars_even_for_a_won_game(name: str) -> None:
    losses = ADVERSARIAL_LOSSES[name]
    sure = torch.full((3,), 200.0)
    values = (losses.discriminator(sure, -sure), losses.generator(-sure))
    for value in values:
        assert value.shape == ()
        assert torch.isfinite(value)
