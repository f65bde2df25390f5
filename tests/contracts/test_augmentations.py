"""Every differentiable augmentation keeps shapes, passes gradients, and follows its generator."""

from __future__ import annotations

import pytest
import torch

from izograf.core.rng import generator
from izograf.data.augment import DIFFERENTIABLE, differentiable_augmentation

NAMES = list(DIFFERENTIABLE)


def pictures(*parts: int) -> torch.Tensor:
    return torch.rand(6, 3, 16, 16, generator=generator("pictures", *parts)) * 2 - 1


@pytest.mark.parametrize("name", NAMES)
def test_shape_and_dtype_are_kept(name: str) -> None:
    image = pictures()
    changed = DIFFERENTIABLE[name](image, generator(1))
    assert changed.shape == image.shape
    assert changed.dtype == image.dtype
    assert not torch.equal(changed, image)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_gives_the_same_result(name: str) -> None:
    image = pictures()
    first, again, other = (DIFFERENTIABLE[name](image, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_the_images(name: str) -> None:
    image = pictures().requires_grad_(True)
    DIFFERENTIABLE[name](image, generator(1)).square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_not_changed_in_place(name: str) -> None:
    image = pictures()
    before = image.clone()
    DIFFERENTIABLE[name](image, generator(1))
    assert torch.equal(image, before)


def test_a_policy_applies_its_steps_in_order() -> None:
    image, rng, same = pictures(), generator(1), generator(1)
    whole = differentiable_augmentation(("translation", "cutout"))(image, rng)
    moved = DIFFERENTIABLE["translation"](image, same)
    assert torch.equal(whole, DIFFERENTIABLE["cutout"](moved, same))


def test_translation_moves_content_without_changing_it() -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8, 8] = 1.0
    moved = DIFFERENTIABLE["translation"](image.expand(64, -1, -1, -1), generator(3))
    assert torch.equal(moved.sum((2, 3)), torch.ones(64, 3))
    positions = {tuple(p.nonzero()[0].tolist()) for p in moved[:, 0]}
    assert len(positions) > 5
    assert all(abs(y - 8) <= 2 and abs(x - 8) <= 2 for y, x in positions)


def test_cutout_removes_at_most_a_quarter() -> None:
    image = torch.ones(64, 3, 16, 16)
    removed = 1 - DIFFERENTIABLE["cutout"](image, generator(3)).mean((1, 2, 3))
    assert removed.max() <= 0.25 + 1e-6
    assert removed.max() > 0.2
