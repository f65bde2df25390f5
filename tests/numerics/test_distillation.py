"""Distillation: what a student is asked for, on data whose denoiser is known in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from izograf.core.rng import SeededNoise, generator
from izograf.core.types import Batch, Condition, ignore
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.guidance import classifier_free
from izograf.diffusion.precondition import Flow
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import karras
from izograf.objectives.distillation import (
    ConsistencyDistillation,
    ProgressiveDistillation,
    TrajectoryDistillation,
    pseudo_huber,
)
from izograf.objectives.teacher import (
    euler_step,
    guided_teacher,
    heun_step,
    trajectory,
    two_steps_in_one,
)

MEANS = torch.tensor([[1.0, -1.0], [-2.0, 0.5], [0.5, 2.0]], dtype=torch.float64)
WORLD = GaussianMixture(torch.ones(3), MEANS, torch.full((3,), 0.05, dtype=torch.float64))
SIGMAS = karras(8, 0.02, 80.0)


class Tiny(nn.Module):
    """A network of one parameter that the class moves."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        shift = 0.0 if condition.class_ids is None else condition.class_ids[:, None, None, None]
        return self.weight * x + 0.1 * shift + c_noise[:, None, None, None]


def denoiser(value: float = 0.3) -> Denoiser:
    return Denoiser(Tiny(value), Flow())


def batch(count: int = 16) -> Batch:
    rng = generator("tests", "distillation")
    images = torch.rand(count, 3, 4, 4, generator=rng) * 2 - 1
    return Batch(images, Condition(class_ids=torch.arange(count) % 3))


