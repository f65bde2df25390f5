"""A student whose every answer is a picture: consistency distillation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from izograf.core.config import apply_settings, config_to_json
from izograf.objectives.distillation import ConsistencyDistillation
from izograf.recipes import parts
from izograf.recipes.registry import RunRequest, recipe
from izograf.recipes.students import DEFAULTS, TAKES, student_card, student_job, student_steps
from izograf.recipes.teacher import Teacher
from izograf.schema.card import ModelCard
from izograf.training.run import Job

NAME = "consistency"
PAPER = "Song et al. 2023 (arXiv:2303.01469); distance after Song & Dhariwal 2024 (2310.14189)"
OBJECTIVE = "pseudo-huber"
SAMPLER = "consistency"


@dataclass(frozen=True)
class ConsistencyConfig:
    """What `--set` reaches.

    Attributes:
        num_levels: how many noise levels the student is trained at. More make smaller steps of the
            teacher and more of them to agree on: 18 in the paper at 32 pixels, 40 at 64.
    """

    num_levels: int = 18

    def __post_init__(self) -> None:
        if not 18 <= self.num_levels <= 1000:
            raise ValueError(f"num_levels must be from 18 to 1000, got {self.num_levels}")


@recipe(
    NAME,
    summary="a diffusion model's student in one step, or a few that add fresh noise",
    paper=PAPER,
    objectives=(OBJECTIVE,),
    takes=TAKES,
    needs=("teacher",),
)
def consistency(request: RunRequest) -> Job:
    """`--teacher scenes --student-steps 4`: from 1 to 4 steps of the sampler `consistency`.

    It is trained on Karras' levels, and steps at those of them that lie nearest to even steps of
    the flow's time sigma / (1 + sigma), where Song & Dhariwal 2024 put theirs about.
    """
    chosen = request.hyperparameters.over(replace(DEFAULTS, objective=OBJECTIVE))
    config = apply_settings(ConsistencyConfig(), chosen.settings)
    steps = student_steps(chosen)
    teacher = Teacher.open(request, chosen)
    teacher.require_any_level()
    sigmas = teacher.levels(config.num_levels, "karras")
    even = teacher.levels(steps + 1, "linear-time")[:steps]
    nearest = (sigmas[None, :-1] - even[:, None]).abs().argmin(dim=1)
    levels = sigmas[[*nearest.tolist(), -1]]
    guidance, guided = teacher.guidance(chosen.guidance)
    student = teacher.student(chosen.seed)
    objective = ConsistencyDistillation(
        student,
        teacher.denoiser,
        parts.make_optimizer(student.parameters(), chosen),
        sigmas=sigmas,
        guidance=guidance,
        class_dropout=chosen.class_dropout or 0.0,
    )
    taught = {**config_to_json(config), **guided}

    def card() -> ModelCard:
        return student_card(
            request, teacher, chosen, recipe=NAME, paper=PAPER, levels=levels,
            least=1, sampler=SAMPLER, taught=taught,
        )  # fmt: skip

    return student_job(request, teacher, chosen, objective, objective.held_out_loss, card)
