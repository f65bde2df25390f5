"""The closed-form world itself: every formula against an independent way to the same number."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from izograf.core.rng import generator
from izograf.core.types import Condition
from izograf.diffusion.gaussian_mixture import GaussianMixture

ANY = Condition()


def class_ids(*ids: int) -> Condition:
    return Condition(class_ids=torch.tensor(ids))


def points(mixture: GaussianMixture, count: int, *, spread: float = 2.0) -> Tensor:
    rng = generator("tests", "points")
    return spread * torch.randn(count, *mixture.shape, generator=rng, dtype=torch.float64)


def levels(*sigmas: float) -> Tensor:
    return torch.tensor(sigmas, dtype=torch.float64)


def test_denoiser_is_the_posterior_mean_found_by_integration(overlapping: GaussianMixture) -> None:
    x, sigma = points(overlapping, 5), levels(0.1, 0.3, 1.0, 3.0, 0.5)
    grid = torch.linspace(-4, 4, 4_001, dtype=torch.float64)
    prior = overlapping.log_density(
        grid[:, None, None, None], torch.zeros(len(grid), dtype=torch.float64), ANY
    ).exp()
    for i in range(len(x)):
        likelihood = torch.exp(-0.5 * ((x[i].item() - grid) / sigma[i]).square())
        weight = prior * likelihood
        expected = (weight @ grid) / weight.sum()
        denoised = overlapping.denoise(x[i : i + 1], sigma[i : i + 1], ANY)
        torch.testing.assert_close(denoised.squeeze(), expected, rtol=1e-9, atol=1e-9)


def test_log_density_agrees_with_torch_distributions(mixture: GaussianMixture) -> None:
    x, sigma = points(mixture, 4), levels(0.0, 0.2, 1.0, 5.0)
    logs = mixture.log_density(x, sigma, ANY)
    for i, level in enumerate(sigma):
        noisy = mixture.covariances + level**2 * torch.eye(12, dtype=torch.float64)
        components = MultivariateNormal(mixture.means.flatten(1), noisy)
        expected = (components.log_prob(x[i].flatten()) + mixture.weights.log()).logsumexp(0)
        torch.testing.assert_close(logs[i], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("condition", [ANY, class_ids(0, 1, 2, -1)])
def test_score_is_the_gradient_of_the_log_density(
    mixture: GaussianMixture, condition: Condition
) -> None:
    x, sigma = points(mixture, 4).requires_grad_(True), levels(0.05, 0.2, 1.0, 5.0)
    (gradient,) = torch.autograd.grad(mixture.log_density(x, sigma, condition).sum(), x)
    torch.testing.assert_close(mixture.score(x, sigma, condition), gradient)


def test_tweedie_relates_the_denoiser_to_the_score(mixture: GaussianMixture) -> None:
    x, sigma = points(mixture, 4), levels(0.05, 0.2, 1.0, 5.0)
    denoised = mixture.denoise(x, sigma, ANY)
    slope = (denoised - x) / sigma.square()[:, None, None, None]
    torch.testing.assert_close(mixture.score(x, sigma, ANY), slope)


def test_denoiser_keeps_the_picture_without_noise_and_forgets_it_in_noise(
    mixture: GaussianMixture,
) -> None:
    x = points(mixture, 3)
    nearly = mixture.denoise(x, levels(1e-6, 1e-6, 1e-6), ANY)
    torch.testing.assert_close(nearly, x, rtol=0, atol=1e-8)
    lost = mixture.denoise(x, levels(1e6, 1e6, 1e6), ANY)
    mean, _ = mixture.moments()
    torch.testing.assert_close(lost.flatten(1), mean.expand(3, -1), rtol=0, atol=1e-5)


def test_class_ids_select_components_and_minus_one_selects_all(mixture: GaussianMixture) -> None:
    x, sigma = points(mixture, 4), levels(1.0, 1.0, 1.0, 1.0)
    mixed = mixture.denoise(x, sigma, class_ids(0, -1, 2, 1))
    for row, class_id in enumerate((0, -1, 2, 1)):
        alone = mixture
        if class_id >= 0:
            alone = GaussianMixture(
                torch.ones(1),
                mixture.means[class_id : class_id + 1],
                mixture.covariances[class_id : class_id + 1],
            )
        expected = alone.denoise(x[row : row + 1], sigma[:1], ANY)
        torch.testing.assert_close(mixed[row : row + 1], expected)
    assert not torch.allclose(mixed, mixture.denoise(x, sigma, ANY))


def test_an_unknown_class_is_refused(mixture: GaussianMixture) -> None:
    with pytest.raises(ValueError, match="has no class 7"):
        mixture.denoise(points(mixture, 1), levels(1.0), class_ids(7))


def test_class_probabilities_are_bayes_rule(overlapping: GaussianMixture) -> None:
    x, sigma = points(overlapping, 6), levels(0.1, 0.2, 0.5, 1.0, 2.0, 9.0)
    probabilities = overlapping.class_probabilities(x, sigma)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6, dtype=torch.float64))
    everything = overlapping.log_density(x, sigma, ANY)
    for class_id in (0, 1):
        within = overlapping.log_density(x, sigma, class_ids(*[class_id] * 6))
        prior = overlapping.weights[overlapping.classes == class_id].sum()
        torch.testing.assert_close(probabilities[:, class_id], prior * (within - everything).exp())


@pytest.mark.parametrize("class_id", [-1, 0, 2])
def test_samples_have_the_exact_moments(mixture: GaussianMixture, class_id: int) -> None:
    count = 20_000
    condition = class_ids(*[class_id] * count)
    drawn = mixture.sample(count, generator("tests", "draw"), condition).flatten(1)
    mean, covariance = mixture.moments(class_id)
    error = 5 * (covariance.diagonal() / count).sqrt()
    assert bool(((drawn.mean(0) - mean).abs() < error).all())
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0, atol=0.04)


def test_scalar_diagonal_and_full_covariances_are_one_thing() -> None:
    weights, means = torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.5], [1.0, 0.0]])
    variances = torch.tensor([0.3, 0.1])
    described = [
        variances,
        variances[:, None].expand(2, 2),
        variances[:, None, None] * torch.eye(2),
    ]
    worlds = [GaussianMixture(weights, means, covariances) for covariances in described]
    x = points(worlds[0], 3)
    results = [world.denoise(x, levels(0.2, 1.0, 3.0), ANY) for world in worlds]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    torch.testing.assert_close(results[0], results[2])
    assert worlds[0].shape == (2, 1, 1)


def test_points_without_variance_are_the_denoiser_of_a_finite_data_set() -> None:
    data = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    world = GaussianMixture(torch.ones(3), data, torch.zeros(3))
    x = torch.tensor([[[[0.9]]]], dtype=torch.float64)
    weights = torch.exp(-0.5 * (x.flatten() - data.flatten()).square() / 0.7**2)
    expected = (weights @ data.flatten()) / weights.sum()
    torch.testing.assert_close(world.denoise(x, levels(0.7), ANY).squeeze(), expected)


def test_results_come_in_the_dtype_of_x(mixture: GaussianMixture) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = points(mixture, 2).to(dtype)
        sigma = levels(0.5, 2.0).to(dtype)
        assert mixture.denoise(x, sigma, ANY).dtype == dtype
        assert mixture.score(x, sigma, ANY).dtype == dtype


def test_posterior_is_bayes_rule_up_to_a_constant(mixture: GaussianMixture) -> None:
    """ln p(x0 | y) - ln p(x0) - ln p(y | x0) is the same number for every x0."""
    operator = torch.randn(5, 12, generator=generator("tests", "operator"), dtype=torch.float64)
    truth = mixture.sample(1, generator("tests", "truth"))
    measured = operator @ truth.flatten() + 0.1
    posterior = mixture.posterior(measured, operator, 0.3)
    x = points(mixture, 6, spread=0.5)
    zero = torch.zeros(6, dtype=torch.float64)
    residual = (measured - x.flatten(1) @ operator.mT) / 0.3
    log_likelihood = -0.5 * residual.square().sum(1)
    constant = (
        posterior.log_density(x, zero, ANY) - mixture.log_density(x, zero, ANY) - log_likelihood
    )
    torch.testing.assert_close(constant, constant[:1].expand(6), rtol=1e-8, atol=1e-8)


def test_posterior_without_noise_satisfies_the_measurement(mixture: GaussianMixture) -> None:
    operator = torch.eye(12, dtype=torch.float64)[:4]
    truth = mixture.sample(1, generator("tests", "truth")).flatten()
    posterior = mixture.posterior(truth[:4], operator, 0.0)
    drawn = posterior.sample(50, generator("tests", "draw")).flatten(1)
    torch.testing.assert_close(drawn[:, :4], truth[:4].expand(50, 4), rtol=0, atol=1e-5)
    assert float(drawn[:, 4:].var(0).min()) > 1e-3


def test_two_measurements_one_after_the_other_are_the_two_at_once(
    mixture: GaussianMixture,
) -> None:
    operator = torch.randn(6, 12, generator=generator("tests", "operator"), dtype=torch.float64)
    y = torch.randn(6, generator=generator("tests", "y"), dtype=torch.float64)
    at_once = mixture.posterior(y, operator, 0.5)
    in_turn = mixture.posterior(y[:2], operator[:2], 0.5).posterior(y[2:], operator[2:], 0.5)
    torch.testing.assert_close(in_turn.means, at_once.means)
    torch.testing.assert_close(in_turn.covariances, at_once.covariances)
    torch.testing.assert_close(in_turn.weights, at_once.weights)


def test_probability_flow_solves_its_equation(mixture: GaussianMixture) -> None:
    """Against small steps of the classical Runge-Kutta method, of order 4."""
    condition, x = class_ids(0, 1, 2), points(mixture, 3)

    def slope(x: Tensor, sigma: float) -> Tensor:
        return -sigma * mixture.score(x, levels(*[sigma] * 3), condition)

    moved, grid = x, torch.linspace(2.0, 0.5, 201, dtype=torch.float64).tolist()
    for start, end in itertools.pairwise(grid):
        h, middle = end - start, (start + end) / 2
        first = slope(moved, start)
        second = slope(moved + h / 2 * first, middle)
        third = slope(moved + h / 2 * second, middle)
        fourth = slope(moved + h * third, end)
        moved = moved + h / 6 * (first + 2 * second + 2 * third + fourth)
    exact = mixture.probability_flow(x, 2.0, 0.5, condition)
    torch.testing.assert_close(moved, exact, rtol=0, atol=1e-8)
    assert float((exact - x).abs().max()) > 0.1


def test_probability_flow_there_and_back_is_the_identity(mixture: GaussianMixture) -> None:
    condition, x = class_ids(2, 0), points(mixture, 2)
    back = mixture.probability_flow(
        mixture.probability_flow(x, 1.5, 0.0, condition), 0.0, 1.5, condition
    )
    torch.testing.assert_close(back, x)


def test_probability_flow_of_several_components_is_refused(mixture: GaussianMixture) -> None:
    with pytest.raises(ValueError, match="one component only"):
        mixture.probability_flow(points(mixture, 2), 1.0, 0.0, class_ids(0, -1))


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        (torch.tensor([1.0, 0.0]), torch.zeros(2, 1), torch.ones(2), "positive numbers"),
        (torch.ones(3), torch.zeros(2, 1), torch.ones(2), "2 positive numbers"),
        (torch.ones(2), torch.zeros(2), torch.ones(2), "means must be"),
        (torch.ones(2), torch.zeros(2, 3), torch.ones(2, 4), "covariances must be"),
        (torch.ones(1), torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), "semi-definite"),
        (torch.ones(1), torch.zeros(1, 2), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), "semi-def"),
        (torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]), "symmetric"),
    ],
)
def test_impossible_mixtures_are_refused(
    weights: Tensor, means: Tensor, covariances: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(weights, means, covariances)
