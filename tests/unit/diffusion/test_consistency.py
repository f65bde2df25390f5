"""The sampler of consistency models, on a world whose consistency function is known."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from izograf.core.rng import SeededNoise
from izograf.core.types import Condition, ignore
from izograf.diffusion.samplers import SAMPLERS
from izograf.generators.diffusion_options import diffusion_options

DEVIATION = 0.3
SHAPE = (3, 2, 2)
LEVELS = torch.tensor([80.0, 3.0, 1.0, 0.35, 0.0], dtype=torch.float64)


def consistent(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
    """Where the probability flow of N(0, DEVIATION^2) leads from x (Karras et al. 2022, eq. 3)."""
    share = DEVIATION / (DEVIATION**2 + sigma.square()).sqrt()
    return x * share[:, None, None, None]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4])
def test_a_consistency_function_keeps_the_distribution_whatever_the_steps(num_steps: int) -> None:
    count = 4_000
    noise = SeededNoise(SHAPE, range(count))
    sigmas = torch.cat([LEVELS[:num_steps], LEVELS[-1:]])
    x = noise().double() * sigmas[0]
    end = SAMPLERS["consistency"](consistent, x, sigmas, Condition(), noise, ignore)
    numbers = count * 12
    assert float(end.std()) == pytest.approx(DEVIATION, rel=5 * (0.5 / numbers) ** 0.5)
    assert float(end.mean()) == pytest.approx(0, abs=5 * DEVIATION * numbers**-0.5)


def test_every_step_is_the_answer_and_fresh_noise_of_the_following_level() -> None:
    """Song et al. 2023, algorithm 1, written out."""
    noise, again = SeededNoise(SHAPE, [1, 2]), SeededNoise(SHAPE, [1, 2])
    x = expected = 80 * noise().double()
    again()
    for sigma, following in itertools.pairwise(LEVELS):
        expected = consistent(expected, sigma.expand(2), Condition())
        if following > 0:
            expected = expected + following * again().double()
    end = SAMPLERS["consistency"](consistent, x, LEVELS, Condition(), noise, ignore)
    torch.testing.assert_close(end, expected)


def test_no_other_model_offers_it() -> None:
    (offered,) = [option for option in diffusion_options() if option.name == "sampler"]
    assert "consistency" not in offered.choices
    assert set(offered.choices) == {name for name in SAMPLERS if SAMPLERS[name].any_model}
