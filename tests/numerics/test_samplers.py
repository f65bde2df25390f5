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
# a sampler for students only has no distribution of its own on the denoiser of the data
RANDOM = sorted(name for name in set(SAMPLERS) - set(ORDERS) if SAMPLERS[name].any_model)

# (sampler, options, order): the stated orders of the defaults, and those of the papers otherwise
Method = tuple[str, dict[str, Any], int]
DETERMINISTIC: list[Method] = [
    *((name, {}, order) for name, order in ORDERS.items()),
    ("euler-ancestral", {"eta": 0.0}, 1),
    ("dpm-solver++-sde", {"eta": 0.0}, 2),
    ("dpm-solver", {"solver_order": 1}, 1),
    ("dpm-solver", {"solver_order": 2}, 2),
    ("plms", {"warm_up": "runge-kutta"}, 2),
    ("plms", {"combines": "velocity"}, 1),
    ("unipc", {"solver_order": 1}, 2),
    ("unipc", {"b_h": "bh1"}, 3),
]
# (sampler, options): draw noise and have the data's distribution as their limit
STOCHASTIC: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in RANDOM),
    ("ddim", {"eta": 1.0}),
    ("ddim", {"eta": 0.5}),
    ("dpm-solver++-sde", {"eta": 0.5}),
]
EVERY = [(name, {}) for name in ORDERS] + STOCHASTIC

ANY = Condition()
Noise = Callable[..., NoiseSource]


def no_noise() -> Tensor:
    raise AssertionError("a deterministic sampler must not draw noise")


def test_the_orders_are_those_of_the_papers() -> None:
    assert {
        "euler": 1, "ddim": 1, "heun": 2, "plms": 2, "dpm-solver": 3, "dpm-solver++": 2,
        "dpm-solver++-2s": 2, "unipc": 3,
    }.items() <= ORDERS.items()  # fmt: skip
    assert {"ddpm", "euler-ancestral", "dpm-solver++-sde"} <= set(RANDOM)


def observed_order(solve: Callable[[int], Tensor], exact: Tensor, counts: list[int]) -> float:
    """Least-squares slope of -ln error against ln steps."""
    errors = [float((solve(count) - exact).norm()) for count in counts]
    assert min(errors) > 1e-11, f"errors {errors} are rounding: the slope would mean nothing"
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])


def uniform_in_log(count: int, start: float, end: float) -> Tensor:
    return torch.linspace(np.log(start), np.log(end), count + 1, dtype=torch.float64).exp()


