"""Every registered reconstruction loss: nats per picture, least where the pictures agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from izograf.core.rng import generator
from izograf.objectives.perceptual import feature_distance
from izograf.objectives.reconstruction import RECONSTRUCTION_LOSSES

BATCH = 4


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Of two maps that a picture easily gives: itself, and its neighbouring differences."""

    def maps(image: Tensor) -> list[Tensor]:
        return [image + 2, (image[..., 1:] - image[..., :-1]).repeat(1, 2, 1, 1) + 0.1]

    return feature_distance(maps, first, second)


@pytest.fixture(params=RECONSTRUCTION_LOSSES)
def loss(request: pytest.FixtureRequest) -> nn.Module:
    return RECONSTRUCTION_LOSSES[request.param](distance)


def pictures(seed: int = 0, count: int = BATCH) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=generator("tests", "pictures", seed)) * 1.8 - 0.9


def test_one_finite_number_per_picture(loss: nn.Module) -> None:
    nats = loss(pictures(1), pictures())
    assert nats.shape == (BATCH,)
    assert nats.dtype == torch.float32
    assert bool(nats.isfinite().all())


def test_the_same_picture_costs_least_and_more_the_further_away(loss: nn.Module) -> None:
    image = pictures()
    noise = torch.randn(image.shape, generator=generator("tests", "noise"))
    with torch.no_grad():
        away = [loss(image.atanh() + scale * noise, image) for scale in (0, 0.1, 0.5, 2)]
    costs = [float(nats.mean()) for nats in away]
    assert costs == sorted(costs)
    assert costs[0] < costs[1]


def test_a_step_down_the_gradient_comes_closer_to_the_picture(loss: nn.Module) -> None:
    image = pictures()
    output = torch.zeros_like(image, requires_grad=True)
    before = loss(output, image).mean()
    (gradient,) = torch.autograd.grad(before, output)
    assert bool(gradient.isfinite().all())
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    step = 0.05 * gradient / gradient.norm()
    with torch.no_grad():
        assert float(loss(output - step, image).mean()) < float(before)


def test_saturated_outputs_and_extreme_pixels_stay_finite(loss: nn.Module) -> None:
    image = torch.where(pictures() > 0, 1.0, -1.0)
    output = torch.where(pictures(1) > 0, 60.0, -60.0).requires_grad_()
    nats = loss(output, image)
    nats.sum().backward()
    assert bool(nats.isfinite().all())
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())


def test_bfloat16_outputs_are_summed_in_float32(loss: nn.Module) -> None:
    image, output = pictures(), pictures(1)
    exact, coarse = loss(output, image), loss(output.bfloat16(), image)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, rtol=0.02, atol=0.5)


def test_the_order_of_the_pictures_does_not_matter(loss: nn.Module) -> None:
    image, output = pictures(), pictures(1)
    torch.testing.assert_close(loss(output.flip(0), image.flip(0)), loss(output, image).flip(0))


def test_a_perceptual_loss_without_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a distance"):
        RECONSTRUCTION_LOSSES["perceptual"](None)


def test_the_perceptual_loss_sees_what_pixels_do_not() -> None:
    """Two errors of the same size: one of brightness, one of structure."""
    image = pictures().sign() * 0.3
    checks = torch.ones(8, 8)
    checks[::2, ::2] = checks[1::2, 1::2] = -1
    flat, structured = (image + 0.1).atanh(), (image + 0.1 * checks).atanh()
    plain = RECONSTRUCTION_LOSSES["sigma-vae"](None)
    seen = RECONSTRUCTION_LOSSES["perceptual"](distance)
    torch.testing.assert_close(plain(flat, image), plain(structured, image))
    assert float(seen(structured, image).mean()) > float(seen(flat, image).mean()) + 10