def levels(count: int, index: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    picked = SIGMAS[index], SIGMAS[index + stride], SIGMAS[index + 2 * stride]
    return tuple(level.expand(count) for level in picked)  # type: ignore[return-value]


@pytest.mark.parametrize(("index", "stride"), [(0, 1), (2, 1), (6, 1), (0, 4), (4, 2)])
def test_one_step_towards_the_target_lands_where_two_steps_of_the_teacher_do(
    index: int, stride: int
) -> None:
    rng = generator("tests", index)
    start, middle, end = levels(64, index, stride)
    x = torch.randn(64, 2, 1, 1, generator=rng).double() * start[:, None, None, None]
    target = two_steps_in_one(WORLD.denoise, x, (start, middle, end), Condition())
    landed = euler_step(lambda *_: target, x, start, end, Condition())
    between = euler_step(WORLD.denoise, x, start, middle, Condition())
    expected = euler_step(WORLD.denoise, between, middle, end, Condition())
    torch.testing.assert_close(landed, expected, rtol=1e-9, atol=1e-9)


def test_heuns_step_is_of_second_order_and_goes_to_zero_as_eulers() -> None:
    x = torch.randn(32, 2, 1, 1, generator=generator("heun")).double() * 2
    errors = []
    for parts in (1, 2, 4, 64):
        state, sigmas = x, torch.linspace(2.0, 1.0, parts + 1, dtype=torch.float64)
        for sigma, following in itertools.pairwise(sigmas):
            state = heun_step(
                WORLD.denoise, state, sigma.expand(32), following.expand(32), Condition()
            )
        errors.append(state)
    distances = [float((state - errors[-1]).abs().mean()) for state in errors[:-1]]
    assert distances[0] > 3 * distances[1] > 9 * distances[2]
    mixed = torch.tensor([0.0, 1.0]).repeat(16).double()
    both = heun_step(WORLD.denoise, x, torch.full((32,), 2.0).double(), mixed, Condition())
    to_zero = euler_step(WORLD.denoise, x, torch.full((32,), 2.0).double(), mixed * 0, Condition())
    torch.testing.assert_close(both[::2], to_zero[::2])


def test_the_pseudo_huber_distance_is_the_euclidean_one_far_away_and_smooth_at_zero() -> None:
    far = torch.full((1, 3, 4, 4), 1.0)
    assert pseudo_huber(far).item() == pytest.approx(48**0.5, rel=0.01)
    zero = torch.zeros(1, 3, 4, 4, requires_grad=True)
    pseudo_huber(zero).sum().backward()  # type: ignore[no-untyped-call]
    assert zero.grad is not None
    assert float(zero.grad.abs().max()) == 0.0


def progressive(**changes: object) -> ProgressiveDistillation:
    student = denoiser(0.5)
    settings = {
        "sigmas": SIGMAS, "images": 90, "num_stages": 3, "guidance": guided_teacher(2.0),
        "ema_share": 0.0,
    }  # fmt: skip
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    return ProgressiveDistillation(student, denoiser(), optimizer, **(settings | changes))  # type: ignore[arg-type]


def walking(substeps: Sequence[int] = (2, 2, 2, 2)) -> TrajectoryDistillation:
    student = denoiser(0.5)
    return TrajectoryDistillation(
        student, denoiser(), torch.optim.SGD(student.parameters(), lr=0.1),
        sigmas=SIGMAS, substeps=substeps, solver=SAMPLERS["dpm-solver++"],
        guidance=guided_teacher(2.0),
    )  # fmt: skip


def test_only_the_student_learns() -> None:
    for objective in (
        progressive(),
        ConsistencyDistillation(
            student := denoiser(0.5), denoiser(), torch.optim.SGD(student.parameters(), lr=0.1),
            sigmas=SIGMAS, guidance=guided_teacher(2.0), class_dropout=0.1,
        ),
        walking(),
    ):  # fmt: skip
        loss, _ = objective.phases()[0].loss(batch(), generator("loss"))
        loss.backward()  # type: ignore[no-untyped-call]
        grads = {name: p.grad for name, p in objective.modules.named_parameters()}
        assert grads["student.network.weight"] is not None
        assert float(grads["student.network.weight"].abs()) > 0
        assert grads["teacher.network.weight"] is None


@torch.no_grad()
def test_a_student_that_answers_the_target_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = progressive()
    plain = progressive().held_out_loss(denoiser(0.5), batch(), generator("loss"))
    assert float(plain) > 1e-3

    def answer(self: Denoiser, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """The output that makes one step of the student two of the guided teacher."""
        index = (SIGMAS.float()[None] - sigma[:, None]).abs().argmin(dim=1)
        picked = (sigma, SIGMAS.float()[index + 1], SIGMAS.float()[index + 2])
        teacher = classifier_free(2.0)(objective.modules["teacher"])
        target = two_steps_in_one(teacher, x, picked, condition)
        scalars = self.precondition(sigma)
        skip, out = (c[:, None, None, None] for c in (scalars.c_skip, scalars.c_out))
        return (target - skip * x) / out

    student = denoiser(0.5)
    monkeypatch.setattr(student, "raw", answer.__get__(student))
    loss = objective.held_out_loss(student, batch(), generator("loss"))
    assert float(loss) < 1e-9


def test_the_student_becomes_the_teacher_at_the_end_of_every_stage() -> None:
    objective = progressive()
    teacher = objective.modules["teacher"]
    stages = []
    for seen in (10, 29, 30, 59, 60, 90):
        with torch.no_grad():
            objective.modules["student"].network.weight.fill_(seen)  # type: ignore[union-attr,operator]
        objective.after_step(seen, {})
        stages.append((objective.stage, float(teacher.network.weight)))  # type: ignore[union-attr,arg-type]
    value = pytest.approx(0.3)
    assert stages == [(0, value), (0, value), (1, 30), (1, 30), (2, 60), (2, 60)]
    again = progressive()
    again.modules.load_state_dict(objective.modules.state_dict())
    assert again.stage == 2, "a resumed run goes on in its stage"


def test_what_becomes_the_teacher_is_the_average_of_the_student_over_the_stage() -> None:
    objective = progressive(ema_share=0.5, num_stages=2, images=80)
    average, students = 0.5, []
    for seen in range(10, 50, 10):
        value = 1.0 + seen / 100
        with torch.no_grad():
            objective.modules["student"].network.weight.fill_(value)  # type: ignore[union-attr,operator]
        objective.after_step(seen, {})
        average += (1 - 0.5 ** (10 / (0.5 * seen))) * (value - average)
        students.append(value)
    assert objective.stage == 1
    teacher = float(objective.modules["teacher"].network.weight)  # type: ignore[union-attr,arg-type]
    assert teacher == pytest.approx(average, rel=1e-6)
    assert students[0] < teacher < students[-1]


def test_the_steps_that_are_left_are_halved_with_every_stage() -> None:
    objective = progressive()
    steps = []
    for seen in (0, 30, 60):
        objective.after_step(seen, {})
        steps.append(objective.num_steps)
    assert steps == [4, 2, 1]


@torch.no_grad()
def test_only_the_first_teacher_takes_the_better_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by what the teacher is asked: Heun's step asks twice, except to 0."""
    asked: list[int] = []

    def answer(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        del sigma, condition
        asked.append(len(x))
        return 0.9 * x

    counts = []
    for first_step in (euler_step, heun_step):
        objective = progressive(first_step=first_step, guidance=guided_teacher(1.0))
        monkeypatch.setattr(objective.modules["teacher"], "forward", answer)
        for seen in (0, 30):
            asked.clear()
            objective.after_step(seen, {})
            objective.held_out_loss(denoiser(0.5), batch(), generator("loss"))
            counts.append(len(asked))
    assert counts == [2, 2, 4, 2]


@torch.no_grad()
def test_a_teacher_is_guided_picture_by_picture() -> None:
    """As `classifier_free` guides each of them alone; the others cost nothing more."""
    teacher = denoiser()
    asked: list[int] = []

    def counted(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        asked.append(len(x))
        return teacher(x, sigma, condition)  # type: ignore[no-any-return]

    sigma = torch.tensor([0.1, 0.25, 0.3, 3.0, 6.0, 7.0, 1.0, 1.0])
    ids = torch.tensor([1, 2, 1, 2, 1, 2, -1, 2])
    x = torch.randn(8, 3, 4, 4, generator=generator("tests", "guided"))
    bounds = {"sigma_low": 0.25, "sigma_high": 6.0}
    found = guided_teacher(3.0, **bounds)(counted)(x, sigma, Condition(class_ids=ids))
    assert asked == [8 + 4]
    alone = []
    for i in range(8):
        one = slice(i, i + 1)
        guided = classifier_free(3.0, **bounds)(teacher)
        alone.append(guided(x[one], sigma[one], Condition(class_ids=ids[one])))
    torch.testing.assert_close(found, torch.cat(alone))
    plain = teacher(x, sigma, Condition(class_ids=ids))
    changed = (found - plain).abs().amax((1, 2, 3)) > 1e-6
    assert changed.tolist() == [False, False, True, True, True, False, False, True]
    assert guided_teacher(1.0)(teacher) is teacher
    free = guided_teacher(3.0)(teacher)(x, sigma, Condition())
    torch.testing.assert_close(free, teacher(x, sigma, Condition()))


def test_the_teacher_answers_without_dropout_though_the_student_trains() -> None:
    objective = progressive()
    objective.modules.train()
    objective.phases()[0].loss(batch(), generator("loss"))
    assert objective.modules["student"].training
    assert not objective.modules["teacher"].training


def test_a_grid_that_cannot_be_halved_so_often_is_refused() -> None:
    with pytest.raises(ValueError, match="12 steps cannot be halved 3 times"):
        progressive(sigmas=karras(12, 0.02, 80.0))


@torch.no_grad()
def test_a_consistent_student_has_no_loss_and_an_inconsistent_one_has() -> None:
    """One point of data: the denoiser answers it everywhere, which is consistent."""
    point = torch.full((1, 3, 4, 4), 0.25)

    class Point(Denoiser):
        def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
            del sigma, condition
            return point.expand_as(x) + 0 * self.network.weight  # type: ignore[union-attr,operator]

    teacher, student = Point(Tiny(0.0), Flow()), Point(Tiny(0.0), Flow())
    objective = ConsistencyDistillation(
        student, teacher, torch.optim.SGD(student.parameters(), lr=0.1),
        sigmas=SIGMAS, guidance=classifier_free(1.0), class_dropout=0.0,
    )  # fmt: skip
    at_point = replace(batch(), image=point.expand(16, 3, 4, 4))
    consistent = float(objective.held_out_loss(student, at_point, generator("c")))
    assert consistent == pytest.approx(0, abs=1e-3)
    assert float(objective.held_out_loss(denoiser(0.5), at_point, generator("c"))) > 0.1


@pytest.mark.parametrize("solver", ["euler", "dpm-solver++", "unipc"])
def test_a_trajectory_is_the_states_of_a_solver_at_its_levels(solver: str) -> None:
    noise = SeededNoise((2, 1, 1), range(16))
    x = (noise() * 80.0).double()
    states = trajectory(SAMPLERS[solver], WORLD.denoise, x, SIGMAS, Condition())
    assert len(states) == len(SIGMAS)
    assert states[0] is x
    for stop in (1, 3):
        alone = SAMPLERS[solver](
            WORLD.denoise, x, SIGMAS[: stop + 1], Condition(), noise, ignore
        )  # fmt: skip
        torch.testing.assert_close(states[stop], alone)
    ended = SAMPLERS[solver](WORLD.denoise, x, SIGMAS, Condition(), noise, ignore)
    assert torch.equal(states[-1], ended)


@pytest.mark.parametrize("solver", ["heun", "ddpm"])
def test_a_solver_whose_questions_are_no_path_is_refused(solver: str) -> None:
    x = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"answers were asked|draws no noise"):
        trajectory(SAMPLERS[solver], WORLD.denoise, x, SIGMAS, Condition())


@torch.no_grad()
def test_a_student_that_steps_onto_the_path_from_wherever_it_is_has_no_loss() -> None:
    """Its first answer is wrong on purpose: the second leads back, and only the first is paid."""
    taken = [0, 3, 4, 6, 8]
    objective = walking(substeps=(3, 1, 2, 2))
    coarse = SIGMAS.float()[taken]
    condition = batch().condition
    noise = torch.randn(batch().image.shape, generator=generator("walk"))
    guided = guided_teacher(2.0)(objective.modules["teacher"])
    path = trajectory(
        SAMPLERS["dpm-solver++"], guided, coarse[0] * noise, SIGMAS.float(), condition
    )

    class Leading(Denoiser):
        error = 0.0

        def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
            del condition
            i = int((coarse - sigma[0]).abs().argmin())
            share = coarse[i + 1] / coarse[i]
            return (path[taken[i + 1]] - share * x) / (1 - share) + self.error * (i == 0)

    student = Leading(Tiny(0.0), Flow())
    assert float(objective.held_out_loss(student, batch(), generator("walk"))) < 1e-4
    student.error = 1.0
    paid = float(pseudo_huber(torch.ones(1, 3, 4, 4))) / 4
    assert float(objective.held_out_loss(student, batch(), generator("walk"))) == pytest.approx(
        paid, rel=1e-3
    )


def test_substeps_that_are_not_all_of_the_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 steps are not the sum of \(3, 3, 3\)"):
        walking(substeps=(3, 3, 3))