@pytest.mark.parametrize(("name", "options", "order"), DETERMINISTIC)
def test_sampler_converges_with_its_order_on_single_gaussians(
    name: str, options: dict[str, Any], order: int, mixture: GaussianMixture
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
        return SAMPLERS[name](mixture.denoise, x, sigmas, condition, no_noise, ignore, **options)

    assert observed_order(solve, exact, [66, 132, 264]) >= order - 0.1


@pytest.fixture(scope="module")
def reference(overlapping: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Points at sigma 2 and where the probability flow takes them at sigma 0.2."""
    x = 2 * torch.randn(6, 1, 1, 1, generator=generator("tests", "x"), dtype=torch.float64)
    exact = runge_kutta(overlapping.denoise, x, uniform_in_log(400, 2.0, 0.2))
    rougher = runge_kutta(overlapping.denoise, x, uniform_in_log(200, 2.0, 0.2))
    assert float((exact - rougher).abs().max()) < 1e-8, "the reference itself has not converged"
    return x, exact


@pytest.mark.parametrize(("name", "options", "order"), DETERMINISTIC)
def test_sampler_converges_with_its_order_on_a_mixture(
    name: str,
    options: dict[str, Any],
    order: int,
    overlapping: GaussianMixture,
    reference: tuple[Tensor, Tensor],
) -> None:
    """Non-linear equation, reference by the classical Runge-Kutta method of order 4."""
    x, exact = reference

    def solve(count: int) -> Tensor:
        sigmas = uniform_in_log(count, 2.0, 0.2)
        return SAMPLERS[name](overlapping.denoise, x, sigmas, ANY, no_noise, ignore, **options)

    assert observed_order(solve, exact, [66, 132, 264]) == pytest.approx(order, abs=0.1)


def uniform_in_angle(count: int) -> Tensor:
    """Smoothly spaced from 2 to 0.2, and far from uniform in ln sigma: the cosine schedule's."""
    return torch.linspace(np.arctan(2.0), np.arctan(0.2), count + 1, dtype=torch.float64).tan()


@pytest.mark.parametrize(("name", "options", "order"), DETERMINISTIC)
def test_the_order_holds_on_any_smooth_spacing(
    name: str,
    options: dict[str, Any],
    order: int,
    overlapping: GaussianMixture,
    reference: tuple[Tensor, Tensor],
) -> None:
    """Singlestep methods then have inner points anywhere, multistep ones unequal steps."""
    x, exact = reference

    def solve(count: int) -> Tensor:
        sigmas = uniform_in_angle(count)
        return SAMPLERS[name](overlapping.denoise, x, sigmas, ANY, no_noise, ignore, **options)

    assert observed_order(solve, exact, [66, 132, 264]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("warm_up", "order"), [("heun", 3), ("runge-kutta", 4)])
def test_plms_has_the_order_of_its_start_on_levels_uniform_in_sigma(
    warm_up: str, order: int, overlapping: GaussianMixture
) -> None:
    """Adams-Bashforth of order 4; Heun's step and the one with two slopes err by h^3 once each."""
    x = 0.6 * torch.randn(6, 1, 1, 1, generator=generator("tests", "x"), dtype=torch.float64)

    def levels(count: int) -> Tensor:
        return torch.linspace(0.6, 0.3, count + 1, dtype=torch.float64)

    def solve(count: int) -> Tensor:
        return SAMPLERS["plms"](
            overlapping.denoise, x, levels(count), ANY, no_noise, ignore, warm_up=warm_up
        )

    exact = runge_kutta(overlapping.denoise, x, levels(1000))
    assert observed_order(solve, exact, [32, 64, 128]) == pytest.approx(order, abs=0.1)


def test_unipc_3_has_the_order_of_its_first_step(overlapping: GaussianMixture) -> None:
    """UniP-1 and UniC-1 err by h^3, once; with many steps all else is smaller."""
    x = 0.6 * torch.randn(6, 1, 1, 1, generator=generator("tests", "x"), dtype=torch.float64)

    def solve(count: int) -> Tensor:
        sigmas = uniform_in_log(count, 0.6, 0.3)
        return SAMPLERS["unipc"](
            overlapping.denoise, x, sigmas, ANY, no_noise, ignore, solver_order=3
        )

    exact = runge_kutta(overlapping.denoise, x, uniform_in_log(1000, 0.6, 0.3))
    assert observed_order(solve, exact, [32, 64, 128]) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver_has_its_order_whatever_remains_of_the_last_step(
    order: int, overlapping: GaussianMixture, reference: tuple[Tensor, Tensor]
) -> None:
    x, exact = reference
    for rest in range(order):
        counts = [60 + rest, 120 + rest, 240 + rest]
        errors = []
        for count in counts:
            end = SAMPLERS["dpm-solver"](
                overlapping.denoise, x, uniform_in_log(count, 2.0, 0.2), ANY, no_noise, ignore,
                solver_order=order,
            )  # fmt: skip
            errors.append(float((end - exact).norm()))
        slope = -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])
        assert slope > order - 0.1, f"{rest} evaluations remain: {slope:.2f}"


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


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_sampler_lands_on_the_data_distribution(
    name: str, options: dict[str, Any], mixture: GaussianMixture, batch_noise: Noise
) -> None:
    count = 2_000
    noise = batch_noise(count, *mixture.shape, seed=1)
    sigmas = karras(48, 0.01, 30.0)
    start = noise() * sigmas[0]
    x = SAMPLERS[name](mixture.denoise, start, sigmas, ANY, noise, ignore, **options)
    mean, covariance = mixture.moments()
    # five standard errors, plus room for the bias of 48 steps of a method of order 1
    error = 5 * (covariance.diagonal() / count).sqrt() + 0.03
    assert bool(((x.flatten(1).mean(0) - mean).abs() < error).all())
    assert bool(((x.flatten(1).T.cov() - covariance).abs() < spread(covariance, count)).all())
    shares = mixture.class_probabilities(x, x.new_full((count,), 0.01)).mean(0)
    torch.testing.assert_close(shares, mixture.weights, rtol=0, atol=0.045)


