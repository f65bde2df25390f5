"""A student in few steps, each of which was two of its teacher's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from izograf.core.config import apply_settings, config_to_json
from izograf.objectives.distillation import ProgressiveDistillation
from izograf.objectives.teacher import euler_step, heun_step
from izograf.recipes import parts
from izograf.recipes.registry import RunRequest, recipe
from izograf.recipes.students import DEFAULTS, TAKES, student_card, student_job, student_steps
from izograf.recipes.teacher import Teacher
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.training.run import Job

NAME = "progressive-distillation"
PAPER = "Salimans & Ho 2022 (arXiv:2202.00512); guided teacher after Meng et al. 2023 (2210.03142)"
OBJECTIVE = "two-steps-in-one"
SAMPLER = "euler"


@dataclass(frozen=True)
class ProgressiveConfig:
    """What `--set` reaches.

    Attributes:
        stages: how often the number of steps is halved on the way to the student's.
        schedule: of the finest grid, by name; None for the default of the teacher's card.
        solver: how the first teacher steps on that grid.
    """

    stages: int = 2
    schedule: str | None = None
    solver: Literal["heun", "euler"] = "heun"

    def __post_init__(self) -> None:
        if not 1 <= self.stages <= 8:
            raise ValueError(f"stages must be from 1 to 8, got {self.stages}")


@recipe(
    NAME,
    summary="a diffusion model's student in 8, 4, 2 steps or 1, by halving its steps in stages",
    paper=PAPER,
    objectives=(OBJECTIVE,),
    takes=TAKES,
    needs=("teacher",),
)
def progressive_distillation(request: RunRequest) -> Job:
    """`--teacher scenes --student-steps 4`: 16 steps of the teacher become 8 and then 4.

    The levels of the student are every 4th of the teacher's schedule of 16 steps, and go on its
    card. A teacher that is such a student itself teaches on its own levels.
    """
    chosen = request.hyperparameters.over(replace(DEFAULTS, objective=OBJECTIVE))
    config = apply_settings(ProgressiveConfig(), chosen.settings)
    steps = student_steps(chosen)
    if chosen.patience:
        raise InvalidInput(
            f"A run of {NAME} has stages and must reach the last: leave out --patience."
        )
    teacher = Teacher.open(request, chosen)
    config, sigmas = _grid(teacher, steps, config)
    guidance, guided = teacher.guidance(chosen.guidance)
    student = teacher.student(chosen.seed)
    training = chosen.training()
    objective = ProgressiveDistillation(
        student,
        teacher.denoiser,
        parts.make_optimizer(student.parameters(), chosen),
        sigmas=sigmas,
        images=training.images,
        num_stages=config.stages,
        guidance=guidance,
        class_dropout=chosen.class_dropout or 0.0,
        first_step=heun_step if config.solver == "heun" else euler_step,
        ema_share=training.ema_share,
    )
    taught: dict[str, Any] = {"steps": len(sigmas) - 1, **config_to_json(config), **guided}

    def card() -> ModelCard:
        stride = (len(sigmas) - 1) // objective.num_steps
        return student_card(
            request, teacher, chosen, recipe=NAME, paper=PAPER, levels=sigmas[::stride],
            least=objective.num_steps, sampler=SAMPLER, taught=taught,
        )  # fmt: skip

    return student_job(request, teacher, chosen, objective, objective.held_out_loss, card)


def _grid(
    teacher: Teacher, steps: int, config: ProgressiveConfig
) -> tuple[ProgressiveConfig, Tensor]:
    """The finest levels, and the config that is meant: a student as teacher has its own."""
    own = teacher.own_levels()
    if own is None:
        return config, teacher.levels(2**config.stages * steps, config.schedule)
    options = {option.name: option.default for option in teacher.card.options}
    stages = round(math.log2(max(1, (len(own) - 1) // steps)))
    if options["sampler"] != SAMPLER or stages < 1 or 2**stages * steps != len(own) - 1:
        raise InvalidInput(
            f"{teacher.card.name} is itself a student in {len(own) - 1} steps by the sampler "
            f"{options['sampler']}, which cannot be halved to {steps}: name another teacher, or "
            "another number of --student-steps."
        )
    return ProgressiveConfig(stages, None, "euler"), own
