"""Our samplers against diffusers' schedulers: same closed-form model, same levels, same noise.

diffusers computes in float32 and, but for the Euler and Heun schedulers, on the
variance-preserving state z = x / sqrt(sigma^2 + 1); ours run here in float64 on x. Samples, of
deviation about one, must agree to `TOLERANCE`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from izograf.core.rng import generator
from izograf.core.types import Condition, ignore
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.samplers import SAMPLERS

pytest.importorskip("diffusers", reason="diffusers, the oracle of these tests, is not installed")

from diffusers import schedulers

TOLERANCE = 2e-4  # float32 rounding of sigma (up to 157) and of 30 steps
CONDITION = Condition(class_ids=torch.tensor([0, 1, 2, -1]))
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}


SHAPE = (4, 3, 2, 2)


def stream() -> torch.Generator:
    """The one noise stream of both sides: the start first, then what the steps draw."""
    return generator("tests", "noise")


def ours(name: str, world: GaussianMixture, sigmas: Tensor) -> Tensor:
    rng = stream()
    x = torch.randn(SHAPE, generator=rng).double() * sigmas[0]

    def noise() -> Tensor:
        return torch.randn(SHAPE, generator=rng)

    return SAMPLERS[name](world.denoise, x, sigmas.double(), CONDITION, noise, ignore)


def epsilon(world: GaussianMixture, x: Tensor, sigma: Tensor) -> Tensor:
    """The exact noise prediction, as diffusers' models give it."""
    x, level = x.double(), sigma.double()
    return ((x - world.denoise(x, level.expand(len(x)), CONDITION)) / level).float()


def on_x(scheduler: Any, world: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Runs a scheduler whose state is x; returns its end and the levels it visited."""
    x = torch.randn(SHAPE, generator=stream()) * scheduler.sigmas[0]
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)  # finds the step's index
        sigma = scheduler.sigmas[scheduler.step_index]
        x = scheduler.step(epsilon(world, x, sigma), t, x).prev_sample
    return x, torch.unique_consecutive(scheduler.sigmas)


def on_z(scheduler: Any, world: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Runs a scheduler whose state is z = x / sqrt(sigma^2 + 1), ending at sigma 0."""
    rng = stream()
    kept = scheduler.alphas_cumprod[scheduler.timesteps]
    levels = torch.cat([((1 - kept) / kept).sqrt(), torch.zeros(1)])
    z = torch.randn(SHAPE, generator=rng) * levels[0] * kept[0].sqrt()
    for t, sigma, share in zip(scheduler.timesteps, levels[:-1], kept, strict=True):
        prediction = epsilon(world, z / share.sqrt(), sigma)
        z = scheduler.step(prediction, t, z, generator=rng).prev_sample
    return z, levels


def assert_equal_end(name: str, world: GaussianMixture, theirs: tuple[Tensor, Tensor]) -> None:
    expected, levels = theirs
    end = ours(name, world, levels)
    torch.testing.assert_close(end.float(), expected, rtol=0, atol=TOLERANCE)
    assert float(end.std()) > 0.3, "the samples have collapsed: equality would mean little"


@pytest.mark.parametrize("steps", [3, 5, 30])
def test_euler_is_the_euler_scheduler(mixture: GaussianMixture, steps: int) -> None:
    scheduler = schedulers.EulerDiscreteScheduler(**BETAS)
    scheduler.set_timesteps(steps)
    assert_equal_end("euler", mixture, on_x(scheduler, mixture))


@pytest.mark.parametrize("steps", [5, 20])
def test_euler_is_the_euler_scheduler_on_karras_levels(
    mixture: GaussianMixture, steps: int
) -> None:
    scheduler = schedulers.EulerDiscreteScheduler(**BETAS, use_karras_sigmas=True)
    scheduler.set_timesteps(steps)
    assert_equal_end("euler", mixture, on_x(scheduler, mixture))


@pytest.mark.parametrize("steps", [5, 20])
def test_euler_is_ddim_without_noise(mixture: GaussianMixture, steps: int) -> None:
    scheduler = schedulers.DDIMScheduler(
        **BETAS, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    assert_equal_end("euler", mixture, on_z(scheduler, mixture))


@pytest.mark.parametrize("steps", [4, 8, 20])
def test_heun_is_the_heun_scheduler(mixture: GaussianMixture, steps: int) -> None:
    scheduler = schedulers.HeunDiscreteScheduler(**BETAS, use_karras_sigmas=True)
    scheduler.set_timesteps(steps)
    assert_equal_end("heun", mixture, on_x(scheduler, mixture))


@pytest.mark.parametrize("steps", [2, 8, 25])
def test_dpm_solver_plus_plus_is_the_multistep_scheduler(
    mixture: GaussianMixture, steps: int
) -> None:
    """Both with the midpoint rule, and a step to sigma 0 of order 1."""
    scheduler = schedulers.DPMSolverMultistepScheduler(
        **BETAS,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        solver_order=2,
        lower_order_final=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    assert_equal_end("dpm-solver++", mixture, on_z(scheduler, mixture))


@pytest.mark.parametrize("steps", [5, 20])
def test_ddpm_is_the_ddpm_scheduler_with_the_posterior_variance(
    mixture: GaussianMixture, steps: int
) -> None:
    scheduler = schedulers.DDPMScheduler(
        **BETAS, clip_sample=False, variance_type="fixed_small", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    assert_equal_end("ddpm", mixture, on_z(scheduler, mixture))


def test_the_oracles_differ_from_each_other(mixture: GaussianMixture) -> None:
    """Otherwise every test above could pass with any sampler."""
    ends = {}
    sigmas = torch.tensor([20.0, 8.0, 3.0, 1.0, 0.4, 0.1, 0.0])
    for name in ("euler", "heun", "dpm-solver++", "ddpm"):
        ends[name] = ours(name, mixture, sigmas)
    names = list(ends)
    for i, first in enumerate(names):
        for second in names[:i]:
            assert float((ends[first] - ends[second]).abs().max()) > 20 * TOLERANCE
