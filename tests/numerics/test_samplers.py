"""Order of convergence and distribution of every registered sampler, on the closed-form world."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from izograf.core.rng import generator
from izograf.core.types import Condition, Denoise, NoiseSource, ignore
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import karras

ORDERS = {name: order for name in SAMPLERS if (order := SAMPLERS[name].order) is not None}
DETERMINISTIC = sorted(ORDERS)
RANDOM = sorted(set(SAMPLERS) - set(ORDERS))

ANY = Condition()
Noise = Callable[..., NoiseSource]


def no_noise() -> Tensor:
    raise AssertionError("a deterministic sampler must not draw noise")


def test_the_orders_are_those_of_the_papers() -> None:
    assert {"euler": 1, "heun": 2, "dpm-solver++": 2}.items() <= ORDERS.items()
    assert "ddpm" in RANDOM


def observed_order(solve: Callable[[int], Tensor], exact: Tensor, counts: list[int]) -> float:
    """Least-squares slope of -ln error against ln steps."""
    errors = [float((solve(count) - exact).norm()) for count in counts]
    assert min(errors) > 1e-11, f"errors {errors} are rounding: the slope would mean nothing"
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])


def uniform_in_log(count: int, start: float, end: float) -> Tensor:
    return torch.linspace(np.log(start), np.log(end), count + 1, dtype=torch.float64).exp()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_sampler_converges_with_its_order_on_single_gaussians(
    name: str, mixture: GaussianMixture
) -> None:
    """Linear equation, closed-form solution.

    A term of the error may vanish on it (the midpoint rule converges with order 3 here), so the
    stated order is only a lower bound; the mixture below bounds it from both sides.
    """
    condition = Condition(class_ids=torch.tensor([0, 1, 2, 0]))
    x = 3 * torch.randn(4, 3, 2, 2, generator=generator("tests", name), dtype=torch.float64)
    exact = mixture.probability_flow(x, 3.0, 0.05, condition)

    def solve(count: int) -> Tensor:
        sigmas = uniform_in_log(count, 3.0, 0.05)
        return SAMPLERS[name](mixture.denoise, x, sigmas, condition, no_noise, ignore)

    assert observed_order(solve, exact, [64, 128, 256]) >= ORDERS[name] - 0.1


@pytest.fixture(scope="module")
def reference(overlapping: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Points at sigma 2 and where the probability flow takes them at sigma 0.2."""
    x = 2 * torch.randn(6, 1, 1, 1, generator=generator("tests", "x"), dtype=torch.float64)
    exact = runge_kutta(overlapping.denoise, x, uniform_in_log(400, 2.0, 0.2))
    rougher = runge_kutta(overlapping.denoise, x, uniform_in_log(200, 2.0, 0.2))
    assert float((exact - rougher).abs().max()) < 1e-8, "the reference itself has not converged"
    return x, exact


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_sampler_converges_with_its_order_on_a_mixture(
    name: str, overlapping: GaussianMixture, reference: tuple[Tensor, Tensor]
) -> None:
    """Non-linear equation, reference by the classical Runge-Kutta method of order 4."""
    x, exact = reference

    def solve(count: int) -> Tensor:
        sigmas = uniform_in_log(count, 2.0, 0.2)
        return SAMPLERS[name](overlapping.denoise, x, sigmas, ANY, no_noise, ignore)

    assert observed_order(solve, exact, [64, 128, 256]) == pytest.approx(ORDERS[name], abs=0.1)


