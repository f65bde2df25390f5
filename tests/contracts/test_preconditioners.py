"""What every registered preconditioner promises."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from izograf.core.config import config_from_json, config_to_json
from izograf.core.rng import generator
from izograf.core.types import Condition, ignore
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.precondition import PRECONDITIONERS, Preconditioner
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import karras

LEVELS = torch.logspace(-3, 3, 61, dtype=torch.float64)


@pytest.fixture(params=PRECONDITIONERS)
def precondition(request: pytest.FixtureRequest) -> Preconditioner:
    return PRECONDITIONERS[request.param]()


class ExactNetwork(nn.Module):
    """The network that a preconditioner would train to perfection on a mixture.

    It knows its noise level only through c_noise, looked up among the levels it will meet, and
    its input only through c_in x, as any network does.
    """

    def __init__(self, world: GaussianMixture, precondition: Preconditioner, levels: Tensor):
        super().__init__()
        self.world, self.precondition, self.levels = world, precondition, levels
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, scaled: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        known = self.precondition(self.levels).c_noise
        sigma = self.levels[(known - c_noise[:, None]).abs().argmin(1)]
        c_skip, c_out, c_in, _ = (c[:, None, None, None] for c in self.precondition(sigma))
        x = scaled / c_in
        return (self.world.denoise(x, sigma, condition) - c_skip * x) / c_out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scalars_are_finite_and_have_the_shape_and_dtype_of_sigma(
    precondition: Preconditioner, dtype: torch.dtype
) -> None:
    for scalar in precondition(LEVELS.to(dtype)):
        assert scalar.shape == LEVELS.shape
        assert scalar.dtype == dtype
        assert bool(scalar.isfinite().all())


def test_the_network_is_never_multiplied_away(precondition: Preconditioner) -> None:
    scalars = precondition(LEVELS)
    assert bool((scalars.c_out != 0).all())
    assert bool((scalars.c_in > 0).all())


def test_c_noise_tells_every_two_levels_apart(precondition: Preconditioner) -> None:
    c_noise = precondition(LEVELS).c_noise
    assert bool((c_noise.diff() > 0).all())


def test_c_noise_is_of_order_one(precondition: Preconditioner) -> None:
    """`NoiseLevelEmbedding` expects that: its frequencies end at 1000 radians per unit."""
    assert float(precondition(LEVELS).c_noise.abs().max()) < 3


def test_input_of_the_network_has_unit_variance_for_data_of_the_assumed_variance(
    precondition: Preconditioner,
) -> None:
    """Within a factor of two: rectified flow dips to 1/sqrt(2) halfway, the others are exact."""
    data = getattr(precondition, "sigma_data", 1.0)
    scalars = precondition(LEVELS)
    deviation = scalars.c_in * (LEVELS.square() + data**2).sqrt()
    assert bool(((deviation > 0.5) & (deviation < 2)).all())


def test_a_perfect_network_is_the_exact_denoiser(
    precondition: Preconditioner, mixture: GaussianMixture
) -> None:
    denoiser = Denoiser(ExactNetwork(mixture, precondition, LEVELS), precondition)
    sigma = LEVELS[::10]
    rng = generator("tests", "x")
    x = torch.randn(len(sigma), *mixture.shape, generator=rng, dtype=torch.float64)
    x = x * (1 + sigma[:, None, None, None])
    condition = Condition(class_ids=torch.arange(len(sigma)) % 4 - 1)
    exact = mixture.denoise(x, sigma, condition)
    torch.testing.assert_close(denoiser(x, sigma, condition), exact, rtol=1e-7, atol=1e-7)


def test_samples_do_not_depend_on_the_parameterisation(
    precondition: Preconditioner, mixture: GaussianMixture
) -> None:
    sigmas = karras(8, 0.02, 20.0)
    network = ExactNetwork(mixture, precondition, sigmas[:-1])
    rng = generator("tests", "x")
    x = 20 * torch.randn(3, *mixture.shape, generator=rng, dtype=torch.float64)
    condition = Condition(class_ids=torch.tensor([0, 1, -1]))

    def run(denoise: Any) -> Tensor:
        noise = torch.zeros(x.shape)
        return SAMPLERS["heun"](denoise, x, sigmas, condition, lambda: noise, ignore)

    exact = run(mixture.denoise)
    with torch.no_grad():
        torch.testing.assert_close(run(Denoiser(network, precondition)), exact)


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_a_card_can_carry_it(name: str) -> None:
    precondition_type = PRECONDITIONERS[name]
    assert dataclasses.is_dataclass(precondition_type)
    original = precondition_type()
    written = json.loads(json.dumps(config_to_json(original)))
    assert config_from_json(precondition_type, written, source="a test") == original
