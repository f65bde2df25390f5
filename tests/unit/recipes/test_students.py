"""Few-step students: they learn what their teacher does, and their cards say how to sample them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from izograf.checkpoints.files import GUIDE, WEIGHTS
from izograf.checkpoints.load import load_generator
from izograf.core.rng import SeededNoise, generator
from izograf.core.types import Condition, ignore
from izograf.data.dataset import ImageSet
from izograf.data.scan import ScanReport
from izograf.diffusion.guidance import classifier_free
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import karras
from izograf.generators.diffusion import DiffusionGenerator, schedule_of
from izograf.generators.diffusion_options import TRAINED
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.labels import ClassLabel
from izograf.schema.library import read_card
from izograf.training.ema import MovingAverage
from izograf.training.run import Job
from izograf.training.trainer import TrainingState
from izograf.training.trainer import train as take_steps

SIZE = 8
NETWORK = ("width=32", "depth=2", "head_dim=16", "patch_size=2")
PROGRESSIVE, CONSISTENCY = "progressive-distillation", "consistency"
TRAJECTORY = "trajectory-distillation"
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


def job_of(recipe: str, *, classes: tuple[str, str] = ("across", "down"), **chosen: Any) -> Job:
    fast: dict[str, Any] = {"device": "cpu", "precision": "fp32", "batch_size": 32, "warmup": 0.0}
    asked = Hyperparameters(**{**fast, **chosen})
    RECIPES[recipe].check(asked)
    labels = tuple(map(ClassLabel, classes))
    sets = [
        replace(two_colours(count, split), classes=labels)
        for count, split in ((256, "train"), (16, "test"))
    ]
    return RECIPES[recipe].build(RunRequest("student", sets[0], sets[1], "made here", asked))


def finished(job: Job, folder: Path, *, images: int | None = None) -> ModelCard:
    average = MovingAverage(
        job.objective.modules, job.objective.averaged, share=job.training.ema_share
    )
    state = TrainingState(average)
    config = replace(job.training, images=images or job.training.images)
    take_steps(job.objective, job.batches, config, state, job.placement, lambda *_: None)
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
    finished(job_of("dit", images=6_400, settings=NETWORK, learning_rate=4e-3), folder)
    return folder


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In four steps, trained long enough to be one."""
    folder = tmp_path_factory.mktemp("student") / "four"
    job = job_of(
        PROGRESSIVE, teacher=str(teacher), images=12_800, guidance=2.0, learning_rate=2e-3,
        settings=("solver=euler",),
    )  # fmt: skip
    finished(job, folder)
    return folder


def by_euler(model: DiffusionGenerator, sigmas: Tensor, scale: float) -> Tensor:
    noise = SeededNoise((3, SIZE, SIZE), SEEDS)
    denoise = classifier_free(scale)(model.denoiser)
    with torch.inference_mode():
        return SAMPLERS["euler"](
            denoise, noise() * float(sigmas[0]), sigmas.float(), CONDITION, noise, ignore
        )


def distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().mean())


def test_four_steps_of_the_student_are_nearer_to_sixteen_of_its_teacher_than_its_own_four(
    teacher: Path, student: Path
) -> None:
    model = loaded(teacher)
    fine = karras(16, 0.02, 80.0)
    assert read_card(student).sampling["levels"] == fine[::4].tolist()
    sixteen = by_euler(model, fine, 2.0)
    found = distance(loaded(student).sample(CONDITION, SEEDS), sixteen)
    for levels in (fine[::4], karras(4, 0.02, 80.0)):
        assert found < 0.9 * distance(by_euler(model, levels, 2.0), sixteen)


