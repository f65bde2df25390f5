"""Noise laws, weightings and the bound that teaches a variance, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from izograf.core.rng import generator
from izograf.core.types import Batch, Condition
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.precondition import PRECONDITIONERS, Epsilon, Velocity
from izograf.diffusion.variance import forward_variance, posterior_variance
from izograf.objectives.denoising import DenoisingObjective
from izograf.objectives.noise import NOISE_LAWS, WEIGHTINGS, LogNormal, MinSNR, UniformTable
from izograf.objectives.variational import VarianceBound

SIGMA = torch.logspace(-2, 2, 17, dtype=torch.float64)


@pytest.mark.parametrize("name", NOISE_LAWS)
def test_a_law_draws_positive_levels_from_its_generator_alone(name: str) -> None:
    law = NOISE_LAWS[name]
    first, again, other = (law.sample(64, generator("tests", seed)) for seed in (1, 1, 2))
    assert first.shape == (64,)
    assert first.dtype == torch.float32
    assert bool((first > 0).all() and first.isfinite().all())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_log_normal_law_has_its_moments() -> None:
    logarithms = LogNormal(-0.4, 1.2).sample(40_000, generator("tests")).log()
    assert float(logarithms.mean()) == pytest.approx(-0.4, abs=0.03)
    assert float(logarithms.std()) == pytest.approx(1.2, abs=0.03)


def test_a_table_law_draws_every_level_equally_often() -> None:
    law = UniformTable("cosine", num_steps=20)
    drawn = law.sample(40_000, generator("tests"))
    counts = (drawn[:, None] == law.levels).sum(0)
    assert int(counts.sum()) == 40_000, "a level that is not in the table was drawn"
    assert float(counts.min()) > 1800
    assert float(counts.max()) < 2200


def test_the_linear_table_is_that_of_the_paper() -> None:
    """Ho et al. 2020, section 4: nearly nothing of the picture is left at the end."""
    levels = UniformTable("linear").levels
    assert len(levels) == 1000
    assert float(levels[0]) == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-5)
    kept = math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / 999) for i in range(1000))
    assert float(levels[-1]) == pytest.approx(math.sqrt((1 - kept) / kept), rel=1e-5)


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_min_snr_is_min_snr_gamma_on_the_picture_whatever_is_predicted(name: str) -> None:
    c_out = PRECONDITIONERS[name]()(SIGMA).c_out
    on_picture = MinSNR(gamma=5.0)(SIGMA, c_out) / c_out**2
    torch.testing.assert_close(on_picture, (1 / SIGMA**2).clamp(max=5.0))


def test_min_snr_is_what_the_paper_says_for_epsilon_and_velocity() -> None:
    snr = 1 / SIGMA**2
    clamped = snr.clamp(max=5.0)
    epsilon, velocity = (MinSNR(5.0)(SIGMA, p(SIGMA).c_out) for p in (Epsilon(), Velocity()))
    torch.testing.assert_close(epsilon, clamped / snr)
    torch.testing.assert_close(velocity, clamped / (snr + 1))


class Constant(nn.Module):
    """A network that gives the same number everywhere, in as many channels as asked."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        del c_noise, condition
        parts = [torch.ones_like(x) * value for value in self.values]
        return torch.cat(parts, dim=1)


def objective(network: nn.Module, **chosen: object) -> DenoisingObjective:
    denoiser = Denoiser(network, Epsilon())
    sgd = torch.optim.SGD(denoiser.parameters(), lr=1.0)
    return DenoisingObjective(denoiser, sgd, noise_law=UniformTable("linear"), **chosen)  # type: ignore[arg-type]


def batch(count: int = 256) -> Batch:
    rng = generator("tests", "pictures")
    return Batch(torch.rand(count, 3, 4, 4, generator=rng) * 2 - 1, Condition())


def test_a_weighting_weighs_the_loss() -> None:
    """A network that answers 0 errs by the noise, of variance one, at every level."""
    loss = objective(Constant(0.0), weighting=MinSNR(5.0)).phases()[0].loss
    found, _ = loss(batch(), generator("tests"))
    sigma = UniformTable("linear").sample(256, generator("tests"))
    expected = (5 * sigma**2).clamp(max=1).mean()
    assert float(found.detach()) == pytest.approx(float(expected), rel=0.05)
    plain, _ = objective(Constant(0.0)).phases()[0].loss(batch(), generator("tests"))
    assert float(plain.detach()) == pytest.approx(1.0, rel=0.05)
    assert set(WEIGHTINGS) == {"uniform", "min-snr"}


def bound_of(share: float, sigma: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rng = generator("tests", "bound")
    x0, predicted = torch.randn(2, len(sigma), 3, 2, 2, generator=rng, dtype=torch.float64)
    predicted = x0 + 0.1 * predicted
    shares = torch.full_like(x0, share)
    return VarianceBound(levels)(x0, predicted, sigma, shares), x0, predicted


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_bound_is_the_divergence_of_two_normal_laws(share: float) -> None:
    levels = UniformTable("linear", 50).levels.double()
    t, s = levels[31], levels[30]
    found, x0, predicted = bound_of(share, t.expand(8), levels)
    small, large = posterior_variance(t, s), forward_variance(t, s)
    x = x0 + t * 0.7  # the noisy picture drops out
    q = Normal(x0 + (s / t) ** 2 * (x - x0), small.sqrt())
    deviation = (small.log() * (1 - share) + large.log() * share).exp().sqrt()
    p = Normal(predicted + (s / t) ** 2 * (x - predicted), deviation)
    expected = kl_divergence(q, p).mean() / math.log(2)
    torch.testing.assert_close(found, expected.float(), check_dtype=False, rtol=1e-5, atol=1e-7)


def test_the_last_step_is_not_counted() -> None:
    levels = UniformTable("linear", 50).levels.double()
    found, *_ = bound_of(0.5, levels[:1].expand(4), levels)
    assert float(found) == 0


def test_learning_a_variance_leaves_the_prediction_alone() -> None:
    """The bound moves the variance only, the error the prediction only (stopped gradient)."""
    levels = UniformTable("linear").levels
    both, alone = Constant(0.1, 0.0), Constant(0.1)
    loss, stats = (
        objective(both, variance=VarianceBound(levels))
        .phases()[0]
        .loss(batch(), generator("tests"))
    )
    loss.backward()
    plain, _ = objective(alone).phases()[0].loss(batch(), generator("tests"))
    plain.backward()
    assert float(stats["error"]) == float(plain.detach())
    assert float(loss.detach()) == pytest.approx(
        float(stats["error"]) + float(stats["bits"].detach())
    )  # 0.001 of 1000 steps
    assert both.values.grad is not None
    assert alone.values.grad is not None
    assert float(both.values.grad[0]) == float(alone.values.grad[0])
    assert float(both.values.grad[1]) != 0
