"""What the recipes of few-step students share: the teacher, the student's card, and the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from izograf.core.types import Objective
from izograf.data.batches import horizontal_flip
from izograf.diffusion.denoiser import Denoiser
from izograf.generators.autoencoder import PREFIX
from izograf.generators.diffusion import DiffusionGenerator
from izograf.generators.diffusion_options import student_options
from izograf.recipes import parts
from izograf.recipes.latents import either_latent, with_part
from izograf.recipes.perceptual import parent_of
from izograf.recipes.registry import Hyperparameters, RunRequest
from izograf.recipes.teacher import Teacher
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.training.run import Averaged, Job

STUDENT_STEPS = (1, 2, 4, 8)
TAKES = ("teacher", "student_steps", "guidance")

DEFAULTS = Hyperparameters(
    images=400_000,
    batch_size=64,
    optimizer="adamw",
    objective="",
    learning_rate=2e-4,
    weight_decay=0.0,
    gradient_clip=1.0,
    class_dropout=0.1,
    flip=False,
    student_steps=4,
)


def student_steps(chosen: Hyperparameters) -> int:
    """
    Raises:
        InvalidInput: not one of `STUDENT_STEPS`.
    """
    if chosen.student_steps not in STUDENT_STEPS:
        known = ", ".join(map(str, STUDENT_STEPS))
        raise InvalidInput(f"--student-steps must be one of {known}, got {chosen.student_steps}.")
    return chosen.student_steps


def student_card(
    request: RunRequest,
    teacher: Teacher,
    chosen: Hyperparameters,
    *,
    recipe: str,
    paper: str,
    levels: Tensor,
    least: int,
    sampler: str,
    taught: Mapping[str, Any],
) -> ModelCard:
    """The card of a student that takes from `least` to N steps at `levels` [N+1].

    `taught` is what the card says about the teacher besides its name.
    """
    num_steps = len(levels) - 1
    taken = {key: fact for key, fact in teacher.card.sampling.items() if key != "guide"}
    card = parts.model_card(
        request,
        recipe=recipe,
        paper=paper,
        chosen=chosen,
        family="diffusion",
        network=teacher.described(),
        options=student_options(num_steps, least=least, sampler=sampler),
        sampling={**taken, "levels": levels.tolist()},
        parents=(parent_of(teacher.card),),
        summary=f"{teacher.card.name} in {_counted(num_steps)}, {request.image_size} px",
    )
    told = {"model": teacher.card.name, **taught}
    return replace(card, classes=teacher.card.classes, recipe={**card.recipe, "teacher": told})


def student_job(
    request: RunRequest,
    teacher: Teacher,
    chosen: Hyperparameters,
    objective: Objective,
    held_out_loss: Callable[..., Tensor],
    card: Callable[[], ModelCard],
) -> Job:
    """The run of a student. `card()` is that of the student as it is now.

    The held-out number that decides which checkpoint is the best is KID of few-step samples: the
    loss of one stage of a student does not compare with that of the next.
    """
    placement, codec = teacher.placement, teacher.codec
    data = teacher.request(request, mirrored=bool(chosen.flip))

    def generator_of(averaged: Averaged) -> DiffusionGenerator:
        return DiffusionGenerator(card(), _student(averaged), placement, codec)

    def weights_of(averaged: Averaged) -> nn.Module:
        network = _student(averaged).network
        return network if codec is None else with_part(network, PREFIX, codec.network)

    def preview(averaged: Averaged, path: Path) -> None:
        parts.preview_sheet(card(), generator_of, placement)(averaged, path)

    def export(averaged: Averaged, folder: Path, facts: Mapping[str, Any]) -> None:
        parts.exporter(card(), weights_of, placement)(averaged, folder, facts)

    loss = parts.held_out_evaluation(data, chosen, placement, held_out_loss, "student")
    kid = parts.kid_evaluation(request, chosen, generator_of, placement)

    def evaluate(averaged: Averaged) -> Mapping[str, float]:
        found = dict(loss(averaged)) if loss else {}
        return found | (dict(kid(averaged)) if kid else {})

    mirror = horizontal_flip if codec is None else either_latent
    return Job(
        objective=objective,
        batches=parts.training_batches(data, chosen, placement, mirror=mirror),
        training=chosen.training(),
        run=chosen.run(monitor="kid" if kid else ""),
        placement=placement,
        evaluate=evaluate if loss or kid else None,
        preview=preview,
        export=export,
    )


def _counted(num_steps: int) -> str:
    return "1 step" if num_steps == 1 else f"{num_steps} steps"


def _student(averaged: Averaged) -> Denoiser:
    student = averaged["student"]
    assert isinstance(student, Denoiser)
    return student