def runge_kutta(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """dx/dsigma = (x - D(x, sigma)) / sigma by the classical method (Hairer et al. 1993, II.1)."""

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        return (x - denoise(x, sigma.expand(len(x)), ANY)) / sigma

    for start, end in itertools.pairwise(sigmas):
        h, middle = end - start, (start + end) / 2
        first = slope(x, start)
        second = slope(x + h / 2 * first, middle)
        third = slope(x + h / 2 * second, middle)
        fourth = slope(x + h * third, end)
        x = x + h / 6 * (first + 2 * second + 2 * third + fourth)
    return x


def spread(covariance: Tensor, count: int) -> Tensor:
    """Five standard errors of an estimated covariance (Gaussian data), plus 0.03 for bias."""
    variances = covariance.diagonal()
    return 5 * ((covariance.square() + variances.outer(variances)) / count).sqrt() + 0.03


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_lands_on_the_data_distribution(
    name: str, mixture: GaussianMixture, batch_noise: Noise
) -> None:
    count = 3_000
    noise = batch_noise(count, *mixture.shape, seed=1)
    sigmas = karras(48, 0.01, 30.0)
    x = SAMPLERS[name](mixture.denoise, noise() * sigmas[0], sigmas, ANY, noise, ignore)
    mean, covariance = mixture.moments()
    # five standard errors, plus room for the bias of 48 steps of a method of order 1
    error = 5 * (covariance.diagonal() / count).sqrt() + 0.03
    assert bool(((x.flatten(1).mean(0) - mean).abs() < error).all())
    assert bool(((x.flatten(1).T.cov() - covariance).abs() < spread(covariance, count)).all())
    shares = mixture.class_probabilities(x, x.new_full((count,), 0.01)).mean(0)
    torch.testing.assert_close(shares, mixture.weights, rtol=0, atol=0.045)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_draws_each_picture_from_its_own_class(
    name: str, mixture: GaussianMixture, batch_noise: Noise
) -> None:
    ids = torch.arange(3).repeat_interleave(700)
    noise = batch_noise(len(ids), *mixture.shape, seed=2)
    sigmas = karras(48, 0.01, 30.0)
    condition = Condition(class_ids=ids)
    x = SAMPLERS[name](mixture.denoise, noise() * sigmas[0], sigmas, condition, noise, ignore)
    for class_id in range(3):
        mean, covariance = mixture.moments(class_id)
        drawn = x[ids == class_id].flatten(1)
        error = 5 * (covariance.diagonal() / len(drawn)).sqrt() + 0.02
        assert bool(((drawn.mean(0) - mean).abs() < error).all())
        assert bool(((drawn.T.cov() - covariance).abs() < spread(covariance, len(drawn))).all())


@pytest.mark.parametrize("name", RANDOM)
def test_stochastic_sampler_approaches_the_data_as_steps_are_refined(
    name: str, batch_noise: Noise
) -> None:
    """Mean and variance against the exact ones; at the end only the counting error is left."""
    variances = torch.tensor([[1.0, 0.04]], dtype=torch.float64)
    world = GaussianMixture(torch.ones(1), torch.tensor([[0.5, -1.0]]), variances)
    count = 20_000
    errors = []
    for steps in (8, 32, 128):
        noise = batch_noise(count, 2, 1, 1, seed=steps)
        sigmas = torch.cat([uniform_in_log(steps - 1, 20.0, 0.01), torch.zeros(1).double()])
        start = noise() * 20.0
        x = SAMPLERS[name](world.denoise, start, sigmas, ANY, noise, ignore).flatten(1)
        errors.append(float((x.var(0) / variances - 1).abs().max()))
        assert float((x.mean(0) - world.moments()[0]).abs().max()) < 0.06
    assert errors[0] > 2 * errors[1] > 4 * errors[2], f"no convergence: {errors}"
    assert errors[2] < 0.08


def test_ddpm_moments_follow_the_recursion_of_its_posterior(batch_noise: Noise) -> None:
    """Gaussian data keeps x Gaussian, so each step maps its variance in closed form.

    With D(x) = a x, a = c / (c + t^2), the mean of q(x_s | x_t, x0) is (a + r (1 - a)) x for
    r = s^2 / t^2, and its variance s^2 (1 - r) (Ho et al. 2020, eq. 7).
    """
    data, count = 0.3, 40_000
    world = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([data]))
    sigmas = uniform_in_log(6, 8.0, 0.1)
    variance = 8.0**2
    for t, s in itertools.pairwise(sigmas.tolist()):
        a, r = data / (data + t**2), s**2 / t**2
        variance = (a + r * (1 - a)) ** 2 * variance + s**2 * (1 - r)
    noise = batch_noise(count, 1, 1, 1, seed=3)
    x = SAMPLERS["ddpm"](world.denoise, 8.0 * noise(), sigmas, ANY, noise, ignore)
    assert float(x.var()) == pytest.approx(variance, rel=5 * (2 / count) ** 0.5)
    assert float(x.mean()) == pytest.approx(0.0, abs=5 * (variance / count) ** 0.5)


def test_ddpm_that_knows_the_picture_has_the_right_noise_after_every_step(
    batch_noise: Noise,
) -> None:
    """q(x_s | x_t, x0) averaged over x_t is q(x_s | x0), however long the step."""
    count = 40_000
    picture = torch.full((count, 1, 1, 1), 0.7, dtype=torch.float64)

    def oracle(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
        return picture

    for end in (4.0, 0.5):
        noise = batch_noise(count, 1, 1, 1, seed=4)
        sigmas = torch.tensor([9.0, 5.0, end], dtype=torch.float64)
        x = SAMPLERS["ddpm"](oracle, picture + 9.0 * noise(), sigmas, ANY, noise, ignore)
        assert float(x.std()) == pytest.approx(end, rel=5 * (0.5 / count) ** 0.5)
        assert float(x.mean()) == pytest.approx(0.7, abs=5 * end * count**-0.5)


def test_heun_beats_euler_at_equal_cost(mixture: GaussianMixture) -> None:
    condition = Condition(class_ids=torch.tensor([0, 1, 2]))
    x = 3 * torch.randn(3, 3, 2, 2, generator=generator("tests", "cost"), dtype=torch.float64)
    exact = mixture.probability_flow(x, 3.0, 0.05, condition)

    def error(name: str, count: int) -> Any:
        sigmas = uniform_in_log(count, 3.0, 0.05)
        end = SAMPLERS[name](mixture.denoise, x, sigmas, condition, no_noise, ignore)
        return (end - exact).norm()

    assert error("heun", 16) < error("euler", 32) / 2
    assert error("dpm-solver++", 32) < error("euler", 32) / 2
