"""The variance of a reverse step: its two bounds, and a learned one between them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from izograf.core.rng import generator
from izograf.core.types import Condition, ignore
from izograf.diffusion.guidance import autoguidance, classifier_free
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import karras
from izograf.diffusion.tables import linear_betas, table_of
from izograf.diffusion.variance import (
    DenoiseWithVariance,
    forward_variance,
    learned_log_variance,
    posterior_variance,
)

SIGMAS = karras(6, 0.05, 20.0)


class Knowing:
    """A denoise function that knows one picture for each class and one share everywhere."""

    def __init__(self, share: float | None) -> None:
        self.share = share
        self.evaluations = 0

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        del sigma
        self.evaluations += 1
        assert condition.class_ids is not None
        return (0.3 * condition.class_ids.to(x.dtype))[:, None, None, None].expand_as(x) + 0.1 * x

    def with_variance(
        self, x: Tensor, sigma: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor | None]:
        x0 = self(x, sigma, condition)
        if self.share is None:
            return x0, None
        assert condition.class_ids is not None
        known = torch.where(condition.class_ids < 0, 9.0, self.share)  # the null's must not count
        return x0, known.to(x.dtype)[:, None, None, None].expand_as(x)


def sample(denoise: object, **options: str) -> Tensor:
    rng = generator("tests", "noise")

    def noise() -> Tensor:
        return torch.randn(2, 3, 4, 4, generator=rng, dtype=torch.float64)

    x = 20 * noise()
    condition = Condition(class_ids=torch.tensor([0, 1]))
    return SAMPLERS["ddpm"](denoise, x, SIGMAS, condition, noise, ignore, **options)  # type: ignore[arg-type]


def test_the_bounds_are_those_of_the_papers_in_the_state_of_unit_variance() -> None:
    """beta~ and beta of Ho et al. 2020 for z = x sqrt(A), steps between neighbouring levels."""
    betas = linear_betas()
    kept = (1 - betas).cumprod(0)
    table = table_of(betas)
    t, s = table[1:], table[:-1]
    posterior = (1 - kept[:-1]) / (1 - kept[1:]) * betas[1:]
    torch.testing.assert_close(posterior_variance(t, s) * kept[:-1], posterior)
    torch.testing.assert_close(forward_variance(t, s) * kept[:-1], betas[1:])


def test_a_share_interpolates_the_logarithm() -> None:
    t, s = torch.tensor(3.0), torch.tensor(1.0)
    small, large = posterior_variance(t, s), forward_variance(t, s)
    assert float(small) < float(large)
    for share, expected in ((0.0, small), (1.0, large), (0.5, (small * large).sqrt())):
        found = learned_log_variance(t, s, torch.tensor([share])).exp()
        assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(("share", "same"), [(0.0, "posterior"), (1.0, "forward")])
def test_the_ddpm_sampler_draws_with_what_the_model_has_learned(share: float, same: str) -> None:
    torch.testing.assert_close(sample(Knowing(share)), sample(Knowing(None), variance=same))
    between = sample(Knowing(0.5))
    assert not torch.allclose(between, sample(Knowing(0.5), variance=same))


def test_without_a_learned_variance_it_is_the_posterior() -> None:
    expected = sample(Knowing(0.7), variance="posterior")
    plain = Knowing(0.7)
    assert torch.equal(sample(Knowing(None)), expected)
    assert torch.equal(sample(lambda x, sigma, condition: plain(x, sigma, condition)), expected)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_guidance_keeps_the_variance_of_the_conditional_model(scale: float) -> None:
    knowing = Knowing(0.25)
    x, sigma = torch.randn(2, 3, 4, 4, generator=generator("tests")), torch.ones(2)
    condition = Condition(class_ids=torch.tensor([0, 1]))
    bad = Knowing(0.9)
    for guidance, evaluations in ((classifier_free(scale), 1), (autoguidance(bad, scale), 1)):
        guided = guidance(knowing)
        assert isinstance(guided, DenoiseWithVariance)
        knowing.evaluations = 0
        x0, share = guided.with_variance(x, sigma, condition)
        assert knowing.evaluations == evaluations, "the variance must cost nothing"
        assert torch.equal(x0, guided(x, sigma, condition))
        assert share is not None
        assert torch.equal(share, torch.full_like(x, 0.25))


def test_outside_its_interval_guidance_keeps_it_too() -> None:
    guided = classifier_free(3.0, sigma_low=0.5, sigma_high=2.0)(Knowing(0.25))
    assert isinstance(guided, DenoiseWithVariance)
    condition = Condition(class_ids=torch.tensor([0]))
    for level in (0.1, 1.0, 9.0):
        _, share = guided.with_variance(torch.zeros(1, 3, 2, 2), torch.tensor([level]), condition)
        assert share is not None
        assert float(share.max()) == 0.25


def test_a_function_without_variance_stays_one() -> None:
    def plain(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        del sigma, condition
        return x

    assert not isinstance(classifier_free(2.0)(plain), DenoiseWithVariance)
    assert classifier_free(1.0)(plain) is plain


def test_the_right_variance_is_found_by_the_bound() -> None:
    """For data of a known deviation the bound is least where the step's true variance is."""
    from izograf.objectives.variational import VarianceBound

    deviation, index = 0.5, 400
    table = table_of(linear_betas())
    t, s = table[index], table[index - 1]
    rng = generator("tests", "data")
    x0 = deviation * torch.randn(4096, 1, 2, 2, generator=rng, dtype=torch.float64)
    x = x0 + t * torch.randn(x0.shape, generator=rng, dtype=torch.float64)
    best = x * deviation**2 / (deviation**2 + t**2)  # E[x0 | x] of a normal law
    bound = VarianceBound(table)
    shares = torch.linspace(-0.5, 1.5, 41, dtype=torch.float64)
    losses = [
        float(bound(x0, best, t.expand(len(x0)), torch.full_like(x0, float(share))))
        for share in shares
    ]
    found = float(shares[losses.index(min(losses))])
    spread = deviation**2 * t**2 / (deviation**2 + t**2)  # of x0 given x
    true = posterior_variance(t, s) + (1 - (s / t) ** 2) ** 2 * spread
    small, large = posterior_variance(t, s).log(), forward_variance(t, s).log()
    assert found == pytest.approx(float((true.log() - small) / (large - small)), abs=0.2)
    assert math.isfinite(found)
