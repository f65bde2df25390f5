"""Whole checkpoints against diffusers' pipelines: same files, same prompts, same first latents.

The pipelines have random weights and are saved by diffusers itself; what is compared is what a
pipeline calls its latents, after all steps, with guidance and a negative prompt, in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers", reason="diffusers, the oracle of these tests, is not installed")
pytest.importorskip("transformers", reason="transformers, the text encoders, is not installed")

import diffusers

from izograf.core.rng import SeededNoise
from izograf.core.types import Condition
from izograf.generators.stable_diffusion.generator import StableDiffusionGenerator
from izograf.schema.options import parse_options
from stable_diffusion_support import loaded, saved

TOLERANCE = 1e-3
SEEDS = (3, 4)
PROMPTS = ["a dog eats a carrot", "the red sea"]
NEGATIVE = ["cat", "cat"]
SIZE = 16
SCHEDULERS = {
    "ddim": diffusers.DDIMScheduler,
    "plms": diffusers.PNDMScheduler,
    "dpm-solver++": diffusers.DPMSolverMultistepScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
}


@dataclass(frozen=True)
class Pair:
    """Both programs' model of the same files, and the scheduler's configuration among them."""

    pipeline: Any
    generator: StableDiffusionGenerator
    scheduler: dict[str, Any]


PairOf = Callable[[str], Pair]


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> PairOf:
    """pair_of("1" | "2" | "xl"), each made once."""

    @functools.cache
    def make(kind: str) -> Pair:
        folder = tmp_path_factory.mktemp(f"checkpoint-{kind}")
        pipeline = saved(kind, folder)
        generator = loaded(folder / "checkpoint")
        return Pair(pipeline, generator, dict(generator.checkpoint.scheduler))

    return make


def ours(pair: Pair, **options: Any) -> Tensor:
    generator = pair.generator
    condition = replace(
        generator.text_condition(PROMPTS), negative=generator.text_condition(NEGATIVE)
    )
    chosen = parse_options({"guidance_scale": 7.5, **options}, generator.card.options)
    return generator.sample_latents(condition, SEEDS, chosen)


def theirs(pair: Pair, scheduler: type[Any], steps: int, **more: Any) -> Tensor:
    pair.pipeline.scheduler = scheduler.from_config(pair.scheduler)
    given: dict[str, Any] = {"negative_prompt": NEGATIVE, **more}
    made: Tensor = pair.pipeline(
        PROMPTS, num_inference_steps=steps, guidance_scale=7.5, output_type="latent",
        latents=SeededNoise((4, SIZE // 2, SIZE // 2), SEEDS)(), height=SIZE, width=SIZE, **given,
    ).images  # fmt: skip
    return made


def runs() -> list[Any]:
    """All counts for SD 1, those up to 20 for the others; the rest is for the slow suite."""
    return [
        pytest.param(
            kind, sampler, steps, id=f"{kind}-{sampler}-{steps}",
            marks=[pytest.mark.slow] if steps > (50 if kind == "1" else 20) else [],
        )
        for kind in ("1", "2", "xl")
        for sampler in SCHEDULERS
        for steps in (10, 20, 50)
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "sampler", "steps"), runs())
def test_latents_are_diffusers(kind: str, sampler: str, steps: int, pair_of: PairOf) -> None:
    pair = pair_of(kind)
    expected = theirs(pair, SCHEDULERS[sampler], steps)
    latents = ours(pair, sampler=sampler, num_inference_steps=steps)
    torch.testing.assert_close(latents, expected, rtol=0, atol=TOLERANCE)
    assert float(latents.std()) > 0.3, "the latents have collapsed: equality would mean little"


SPACED = [
    ("euler", "linspace"), ("euler", "trailing"), ("ddim", "trailing"),
    ("dpm-solver++", "leading"), ("dpm-solver++", "trailing"), ("plms", "trailing"),
]  # fmt: skip


@pytest.mark.parametrize(("sampler", "spacing"), SPACED)
def test_a_saved_spacing_is_followed(sampler: str, spacing: str, pair_of: PairOf) -> None:
    """In as many steps as divide 1000: diffusers' DDIM and PNDM take no others evenly."""
    pair = pair_of("1")
    scheduler = {**pair.scheduler, "timestep_spacing": spacing}
    expected = theirs(replace(pair, scheduler=scheduler), SCHEDULERS[sampler], 8)
    latents = ours(pair, sampler=sampler, num_inference_steps=8, schedule=spacing)
    torch.testing.assert_close(latents, expected, rtol=0, atol=TOLERANCE)