@pytest.mark.parametrize("name", [*ORDERS, *RANDOM])
def test_sampler_draws_each_picture_from_its_own_class(
    name: str, mixture: GaussianMixture, batch_noise: Noise
) -> None:
    ids = torch.arange(3).repeat_interleave(500)
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


def exact_variance(
    name: str, options: dict[str, Any], data: float, start: float, sigmas: Tensor
) -> float:
    """The variance a stochastic sampler ends with on N(0, data), free of counting error.

    On such data the end is linear in the start and in every step's noise: picture j of the batch
    is given one unit of the j-th of them and nothing else, so that its end is that coefficient.
    """
    count = len(sigmas)
    world = GaussianMixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([data]))
    units = iter(torch.eye(count, dtype=torch.float64)[:, :, None, None, None])
    x = next(units) * start**0.5
    end = SAMPLERS[name](world.denoise, x, sigmas, ANY, lambda: next(units), ignore, **options)
    return float(end.square().sum())


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("ddpm", {}, 1),
        ("ddim", {"eta": 1.0}, 1),
        ("ddim", {"eta": 0.5}, 1),
        ("euler-ancestral", {}, 1),
        ("dpm-solver++-sde", {}, 2),
        ("dpm-solver++-sde", {"eta": 0.5}, 2),
    ],
)
def test_the_variance_of_a_stochastic_sampler_converges_with_its_order(
    name: str, options: dict[str, Any], order: int
) -> None:
    """Order in distribution; the exact variance at level s is that of the data plus s^2."""
    counts, errors = [128, 256, 512], []
    for count in counts:
        sigmas = uniform_in_log(count, 3.0, 0.2)
        errors.append(abs(exact_variance(name, options, 0.3, 0.3 + 9.0, sigmas) - 0.34))
    slope = -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])
    assert slope == pytest.approx(order, abs=0.1), errors


def test_the_multistep_sde_solver_needs_fewer_steps_than_ancestral_sampling() -> None:
    sigmas = torch.cat([uniform_in_log(15, 20.0, 0.02), torch.zeros(1).double()])
    start = 0.3 + 400.0

    def error(name: str) -> float:
        return abs(exact_variance(name, {}, 0.3, start, sigmas) - 0.3)

    assert error("dpm-solver++-sde") < error("ddpm") / 3


def test_ddpm_with_the_forward_variance_is_exact_on_data_of_unit_variance() -> None:
    """That is what beta is the right variance for (Ho et al. 2020, section 3.2)."""
    for sigmas in (uniform_in_log(1, 9.0, 0.5), uniform_in_log(5, 20.0, 0.1)):
        end = float(sigmas[-1]) ** 2
        for variance, exact in (("forward", True), ("posterior", False)):
            got = exact_variance(
                "ddpm", {"variance": variance}, 1.0, 1 + float(sigmas[0]) ** 2, sigmas
            )
            assert (got == pytest.approx(1 + end, rel=1e-12)) == exact


@pytest.mark.parametrize(("name", "options"), STOCHASTIC)
def test_stochastic_sampler_approaches_the_data_as_steps_are_refined(
    name: str, options: dict[str, Any], batch_noise: Noise
) -> None:
    """Mean and variance against the exact ones; at the end only the counting error is left."""
    variances = torch.tensor([[1.0, 0.04]], dtype=torch.float64)
    world = GaussianMixture(torch.ones(1), torch.tensor([[0.5, -1.0]]), variances)
    count = 10_000
    counting = 5 * (2 / count) ** 0.5
    errors = []
    for steps in (6, 96):
        noise = batch_noise(count, 2, 1, 1, seed=steps)
        sigmas = torch.cat([uniform_in_log(steps - 1, 20.0, 0.01), torch.zeros(1).double()])
        start = noise() * 20.0
        x = SAMPLERS[name](world.denoise, start, sigmas, ANY, noise, ignore, **options).flatten(1)
        errors.append(float((x.var(0) / variances - 1).abs().max()))
        assert float((x.mean(0) - world.moments()[0]).abs().max()) < 0.08
    assert errors[0] > counting, f"six steps are already exact: {errors}"
    assert errors[1] < errors[0] / 2, f"no convergence: {errors}"
    assert errors[1] < counting + 0.03


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


