"""What the network of each preconditioner predicts, as the module's docstring says."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from izograf.core.rng import generator
from izograf.core.types import Condition, ignore
from izograf.diffusion.euler import euler
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.precondition import EDM, Epsilon, Flow, Preconditioner, Velocity
from izograf.diffusion.schedules import linear_time

SIGMA = torch.logspace(-2, 2, 9, dtype=torch.float64)


def draw(name: str, count: int = len(SIGMA)) -> Tensor:
    return torch.randn(count, generator=generator("tests", name), dtype=torch.float64)


def target(precondition: Preconditioner, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What F must output so that the denoiser returns x0."""
    scalars = precondition(sigma)
    return (x0 - scalars.c_skip * (x0 + sigma * noise)) / scalars.c_out


def test_epsilon_network_predicts_the_noise() -> None:
    x0, noise = draw("x0"), draw("noise")
    torch.testing.assert_close(target(Epsilon(), x0, noise, SIGMA), noise)


def test_velocity_network_predicts_the_velocity() -> None:
    """v = alpha n - s x0 with alpha^2 + s^2 = 1 and s / alpha = sigma."""
    x0, noise = draw("x0"), draw("noise")
    angle = SIGMA.atan()
    expected = angle.cos() * noise - angle.sin() * x0
    torch.testing.assert_close(target(Velocity(), x0, noise, SIGMA), expected)


def test_flow_network_predicts_noise_minus_image() -> None:
    x0, noise = draw("x0"), draw("noise")
    torch.testing.assert_close(target(Flow(), x0, noise, SIGMA), noise - x0)


def test_flow_network_sees_its_time_and_the_point_of_the_straight_line() -> None:
    x0, noise = draw("x0"), draw("noise")
    scalars = Flow()(SIGMA)
    t = scalars.c_noise
    torch.testing.assert_close(t, SIGMA / (1 + SIGMA))
    torch.testing.assert_close(scalars.c_in * (x0 + SIGMA * noise), (1 - t) * x0 + t * noise)


@pytest.mark.parametrize("precondition", [Epsilon(), Velocity()])
def test_variance_preserving_networks_see_a_unit_circle(precondition: Preconditioner) -> None:
    x0, noise = draw("x0"), draw("noise")
    angle = SIGMA.atan()
    expected = angle.cos() * x0 + angle.sin() * noise
    torch.testing.assert_close(precondition(SIGMA).c_in * (x0 + SIGMA * noise), expected)


@pytest.mark.parametrize("sigma_data", [0.25, 0.5, 1.0])
def test_edm_input_and_target_have_exactly_unit_variance(sigma_data: float) -> None:
    """Karras et al. 2022, eq. 114-121, from the variances sigma_data^2 of x0 and 1 of n."""
    scalars = EDM(sigma_data)(SIGMA)
    one = torch.ones_like(SIGMA)
    seen = scalars.c_in.square() * (sigma_data**2 + SIGMA.square())
    torch.testing.assert_close(seen, one)
    of_image = (1 - scalars.c_skip).square() * sigma_data**2
    of_noise = scalars.c_skip.square() * SIGMA.square()
    torch.testing.assert_close((of_image + of_noise) / scalars.c_out.square(), one)


def test_edm_skips_as_much_as_amplifies_the_network_least() -> None:
    """c_skip minimises |c_out| under unit target variance (Karras et al. 2022, eq. 131)."""
    data, sigma = 0.5, torch.tensor([0.3], dtype=torch.float64)
    scalars = EDM(data)(sigma)
    for c_skip in (scalars.c_skip - 0.05, scalars.c_skip + 0.05):
        c_out = ((1 - c_skip).square() * data**2 + c_skip.square() * sigma.square()).sqrt()
        assert float(c_out) > float(scalars.c_out)


def test_edm_keeps_what_is_clean_and_ignores_what_is_lost() -> None:
    low, high = EDM()(torch.tensor([1e-5, 1e5], dtype=torch.float64)).c_skip
    assert float(low) == pytest.approx(1, abs=1e-9)
    assert float(high) == pytest.approx(0, abs=1e-9)


def test_euler_in_sigma_is_euler_in_time_on_the_flow(mixture: GaussianMixture) -> None:
    """z = x / (1 + sigma), t = sigma / (1 + sigma), dz/dt = E[n - x0 | z] (Liu et al. 2023)."""
    condition = Condition(class_ids=torch.tensor([0, -1, 2]))
    sigmas = linear_time(7, 0.05, 20.0)
    rng = generator("tests", "flow")
    x = 20 * torch.randn(3, *mixture.shape, generator=rng, dtype=torch.float64)

    z, times = x / (1 + sigmas[0]), sigmas / (1 + sigmas)
    for (sigma, t), (_, following) in itertools.pairwise(zip(sigmas, times, strict=True)):
        state = z * (1 + sigma)
        x0 = mixture.denoise(state, sigma.expand(3), condition)
        velocity = (state - x0) / sigma - x0
        z = z + (following - t) * velocity

    noise = torch.zeros(x.shape)
    end = euler(mixture.denoise, x, sigmas, condition, lambda: noise, ignore)
    torch.testing.assert_close(end, z)