def test_a_student_does_not_inherit_the_guide_of_its_teacher(teacher: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(teacher, tmp_path / "guided")
    shutil.copy(folder / WEIGHTS, folder / GUIDE)
    card = read_card(folder)
    guided = replace(
        card, weights={**card.weights, GUIDE: card.weights[WEIGHTS]},
        sampling={**card.sampling, "guide": {"images_seen": 8}},
    )  # fmt: skip
    (folder / "card.json").write_text(guided.dumps())
    learned = finished(job_of(CONSISTENCY, teacher=str(folder), images=32), tmp_path / "student")
    assert "guide" not in learned.sampling
    assert set(learned.weights) == {WEIGHTS}
    loaded(tmp_path / "student")


def test_the_card_of_a_student_says_how_it_is_sampled_and_whose_it_is(
    teacher: Path, student: Path
) -> None:
    parent, card = read_card(teacher), read_card(student)
    assert card.parents == (f"{parent.name}@{parent.fingerprint}",)
    assert card.summary == "student in 4 steps, 8 px"  # the teacher is called so, too
    assert {option.name: option.default for option in card.options} == {
        "num_inference_steps": 4, "sampler": "euler", "schedule": TRAINED,
    }  # fmt: skip
    assert card.recipe["teacher"] == {
        "model": "student", "steps": 16, "stages": 2, "schedule": None, "solver": "euler",
        "guidance_scale": 2.0, "guidance_low": 0.0, "guidance_high": 1000.0,
    }  # fmt: skip
    assert card.sampling["preconditioner"] == parent.sampling["preconditioner"]
    assert card.recipe["hyperparameters"]["teacher"] == teacher.name, "not where it lay"
    model = loaded(student)
    for option in ({"num_inference_steps": 3}, {"sampler": "heun"}, {"guidance_scale": 2.0}):
        with pytest.raises(InvalidInput):
            model.sample(CONDITION, SEEDS, options=option)


def test_the_levels_are_exactly_those_it_was_trained_at(student: Path) -> None:
    asked: list[float] = []
    model = loaded(student)
    denoiser = model.denoiser

    def recorded(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        asked.append(float(sigma[0]))
        return denoiser(x, sigma, condition)  # type: ignore[no-any-return]

    model.denoiser = recorded  # type: ignore[assignment]
    model.sample(CONDITION, SEEDS)
    assert asked == karras(16, 0.02, 80.0)[:-1:4].float().tolist()


def test_a_run_that_stands_in_its_first_stage_has_the_card_of_that_stage(
    teacher: Path, tmp_path: Path
) -> None:
    job = job_of(PROGRESSIVE, teacher=str(teacher), images=640, student_steps=2)
    card = finished(job, tmp_path, images=64)
    assert card.sampling["levels"] == karras(8, 0.02, 80.0)[::2].tolist()
    assert card.summary == "student in 4 steps, 8 px"
    assert loaded(tmp_path).sample(CONDITION, SEEDS).shape == (64, 3, SIZE, SIZE)


def test_a_student_teaches_one_of_half_its_steps_on_its_own_levels(
    student: Path, tmp_path: Path
) -> None:
    card = finished(job_of(PROGRESSIVE, teacher=str(student), images=64, student_steps=1), tmp_path)
    assert card.sampling["levels"] == [80.0, 0.0]
    assert card.recipe["teacher"]["stages"] == 2
    assert "guidance_scale" not in card.recipe["teacher"]
    assert card.summary.endswith("in 1 step, 8 px")
    assert loaded(tmp_path).sample(CONDITION, SEEDS).isfinite().all()


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_a_consistency_student_takes_up_to_its_steps_at_levels_it_was_trained_at(
    teacher: Path, tmp_path: Path, steps: int
) -> None:
    chosen = {"teacher": str(teacher), "images": 64, "student_steps": steps}
    card = finished(job_of(CONSISTENCY, **chosen), tmp_path)
    levels = card.sampling["levels"]
    assert len(levels) == steps + 1
    assert set(levels) <= set(karras(18, 0.02, 80.0).tolist())
    model = loaded(tmp_path)
    for count in {1, steps}:
        pictures = model.sample(CONDITION, SEEDS, options={"num_inference_steps": count})
        assert pictures.isfinite().all()
    with pytest.raises(InvalidInput, match="num_inference_steps"):
        model.sample(CONDITION, SEEDS, options={"num_inference_steps": steps + 1})
    with pytest.raises(InvalidInput, match="num_levels must be from 18"):
        job_of(CONSISTENCY, settings=("num_levels=4",), **chosen)


def test_a_student_that_walks_by_itself_ends_nearer_to_its_teachers_pictures(
    teacher: Path, tmp_path: Path
) -> None:
    job = job_of(
        TRAJECTORY, teacher=str(teacher), images=3_200, guidance=2.0, learning_rate=2e-3,
        settings=("substeps=3,3,4,2", "schedule=linear-time"),
    )  # fmt: skip
    card = finished(job, tmp_path)
    model = loaded(teacher)
    fine = schedule_of(model.card, "linear-time")(12, 0.02, 80.0)
    taken = fine[[0, 3, 6, 10, 12]]
    assert card.sampling["levels"] == taken.tolist()
    assert card.recipe["teacher"] == {
        "model": "student", "solver": "dpm-solver++", "steps": 12, "substeps": [3, 3, 4, 2],
        "schedule": "linear-time", "guidance_scale": 2.0, "guidance_low": 0.0,
        "guidance_high": 1000.0,
    }  # fmt: skip
    goal = by_euler(model, karras(40, 0.02, 80.0), 2.0)
    found = distance(loaded(tmp_path).sample(CONDITION, SEEDS), goal)
    assert found < 0.75 * distance(by_euler(model, taken, 2.0), goal)


def test_pictures_of_one_consistent_step_are_nearer_to_the_teachers_than_its_own_one(
    teacher: Path, tmp_path: Path
) -> None:
    """Its own single step is the mean of all pictures."""
    model = loaded(teacher)
    goal = by_euler(model, karras(40, 0.02, 80.0), 1.0)
    job = job_of(CONSISTENCY, teacher=str(teacher), images=3_200, guidance=1.0, learning_rate=2e-3)
    finished(job, tmp_path)
    one = loaded(tmp_path).sample(CONDITION, SEEDS, options={"num_inference_steps": 1})
    assert distance(one, goal) < 0.75 * distance(
        by_euler(model, torch.tensor([80.0, 0.0]), 1.0), goal
    )


@pytest.mark.parametrize("recipe", [PROGRESSIVE, CONSISTENCY, TRAJECTORY])
@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"teacher": "scenes-gan"}, "takes a diffusion model, and scenes-gan is a latent model"),
        ({"teacher": "scenes"}, "64 pixels, and this run has 8: use --image-size 64"),
        ({"classes": ("across", "up")}, "the classes across, down, and the data has across, up"),
        ({"teacher": None}, "needs --teacher"),
        ({"student_steps": 3}, "--student-steps must be one of 1, 2, 4, 8, got 3"),
        ({"guidance": 40.0}, "guidance_scale must be from 0 to 20"),
        ({"settings": ("width=16",)}, "has no field 'width'; its fields are"),
        ({"noise_law": "cosine"}, "leave out --noise-law"),
    ],
)
def test_what_no_student_can_learn_from_is_refused(
    teacher: Path, recipe: str, chosen: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        job_of(recipe, **{"teacher": str(teacher), "images": 64, **chosen})


def test_what_only_one_of_the_recipes_refuses(teacher: Path, student: Path) -> None:
    with pytest.raises(InvalidInput, match="leave out --patience"):
        job_of(PROGRESSIVE, teacher=str(teacher), patience=2)
    with pytest.raises(InvalidInput, match="stages must be from 1"):
        job_of(PROGRESSIVE, teacher=str(teacher), settings=("stages=0",))
    with pytest.raises(InvalidInput, match="cannot be halved to 4"):
        job_of(PROGRESSIVE, teacher=str(student))
    with pytest.raises(InvalidInput, match="cannot be guided"):
        job_of(PROGRESSIVE, teacher=str(student), student_steps=2, guidance=2.0)
    with pytest.raises(InvalidInput, match="is a student itself"):
        job_of(CONSISTENCY, teacher=str(student))
    with pytest.raises(InvalidInput, match="is a student itself"):
        job_of(TRAJECTORY, teacher=str(student))
    with pytest.raises(InvalidInput, match="substeps must be from 1 to 32"):
        job_of(TRAJECTORY, teacher=str(teacher), settings=("substeps=0",))
    with pytest.raises(InvalidInput, match="schedule must be one of"):
        job_of(TRAJECTORY, teacher=str(teacher), settings=("schedule=trained",))
    with pytest.raises(InvalidInput, match="one number or, with --student-steps 4, 4 of them"):
        job_of(TRAJECTORY, teacher=str(teacher), settings=("substeps=4,4",))
    with pytest.raises(InvalidInput, match="leave out --student-steps"):
        job_of("dit", student_steps=4)


@pytest.mark.parametrize(
    "levels", [None, "few", [], [0.0], [80.0, 3.0], [3.0, 80.0, 0.0], [80.0, 0.0], [[80.0], [0.0]]]
)
def test_a_card_without_the_levels_it_offers_is_refused(
    levels: Any, student: Path, tmp_path: Path
) -> None:
    raw = json.loads((student / "card.json").read_text())
    raw["sampling"]["levels"] = levels
    (tmp_path / "card.json").write_text(json.dumps(raw))
    (tmp_path / "weights.safetensors").symlink_to(student / "weights.safetensors")
    with pytest.raises(CardError, match="does not have the noise levels that it offers"):
        loaded(tmp_path)


@pytest.fixture
def distil(izograf: Any, pictures: Path, here: Path) -> Any:
    """distil(recipe, teacher, options...) -> the folder of a tiny run by the command line."""

    def call(recipe: str, teacher: Path, *options: object) -> Path:
        outcome = izograf(
            "train", recipe, "--data", pictures, "--teacher", teacher, "--out", here / "few",
            "--image-size", 16, "--device", "cpu", "--precision", "fp32", "--batch-size", 8,
            "--student-steps", 4, *options,
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        return here / "few"

    return call


@pytest.mark.parametrize("recipe", [PROGRESSIVE, CONSISTENCY, TRAJECTORY])
def test_from_the_command_line_to_a_picture(
    recipe: str, distil: Any, izograf: Any, trained: Any
) -> None:
    teacher = trained("diffusion-unet")
    few = distil(recipe, teacher, "--images", 32, "--evaluate-every", 16)
    card = read_card(few)
    assert card.parents[0].endswith(read_card(teacher).fingerprint)
    assert {"kid", "validation_loss"} <= set(card.recipe["evaluated"])
    assert list((few / "samples").iterdir())
    made = izograf("generate", "--model", few, "--class", "sea", "-o", few / "sea.png")
    assert made.code == 0, made.err
    refused = izograf("generate", "--model", few, "--steps", 50, "-o", few / "no.png")
    assert refused.code != 0
    assert "num_inference_steps must be" in refused.err


def test_a_latent_model_can_be_a_teacher(
    distil: Any, train: Any, trained: Any, tmp_path: Path
) -> None:
    eyes = trained("kl-autoencoder")
    run = train("latent-diffusion", tmp_path / "run", "--images", 8, "--autoencoder", eyes)
    assert run.code == 0, run.err
    few = distil(PROGRESSIVE, tmp_path / "run", "--images", 16)
    model = loaded(few)
    made = model.sample(Condition(class_ids=torch.tensor([0, 1])), [1, 2])
    assert made.shape == (2, 3, 16, 16)
    assert (
        read_card(few).sampling["autoencoder"]
        == read_card(tmp_path / "run").sampling["autoencoder"]
    )