@pytest.mark.parametrize(("name", "options"), STOCHASTIC)
def test_a_sampler_that_knows_the_picture_has_the_right_noise_after_every_step(
    name: str, options: dict[str, Any], batch_noise: Noise
) -> None:
    """Averaged over x_t, x_s is q(x_s | x0), however long the step."""
    count = 40_000
    picture = torch.full((count, 1, 1, 1), 0.7, dtype=torch.float64)

    def oracle(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
        return picture

    for end in (4.0, 0.5):
        noise = batch_noise(count, 1, 1, 1, seed=4)
        sigmas = torch.tensor([9.0, 5.0, end], dtype=torch.float64)
        start = picture + 9.0 * noise()
        x = SAMPLERS[name](oracle, start, sigmas, ANY, noise, ignore, **options)
        assert float(x.std()) == pytest.approx(end, rel=5 * (0.5 / count) ** 0.5)
        assert float(x.mean()) == pytest.approx(0.7, abs=5 * end * count**-0.5)


def test_methods_of_higher_order_beat_euler_at_equal_cost(mixture: GaussianMixture) -> None:
    condition = Condition(class_ids=torch.tensor([0, 1, 2]))
    x = 3 * torch.randn(3, 3, 2, 2, generator=generator("tests", "cost"), dtype=torch.float64)
    exact = mixture.probability_flow(x, 3.0, 0.05, condition)

    def error(name: str, count: int) -> Any:
        sigmas = uniform_in_log(count, 3.0, 0.05)
        end = SAMPLERS[name](mixture.denoise, x, sigmas, condition, no_noise, ignore)
        return (end - exact).norm()

    for name in sorted({name for name, order in ORDERS.items() if order > 1}):
        count = SAMPLERS[name].steps_within(33)
        assert error(name, count) < error("euler", 33) / 2, name


@pytest.mark.parametrize(
    ("first", "second", "draws"),
    [
        (("ddim", {}), ("euler", {}), False),
        (("ddim", {"eta": 1.0}), ("ddpm", {}), True),
        (("ddim", {"eta": 0.3}), ("euler-ancestral", {"eta": 0.3}), True),
        (("dpm-solver", {"solver_order": 1}), ("euler", {}), False),
        (("dpm-solver++-sde", {"eta": 0.0}), ("dpm-solver++", {}), False),
    ],
)
def test_two_names_of_one_method_agree(
    first: tuple[str, dict[str, Any]],
    second: tuple[str, dict[str, Any]],
    draws: bool,
    mixture: GaussianMixture,
    batch_noise: Noise,
) -> None:
    sigmas = karras(7, 0.02, 20.0)
    x = 20 * batch_noise(4, *mixture.shape, seed=5)()
    ends = []
    for name, options in (first, second):
        noise = batch_noise(4, *mixture.shape, seed=6) if draws else no_noise
        ends.append(SAMPLERS[name](mixture.denoise, x, sigmas, ANY, noise, ignore, **options))
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_every_method_is_exact_on_point_data(name: str) -> None:
    """The data prediction is constant there, and so is the noise prediction along the way."""
    point = torch.full((2, 1, 1, 1), 0.4, dtype=torch.float64)
    slope = torch.tensor([-1.3, 0.6], dtype=torch.float64).reshape(2, 1, 1, 1)
    x, sigmas = point + 9 * slope, torch.tensor([9.0, 4.0, 1.5, 0.2], dtype=torch.float64)

    def knows(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
        return point

    end = SAMPLERS[name](knows, x, sigmas, ANY, no_noise, ignore)
    torch.testing.assert_close(end, point + 0.2 * slope)
