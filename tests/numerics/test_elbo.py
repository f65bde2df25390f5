"""The terms of the evidence lower bound against torch's distributions and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from izograf.core.rng import generator
from izograf.models.vae import fit_gaussian
from izograf.objectives.elbo import (
    ElboConfig,
    charged_kl,
    gaussian_kl,
    num_active,
    psnr,
    sampled,
)
from izograf.objectives.reconstruction import (
    SMALLEST_DEVIATION,
    LearnedGaussian,
    binary_cross_entropy,
    gaussian,
    mean_squared_error,
    optimal_gaussian,
)

real = st.floats(-5, 5)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator("tests", "elbo", seed))


@given(real, real)
def test_kl_is_that_of_the_two_normal_distributions(mean: float, log_variance: float) -> None:
    ours = gaussian_kl(
        torch.tensor(mean, dtype=torch.float64), torch.tensor(log_variance, dtype=torch.float64)
    )
    one = torch.ones((), dtype=torch.float64)
    posterior = Normal(mean * one, math.exp(log_variance / 2) * one)
    assert float(ours) == pytest.approx(float(kl_divergence(posterior, Normal(0 * one, one))))
    assert float(ours) >= -1e-12


def test_kl_is_zero_at_the_prior_alone() -> None:
    zero = torch.zeros(3)
    assert torch.equal(gaussian_kl(zero, zero), zero)
    assert (gaussian_kl(torch.tensor([0.1, 0.0]), torch.tensor([0.0, 0.1])) > 0).all()


def test_codes_of_a_posterior_have_its_moments() -> None:
    mean = torch.tensor([1.0, -2.0]).expand(40_000, 2)
    log_variance = torch.tensor([0.0, -3.0]).expand(40_000, 2)
    codes = sampled(mean, log_variance, generator("tests"))
    assert codes.mean(0).tolist() == pytest.approx([1, -2], abs=0.02)
    assert codes.var(0).log().tolist() == pytest.approx([0, -3], abs=0.03)
    assert torch.equal(sampled(mean, None, generator("tests")), mean)


def test_free_bits_charge_each_dimension_at_least_their_number() -> None:
    kl = torch.tensor([[0.0, 1.0, 4.0], [0.2, 3.0, 0.0]])
    assert float(charged_kl(kl, 0.0)) == pytest.approx(0.1 + 2 + 2)
    assert float(charged_kl(kl, 0.5)) == pytest.approx(0.5 + 2 + 2)
    assert float(charged_kl(kl, 3.0)) == pytest.approx(9)


def test_a_dimension_below_its_free_bits_is_not_pushed_further_down() -> None:
    kl = torch.tensor([[0.1, 1.0], [0.3, 3.0]], requires_grad=True)
    charged_kl(kl, 0.5).backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [[0, 0.5], [0, 0.5]]


@given(st.floats(0, 10), st.floats(0.01, 1), st.integers(0, 2_000), st.integers(1, 1_000))
def test_beta_rises_linearly_to_its_value(
    beta: float, share: float, images: int, total: int
) -> None:
    config = ElboConfig(beta=beta, beta_warmup=share)
    assert config.weight(0, total) == 0
    assert config.weight(total, total) == pytest.approx(beta)
    expected = beta * min(1.0, images / (share * total))
    assert config.weight(images, total) == pytest.approx(expected)
    assert ElboConfig(beta=beta, beta_warmup=0).weight(images, total) == beta


@pytest.mark.parametrize(
    ("field", "value"),
    [("beta", -1), ("beta", math.nan), ("beta_warmup", 1.5), ("free_bits", -0.1)],
)
def test_impossible_bounds_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        ElboConfig(**{field: value})


def test_active_units_are_those_that_vary_with_the_picture() -> None:
    means = normal(1_000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0]) + 3
    assert int(num_active(means)) == 2


def test_a_collapsed_posterior_has_no_active_unit() -> None:
    assert int(num_active(torch.zeros(100, 8))) == 0


def test_the_gaussian_is_torchs() -> None:
    image, output, sigma = normal(3, 3, 4, 4).tanh(), normal(3, 3, 4, 4, seed=1), 0.3
    expected = -Normal(output.tanh(), sigma).log_prob(image).flatten(1).sum(1)
    errors = (image - output.tanh()).square().flatten(1).sum(1)
    ours = gaussian(errors, torch.tensor(2 * math.log(sigma)), image[0].numel())
    torch.testing.assert_close(ours, expected)


def test_the_optimal_variance_is_the_best_there_is() -> None:
    image, output = normal(5, 3, 4, 4).tanh(), normal(5, 3, 4, 4, seed=1)
    best = float(optimal_gaussian(output, image).mean())
    for sigma in torch.linspace(0.1, 3, 60):
        other = -Normal(output.tanh(), sigma).log_prob(image).flatten(1).sum(1).mean()
        assert best <= float(other) + 1e-3
    size = image[0].numel()
    variance = (image - output.tanh()).square().mean()
    assert best == pytest.approx(size / 2 * (math.log(2 * math.pi * float(variance)) + 1), rel=1e-5)


def test_the_gradient_of_the_optimal_gaussian_is_that_of_the_logarithm_of_the_error() -> None:
    """D / 2 ln MSE (Rybkin et al. 2021, eq. 8), although no gradient goes through the variance."""
    image = normal(5, 3, 4, 4).tanh()
    first, second = (normal(5, 3, 4, 4, seed=1).requires_grad_() for _ in range(2))
    optimal_gaussian(first, image).mean().backward()
    error = (second.tanh() - image).square().mean()
    (image[0].numel() / 2 * error.log()).backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_a_learned_variance_descends_to_the_optimal_one() -> None:
    image, output = normal(5, 3, 4, 4).tanh() * 0.2, torch.zeros(5, 3, 4, 4)
    learned = LearnedGaussian()
    descent = torch.optim.Adam(learned.parameters(), lr=0.05)
    for _ in range(400):
        descent.zero_grad()
        learned(output, image).mean().backward()
        descent.step()
    deviation = float(learned.log_deviation.detach().exp())
    assert deviation == pytest.approx(float(image.square().mean().sqrt()), rel=1e-3)
    best = float(optimal_gaussian(output, image).mean())
    assert float(learned(output, image).detach().mean()) == pytest.approx(best, abs=1e-3)


def test_a_learned_variance_finds_back_from_below_its_bound() -> None:
    image, output = normal(2, 3, 4, 4).tanh(), torch.zeros(2, 3, 4, 4)
    learned = LearnedGaussian()
    with torch.no_grad():
        learned.unbounded.fill_(math.log(SMALLEST_DEVIATION) - 5)
    learned(output, image).mean().backward()
    assert learned.unbounded.grad is not None
    assert float(learned.unbounded.grad) < -1


def test_a_perfect_reconstruction_is_worth_no_more_than_the_rounding_of_pixels_allows() -> None:
    image = normal(2, 3, 4, 4).tanh()
    nats = optimal_gaussian(image.atanh(), image)
    floor = image[0].numel() * math.log(SMALLEST_DEVIATION * math.sqrt(2 * math.pi))
    assert nats.tolist() == pytest.approx([floor, floor], rel=1e-3)


def test_cross_entropy_of_black_and_white_is_the_bernoulli_likelihood() -> None:
    image = (normal(4, 1, 3, 3) > 0).float() * 2 - 1
    output = normal(4, 1, 3, 3, seed=1)
    chance = (output.tanh() + 1) / 2
    expected = -torch.where(image > 0, chance, 1 - chance).log().flatten(1).sum(1)
    torch.testing.assert_close(binary_cross_entropy(output, image), expected)


def test_half_the_squared_error_is_the_gaussian_of_unit_variance() -> None:
    image, output = normal(3, 3, 4, 4).tanh(), normal(3, 3, 4, 4, seed=1)
    constant = image[0].numel() / 2 * math.log(2 * math.pi)
    full = -Normal(output.tanh(), 1.0).log_prob(image).flatten(1).sum(1)
    torch.testing.assert_close(mean_squared_error(output, image), full - constant)


def test_psnr_is_that_of_pixels_with_a_peak_of_two() -> None:
    image = torch.zeros(2, 3, 4, 4)
    assert float(psnr(image + 0.2, image)) == pytest.approx(20)


@given(st.integers(1, 6), st.integers(2, 200))
def test_a_fitted_gaussian_can_always_be_inverted(dimension: int, count: int) -> None:
    mean, factor = fit_gaussian(normal(count, dimension, seed=dimension) * 3 + 1)
    assert mean.shape == (dimension,)
    assert torch.equal(factor, factor.tril())
    assert (factor.diagonal() > 0).all()


def test_a_fitted_gaussian_has_the_moments_of_the_codes() -> None:
    mixing = normal(4, 4, seed=3)
    codes = normal(50_000, 4, seed=4) @ mixing.T + torch.tensor([1.0, 2.0, 3.0, 4.0])
    mean, factor = fit_gaussian(codes)
    torch.testing.assert_close(mean, codes.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(factor @ factor.T, codes.T.cov(), atol=0.02, rtol=0.01)


def test_codes_that_never_vary_have_a_gaussian_as_well() -> None:
    mean, factor = fit_gaussian(torch.full((10, 3), 2.0))
    assert mean.tolist() == [2, 2, 2]
    assert bool(factor.isfinite().all())
    assert (factor.diagonal() > 0).all()
