"""A student that is led back to its teacher's path after every step of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from izograf.core.config import apply_settings, config_to_json
from izograf.diffusion.samplers import SAMPLERS
from izograf.objectives.distillation import TrajectoryDistillation
from izograf.recipes import parts
from izograf.recipes.registry import RunRequest, recipe
from izograf.recipes.students import DEFAULTS, TAKES, student_card, student_job, student_steps
from izograf.recipes.teacher import Teacher
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.training.run import Job

NAME = "trajectory-distillation"
PAPER = "Zhou et al. 2024 (SFD, arXiv:2409.19681)"
OBJECTIVE = "trajectory-matching"
SAMPLER = "euler"
SOLVER = "dpm-solver++"


@dataclass(frozen=True)
class TrajectoryConfig:
    """What `--set` reaches.

    Attributes:
        substeps: of the teacher within each step of the student; one number is meant for all.
            `4,2,1,4` are four steps over eleven, which meet where the picture takes shape: fewer
            levels there are the longest ways to learn.
        schedule: of the teacher's levels, by name; None for the default of its card.
    """

    substeps: tuple[int, ...] = (4,)
    schedule: str | None = None

    def __post_init__(self) -> None:
        if not self.substeps or not all(1 <= steps <= 32 for steps in self.substeps):
            raise ValueError(f"substeps must be from 1 to 32, got {_listed(self.substeps)}")

    def of_each(self, steps: int) -> tuple[int, ...]:
        """The substeps of every one of `steps`.

        Raises:
            InvalidInput: as many are not given.
        """
        each = self.substeps * steps if len(self.substeps) == 1 else self.substeps
        if len(each) != steps:
            raise InvalidInput(
                f"--set substeps= takes one number or, with --student-steps {steps}, {steps} of "
                f"them, got {_listed(each)}."
            )
        return each


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers)) or "none"


@recipe(
    NAME,
    summary="a diffusion model's student in 8, 4, 2 steps or 1, which mends its own errors",
    paper=PAPER,
    objectives=(OBJECTIVE,),
    takes=TAKES,
    needs=("teacher",),
)
def trajectory_distillation(request: RunRequest) -> Job:
    """`--teacher scenes --student-steps 4`: 16 steps of the teacher, by DPM-Solver++, become 4.

    One picture seen is one drawn by the teacher and by the student: many times the work of a
    picture of the other students' recipes, and many fewer are needed.
    """
    chosen = request.hyperparameters.over(
        replace(DEFAULTS, images=16_000, batch_size=16, objective=OBJECTIVE)
    )
    config = apply_settings(TrajectoryConfig(), chosen.settings)
    steps = student_steps(chosen)
    teacher = Teacher.open(request, chosen)
    teacher.require_any_level()
    substeps = config.of_each(steps)
    sigmas = teacher.levels(sum(substeps), config.schedule)
    guidance, guided = teacher.guidance(chosen.guidance)
    student = teacher.student(chosen.seed)
    objective = TrajectoryDistillation(
        student,
        teacher.denoiser,
        parts.make_optimizer(student.parameters(), chosen),
        sigmas=sigmas,
        substeps=substeps,
        solver=SAMPLERS[SOLVER],
        guidance=guidance,
        class_dropout=chosen.class_dropout or 0.0,
    )
    taught = {"solver": SOLVER, "steps": len(sigmas) - 1, **config_to_json(config), **guided}

    def card() -> ModelCard:
        return student_card(
            request, teacher, chosen, recipe=NAME, paper=PAPER, levels=sigmas[objective.taken],
            least=steps, sampler=SAMPLER, taught=taught,
        )  # fmt: skip

    return student_job(request, teacher, chosen, objective, objective.held_out_loss, card)