def test_levels_without_signal_at_the_end_are_diffusers(pair_of: PairOf) -> None:
    pair = pair_of("2")
    scheduler = {
        **pair.scheduler, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
    }  # fmt: skip
    checkpoint = replace(pair.generator.checkpoint, scheduler=scheduler)
    generator = StableDiffusionGenerator(
        pair.generator.card, checkpoint, pair.generator.networks, pair.generator.placement
    )
    expected = theirs(replace(pair, scheduler=scheduler), SCHEDULERS["euler"], 10)
    latents = ours(replace(pair, generator=generator), sampler="euler", num_inference_steps=10)
    torch.testing.assert_close(latents, expected, rtol=0, atol=TOLERANCE)


def test_without_a_negative_prompt_the_null_is_diffusers(pair_of: PairOf) -> None:
    """The empty prompt; for SDXL, whose index says so, zeros."""
    for kind in ("1", "xl"):
        pair = pair_of(kind)
        expected = theirs(pair, SCHEDULERS["dpm-solver++"], 4, negative_prompt=None)
        chosen = parse_options(
            {"guidance_scale": 7.5, "num_inference_steps": 4}, pair.generator.card.options
        )
        condition = pair.generator.text_condition(PROMPTS)
        latents = pair.generator.sample_latents(condition, SEEDS, chosen)
        torch.testing.assert_close(latents, expected, rtol=0, atol=TOLERANCE)


def test_pictures_are_diffusers(pair_of: PairOf) -> None:
    """Through the decoder, with our own defaults."""
    pair = pair_of("1")
    latents = theirs(pair, SCHEDULERS["dpm-solver++"], 5)
    with torch.no_grad():
        expected = pair.pipeline.vae.decode(latents / 0.18215).sample.clamp(-1, 1)
    condition = replace(
        pair.generator.text_condition(PROMPTS), negative=pair.generator.text_condition(NEGATIVE)
    )
    pictures = pair.generator.sample(condition, SEEDS, options={"num_inference_steps": 5})
    torch.testing.assert_close(pictures, expected, rtol=0, atol=TOLERANCE)


def test_equality_means_something(pair_of: PairOf) -> None:
    """Prompt, negative prompt, guidance, sampler and steps all change the latents visibly."""
    for kind in ("1", "2", "xl"):
        pair = pair_of(kind)
        generator = pair.generator
        first = ours(pair, num_inference_steps=4)
        others = [
            ours(pair, num_inference_steps=4, guidance_scale=7.0),
            ours(pair, num_inference_steps=5),
            ours(pair, num_inference_steps=4, sampler="plms"),
            ours(pair, num_inference_steps=4, schedule="trailing"),
        ]
        chosen = parse_options(
            {"guidance_scale": 7.5, "num_inference_steps": 4}, generator.card.options
        )
        null = generator.sample_latents(Condition(), SEEDS, chosen)
        swapped = replace(
            generator.text_condition(["the cat", "a carrot"]),
            negative=generator.text_condition(NEGATIVE),
        )
        others += [null, generator.sample_latents(swapped, SEEDS, chosen)]
        for other in others:
            assert float((first - other).abs().max()) > 5 * TOLERANCE


@pytest.mark.slow
def test_one_step_of_the_whole_width_is_diffusers(tmp_path: Path) -> None:
    """SD 1.x's own U-Net and text encoder, with random weights, on latents of 16 x 16."""
    from stable_diffusion_support import full_width

    pipeline = full_width(tmp_path)
    generator = loaded(tmp_path / "checkpoint")
    pair = Pair(pipeline, generator, dict(generator.checkpoint.scheduler))
    noise = SeededNoise((4, 16, 16), SEEDS)()
    pipeline.scheduler = SCHEDULERS["ddim"].from_config(pair.scheduler)
    expected = pipeline(
        PROMPTS, negative_prompt=NEGATIVE, num_inference_steps=1, guidance_scale=7.5,
        output_type="latent", latents=noise, height=128, width=128,
    ).images  # fmt: skip
    latents = ours(pair, sampler="ddim", num_inference_steps=1, width=128, height=128)
    torch.testing.assert_close(latents, expected, rtol=0, atol=TOLERANCE)
