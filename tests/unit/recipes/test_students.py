"""Few-step students: they learn what their teacher does, and their cards say how to sample them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from izograf.checkpoints.load import load_generator
from izograf.core.rng import SeededNoise, generator
from izograf.core.types import Condition, ignore
from izograf.data.dataset import ImageSet
from izograf.data.scan import ScanReport
from izograf.diffusion.guidance import classifier_free
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import karras
from izograf.generators.diffusion import TRAINED, DiffusionGenerator
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.labels import ClassLabel
from izograf.schema.library import read_card
from izograf.training.ema import MovingAverage
from izograf.training.run import Job
from izograf.training.trainer import TrainingState, train

SIZE = 8
NETWORK = ("width=16", "depth=1", "head_dim=16")
RECIPE = {"progressive": "progressive-distillation", "consistency": "consistency"}
SEEDS = range(64)
CONDITION = Condition(class_ids=torch.arange(64) % 2)


def two_colours(count: int, split: str) -> ImageSet:
    """One half of a picture is dark and one bright; the class says how it is halved."""
    rng = generator("tests", "two colours", split)
    class_ids = torch.arange(count) % 2
    images = torch.randint(0, 30, (count, 3, SIZE, SIZE), generator=rng, dtype=torch.uint8)
    bright = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.bool)
    bright[:, :, : SIZE // 2] = True
    bright[class_ids == 1] = bright[class_ids == 1].transpose(2, 3)
    swapped = torch.rand(count, generator=rng) < 0.5
    bright[swapped] = ~bright[swapped]
    images += 225 * bright
    return ImageSet(
        images=images,
        class_ids=class_ids,
        classes=(ClassLabel("across"), ClassLabel("down")),
        names=tuple(f"{split}-{i}.png" for i in range(count)),
        name="two-colours",
        split=split,
        resize="none",
        report=ScanReport(read=count),
    )


def job_of(recipe: str, **chosen: Any) -> Job:
    fast: dict[str, Any] = {"device": "cpu", "precision": "fp32", "batch_size": 32, "warmup": 0.0}
    asked = Hyperparameters(**{**fast, **chosen})
    RECIPES[recipe].check(asked)
    sets = (two_colours(512, "train"), two_colours(32, "test"))
    return RECIPES[recipe].build(RunRequest("student", *sets, "made here", asked))


def trained(job: Job, folder: Path) -> ModelCard:
    average = MovingAverage(
        job.objective.modules, job.objective.averaged, share=job.training.ema_share
    )
    state = TrainingState(average)
    train(job.objective, job.batches, job.training, state, job.placement, lambda *_: None)
    assert job.export is not None
    job.export(average.modules, folder, {"images_seen": state.images_seen})
    return read_card(folder)


def loaded(folder: Path) -> DiffusionGenerator:
    model, _ = load_generator(str(folder), device="cpu", precision="fp32")
    assert isinstance(model, DiffusionGenerator)
    return model


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "two-colours"
    job = job_of("diffusion-unet", images=8_000, settings=NETWORK, learning_rate=4e-3)
    trained(job, folder)
    return folder


def by_euler(model: DiffusionGenerator, sigmas: Tensor, scale: float) -> Tensor:
    noise = SeededNoise((3, SIZE, SIZE), SEEDS)
    denoise = classifier_free(scale)(model.denoiser)
    with torch.inference_mode():
        return SAMPLERS["euler"](
            denoise, noise() * float(sigmas[0]), sigmas.float(), CONDITION, noise, ignore
        )


def distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).square().mean().sqrt())


def test_four_steps_of_the_student_are_nearer_to_sixteen_of_its_teacher_than_its_own_four(
    teacher: Path, tmp_path: Path
) -> None:
    job = job_of(
        RECIPE["progressive"], teacher=str(teacher), images=16_000, guidance=2.0,
        learning_rate=1e-3, settings=("solver=euler",),
    )  # fmt: skip
    card = trained(job, tmp_path)
    model = loaded(teacher)
    fine = karras(16, model.card.sampling["sigma_min"], model.card.sampling["sigma_max"])
    sixteen = by_euler(model, fine, 2.0)
    assert card.sampling["levels"] == fine[::4].tolist()
    student = loaded(tmp_path).sample(CONDITION, SEEDS)
    own = [by_euler(model, levels, 2.0) for levels in (fine[::4], karras(4, 0.02, 80.0))]
    print(distance(student, sixteen), [distance(four, sixteen) for four in own])
    assert distance(student, sixteen) < 0.6 * min(distance(four, sixteen) for four in own)
