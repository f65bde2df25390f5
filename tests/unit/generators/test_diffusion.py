"""Sampling a diffusion model: the options of its card, a picture to start from, a mask to keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from izograf.core.devices import Placement
from izograf.core.rng import SeededNoise
from izograf.core.types import Condition
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.precondition import Flow
from izograf.diffusion.samplers import SAMPLERS
from izograf.generators.diffusion import DiffusionGenerator
from izograf.generators.diffusion_options import diffusion_options, options_of
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.labels import ClassLabel

CLASSES = (ClassLabel("dark"), ClassLabel("bright"))
SEEDS = [3, 4]


class Shades(nn.Module):
    """F of a model whose pictures are grey: class 0 at -0.8, 1 at 0.8, no class at 0."""

    def __init__(self, contrast: float = 1.0) -> None:
        super().__init__()
        self.contrast = contrast
        self.weight = nn.Parameter(torch.zeros(1))
        self.asked: list[Condition] = []

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        self.asked.append(condition)
        assert condition.class_ids is not None
        grey = torch.tensor([0.0, -0.8, 0.8])[condition.class_ids + 1][:, None, None, None]
        grey = self.contrast * grey
        sigma = (c_noise / (1 - c_noise))[:, None, None, None]  # of a flow: c_noise = s / (1 + s)
        state = x * (1 + sigma)
        scale = 1 / (1 + sigma)
        return (grey - scale * state) / (-sigma * scale)


def model(**changes: Any) -> DiffusionGenerator:
    card = ModelCard(
        "shades", "diffusion", {}, 8, classes=CLASSES,
        options=diffusion_options(classes=[label.name for label in CLASSES]),
        sampling={"sigma_min": 0.02, "sigma_max": 80.0}, **changes,
    )  # fmt: skip
    return DiffusionGenerator(card, Denoiser(Shades(), Flow()), Placement("cpu", "fp32"))


def bright(**more: Any) -> Condition:
    return Condition(class_ids=torch.tensor([1, 1]), **more)


def mean(images: Tensor) -> float:
    return float(images.mean())


def test_guidance_moves_away_from_the_negative_class() -> None:
    plain = model().sample(bright(), SEEDS, options={"guidance_scale": 1.0})
    assert mean(plain) == pytest.approx(0.8, abs=1e-3)
    assert mean(model().sample(bright(), SEEDS, options={"guidance_scale": 1.1})) == pytest.approx(
        0.88, abs=1e-3
    )
    away = model().sample(
        bright(), SEEDS, options={"guidance_scale": 1.1, "negative_class": "dark"}
    )
    assert mean(away) == pytest.approx(0.96, abs=1e-3)


def guided(bad: float) -> tuple[DiffusionGenerator, Shades]:
    """With a guide whose pictures are `bad` times as far from grey."""
    guide = Shades(bad)
    made = model()
    options = diffusion_options(classes=[label.name for label in CLASSES], guide=True)
    made.card = replace(made.card, options=options)
    made._guide = Denoiser(guide, Flow())
    return made, guide


def test_autoguidance_moves_away_from_the_guide_under_the_same_condition() -> None:
    generator, guide = guided(0.5)
    asked = {"autoguidance_scale": 1.25, "guidance_scale": 1.0}
    assert mean(generator.sample(bright(), SEEDS, options=asked)) == pytest.approx(
        0.4 + 1.25 * 0.4, abs=1e-3
    )
    assert all(condition.class_ids.tolist() == [1, 1] for condition in guide.asked)
    guide.asked.clear()
    within = {**asked, "guidance_low": 0.5, "guidance_high": 3.0, "num_inference_steps": 18}
    generator.sample(bright(), SEEDS, options=within)
    assert 0 < len(guide.asked) < 18
    guide.asked.clear()
    generator.sample(bright(), SEEDS, options={"guidance_scale": 1.5})
    assert not guide.asked, "autoguidance is off by default"


def test_autoguidance_takes_no_other_guidance_beside_it() -> None:
    generator, _ = guided(0.5)
    with pytest.raises(InvalidInput, match="set one of them to 1"):
        generator.sample(bright(), SEEDS, options={"autoguidance_scale": 2.0})


def test_what_guidance_would_move_away_from_is_not_dropped_by_autoguidance() -> None:
    generator, _ = guided(0.5)
    asked = {"autoguidance_scale": 2.0, "guidance_scale": 1.0}
    with pytest.raises(InvalidInput, match="A negative class says what guidance_scale moves"):
        generator.sample(bright(), SEEDS, options={**asked, "negative_class": "dark"})
    with pytest.raises(InvalidInput, match="A negative prompt says what guidance_scale moves"):
        generator.sample(bright(negative=bright()), SEEDS, options=asked)


def test_a_generator_that_was_given_no_guide_says_so() -> None:
    generator, _ = guided(0.5)
    generator._guide = None
    asked = {"autoguidance_scale": 2.0, "guidance_scale": 1.0}
    with pytest.raises(CardError, match="was given no guide"):
        generator.sample(bright(), SEEDS, options=asked)


def test_an_option_of_a_sampler_reaches_it_and_no_other() -> None:
    chosen = {"num_inference_steps": 4, "ddim.eta": 0.3, "euler-ancestral.eta": 0.7, "strength": 1}
    assert options_of(SAMPLERS["ddim"], chosen) == {"eta": 0.3}
    assert options_of(SAMPLERS["euler-ancestral"], chosen) == {"eta": 0.7}
    assert options_of(SAMPLERS["heun"], chosen) == {}
    options = {"sampler": "ddim", "ddim.eta": 7}
    with pytest.raises(InvalidInput, match=r"ddim\.eta must be from 0 to 1"):
        model().sample(bright(), SEEDS, options=options)


def test_the_noise_of_a_sampler_that_draws_some_is_the_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Tensor] = []
    draw = SeededNoise.__call__

    def noted(self: SeededNoise) -> Tensor:
        drawn.append(draw(self))
        return drawn[-1]

    monkeypatch.setattr(SeededNoise, "__call__", noted)
    options = {"sampler": "ddim", "num_inference_steps": 4}
    model().sample(bright(), SEEDS, options=options)
    assert len(drawn) == 1, "only the start"
    model().sample(bright(), SEEDS, options=options | {"ddim.eta": 1.0})
    assert len(drawn) == 1 + 1 + 3


@pytest.mark.parametrize("sampler", ["euler", "dpm-solver++", "euler-ancestral", "unipc"])
def test_a_mask_keeps_its_part_of_the_picture_exactly(sampler: str) -> None:
    picture = torch.rand(2, 3, 8, 8) * 2 - 1
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., :4] = 1
    made = model().sample(
        bright(image=picture, mask=mask), SEEDS, options={"sampler": sampler, "strength": 1.0}
    )
    assert torch.equal(made[..., :4], picture[..., :4])
    assert not torch.equal(made[..., 4:], picture[..., 4:])


def test_sampling_starts_from_a_picture_with_the_steps_that_strength_leaves() -> None:
    picture = torch.full((2, 3, 8, 8), 0.25)
    taken: list[tuple[int, int]] = []
    generator = model()
    generator.sample(
        bright(image=picture), SEEDS, options={"strength": 0.5, "num_inference_steps": 10},
        on_step=lambda step, total, _: taken.append((step, total)),
    )  # fmt: skip
    assert taken == [(step, 5) for step in range(1, 6)]
    shades = generator.denoiser.network
    assert isinstance(shades, Shades)
    assert all(asked.image is None for asked in shades.asked), "the network knows no pictures"


def test_a_network_that_takes_pictures_is_given_them_and_starts_from_noise() -> None:
    picture = torch.full((2, 3, 8, 8), 0.25)
    generator = model(conditions=("class", "image"))
    taken: list[int] = []
    generator.sample(
        bright(image=picture), SEEDS, options={"num_inference_steps": 6, "guidance_scale": 1.0},
        on_step=lambda _, total, __: taken.append(total),
    )  # fmt: skip
    assert taken == [6] * 6
    shades = generator.denoiser.network
    assert isinstance(shades, Shades)
    assert all(asked.image is not None for asked in shades.asked)
