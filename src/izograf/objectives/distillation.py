"""Few-step students of a diffusion model: by halved steps, by consistency, by whole trajectories.

All hold a frozen teacher beside the student, which begins as its copy. The teacher is guided
while it teaches, so the student has learned the guidance, and is asked once a step (Meng et al.
2023).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from izograf.core.types import Batch, Condition, Denoise, Guidance, Phase, Sampler
from izograf.diffusion.denoiser import Denoiser
from izograf.objectives.denoising import drop_condition
from izograf.objectives.teacher import (
    Step,
    answer_to,
    euler_step,
    heun_step,
    per_image,
    trajectory,
    two_steps_in_one,
)

HUBER = 0.00054  # times the square root of the numbers in a picture (Song & Dhariwal 2024, eq. 8)


class _Distillation:
    """What all have: a student that learns, a teacher that does not, and one phase."""

    averaged: Sequence[str] = ("student",)

    def __init__(
        self,
        student: Denoiser,
        teacher: Denoiser,
        optimizer: Optimizer,
        *,
        sigmas: Tensor,
        guidance: Guidance,
        class_dropout: float,
    ) -> None:
        teacher.requires_grad_(False)
        self.modules = nn.ModuleDict({"student": student, "teacher": teacher})
        self._student, self._teacher = student, teacher
        self._optimizer = optimizer
        self._sigmas = sigmas.float().to(next(student.parameters()).device)
        self._guidance = guidance
        self._class_dropout = class_dropout

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"student": self._optimizer}

    def phases(self) -> Sequence[Phase]:
        return (Phase("distil", "student", self._loss),)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Nothing adapts to the statistics here."""

    def held_out_loss(self, student: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        """The loss of `student` (the averaged one, say) on images not trained on."""
        assert isinstance(student, Denoiser)
        return self._mean_error(student, batch.image, batch.condition, rng)

    def _loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        self._teacher.eval()  # the loop has put all modules into training mode
        condition = drop_condition(batch.condition, self._class_dropout, rng)
        return self._mean_error(self._student, batch.image, condition, rng), {}

    def _mean_error(
        self, student: Denoiser, x0: Tensor, condition: Condition, rng: torch.Generator
    ) -> Tensor:
        raise NotImplementedError


class ProgressiveDistillation(_Distillation):
    """One step of the student where the teacher takes two, and the student becomes the teacher.

    Salimans & Ho 2022, algorithm 2, in sigma. The finest grid is `sigmas`; the first student takes
    every second level of it, the next every fourth, and so on: stage k of K lasts from k/K to
    (k+1)/K of `images`. The loss is on the network's output, |D - target|^2 / c_out^2.

    Instead of annealing the learning rate at the end of every stage, the average of the student's
    weights over the stage becomes the teacher. A student is only ever right in Euler steps; the
    first teacher may take better ones.
    """

    def __init__(
        self,
        student: Denoiser,
        teacher: Denoiser,
        optimizer: Optimizer,
        *,
        sigmas: Tensor,
        images: int,
        num_stages: int,
        guidance: Guidance,
        class_dropout: float = 0.1,
        first_step: Step | None = None,
        ema_share: float = 0.05,
    ) -> None:
        """`sigmas` [M+1] decreases to 0, where M is a multiple of 2^num_stages.

        Args:
            first_step: how the first teacher steps, `euler_step` by default.
            ema_share: half-life of the average as a share of the images of the stage so far.
        """
        if num_stages < 1 or (len(sigmas) - 1) % 2**num_stages:
            raise ValueError(f"{len(sigmas) - 1} steps cannot be halved {num_stages} times")
        super().__init__(
            student, teacher, optimizer,
            sigmas=sigmas, guidance=guidance, class_dropout=class_dropout,
        )  # fmt: skip
        self._images, self._num_stages = images, num_stages
        self._first_step = first_step or euler_step
        self._ema_share = ema_share
        self._progress = _Progress()
        self.modules["progress"] = self._progress
        if num_stages > 1:
            self.modules["next_teacher"] = copy.deepcopy(student).requires_grad_(False)

    @property
    def stage(self) -> int:
        """How often the student has become the teacher."""
        return int(self._progress.stage)

    @property
    def num_steps(self) -> int:
        """How many steps the student of this stage takes."""
        return (len(self._sigmas) - 1) >> (self.stage + 1)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Averages the student; at the end of a stage the average becomes the teacher."""
        del stats
        if self.stage == self._num_stages - 1:
            return
        self._average(images_seen)
        due = min(self._num_stages - 1, images_seen * self._num_stages // self._images)
        if due > self.stage:
            self._teacher.load_state_dict(self.modules["next_teacher"].state_dict())
            self._progress.stage.fill_(due)
            self._progress.since.fill_(images_seen)

    @torch.no_grad()
    def _average(self, images_seen: int) -> None:
        half_life = self._ema_share * (images_seen - int(self._progress.since))
        batch_size = images_seen - int(self._progress.seen)
        self._progress.seen.fill_(images_seen)
        weight = 1.0 if half_life <= 0 else 1 - 0.5 ** (batch_size / half_life)
        current = self._student.state_dict()
        for key, target in self.modules["next_teacher"].state_dict().items():
            if target.is_floating_point():
                target.lerp_(current[key], weight)
            else:
                target.copy_(current[key])

    def _mean_error(
        self, student: Denoiser, x0: Tensor, condition: Condition, rng: torch.Generator
    ) -> Tensor:
        stride = 2**self.stage
        count = (len(self._sigmas) - 1) // (2 * stride)
        index = torch.randint(count, (len(x0),), generator=rng, device=x0.device) * 2 * stride
        levels = (
            self._sigmas[index],
            self._sigmas[index + stride],
            self._sigmas[index + 2 * stride],
        )
        noise = torch.randn(x0.shape, generator=rng, device=x0.device)
        x = x0 + per_image(levels[0]) * noise
        first = self.stage == 0
        teacher: Denoise = self._guidance(self._teacher) if first else self._teacher
        step = self._first_step if first else euler_step
        with torch.no_grad():
            target = two_steps_in_one(teacher, x, levels, condition, step)
        return _output_error(student, x, levels[0], condition, target).square().mean()


class ConsistencyDistillation(_Distillation):
    """The student's answers along one path of the teacher are to be the same picture.

    Song et al. 2023, algorithm 2, with the improvements of Song & Dhariwal 2024: the target is the
    student itself without gradient, the distance a pseudo-Huber one, weighted 1 / (sigma_i -
    sigma_{i+1}). The teacher goes from one level of `sigmas` to the next by Heun's method.
    """

    def _mean_error(
        self, student: Denoiser, x0: Tensor, condition: Condition, rng: torch.Generator
    ) -> Tensor:
        step = torch.randint(len(self._sigmas) - 1, (len(x0),), generator=rng, device=x0.device)
        sigma, following = self._sigmas[step], self._sigmas[step + 1]
        noise = torch.randn(x0.shape, generator=rng, device=x0.device)
        x = x0 + per_image(sigma) * noise
        with torch.no_grad():
            nearer = heun_step(self._guidance(self._teacher), x, sigma, following, condition)
            # at sigma 0 the state is the picture; the network is not asked where c_noise ends
            asked = following.clamp(min=float(self._sigmas[-2]))
            target = student(nearer, asked, condition)
            target = torch.where(per_image(following) > 0, target, nearer)
        difference = student(x, sigma, condition) - target
        distance = pseudo_huber(difference)
        return (distance / (sigma - following)).mean()


class TrajectoryDistillation(_Distillation):
    """The student walks from pure noise by itself, and is led back to its teacher's path.

    Zhou et al. 2024 (SFD), algorithm 1: the teacher draws pictures from `sigmas[0]` down. Where it
    has taken `substeps[i]` more steps the student takes its Euler step i, and learns the answer
    that would have led from where *it* is to where the teacher is. So it learns to mend its own
    errors, which pictures with fresh noise never show; of the data it needs the conditions only.
    """

    def __init__(
        self,
        student: Denoiser,
        teacher: Denoiser,
        optimizer: Optimizer,
        *,
        sigmas: Tensor,
        substeps: Sequence[int],
        solver: Sampler,
        guidance: Guidance,
        class_dropout: float = 0.1,
    ) -> None:
        """`sigmas` [M+1] decreases to 0.

        Args:
            substeps: of the teacher within each step of the student; their sum is M.
            solver: of the teacher; asks for one answer at each level.
        """
        if len(sigmas) - 1 != sum(substeps):
            raise ValueError(f"{len(sigmas) - 1} steps are not the sum of {tuple(substeps)}")
        super().__init__(
            student, teacher, optimizer,
            sigmas=sigmas, guidance=guidance, class_dropout=class_dropout,
        )  # fmt: skip
        self.taken = [0, *itertools.accumulate(substeps)]  # of `sigmas`, the student's levels
        self._solver = solver

    def _mean_error(
        self, student: Denoiser, x0: Tensor, condition: Condition, rng: torch.Generator
    ) -> Tensor:
        noise = torch.randn(x0.shape, generator=rng, device=x0.device)
        x = self._sigmas[0] * noise
        with torch.no_grad():
            denoise = self._guidance(self._teacher)
            path = trajectory(self._solver, denoise, x, self._sigmas, condition)
        total = x.new_zeros(())
        steps = list(itertools.pairwise(self.taken))
        for start, end in steps:
            share = self._sigmas[end] / self._sigmas[start]
            found = student(x, self._sigmas[start].expand(len(x)), condition)
            total = total + pseudo_huber(found - answer_to(x, path[end], share)).mean()
            x = (found + share * (x - found)).detach()
        return total / len(steps)


class _Progress(nn.Module):
    """The stage, the images seen before it and so far, where checkpoints find them."""

    stage: Tensor
    since: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("stage", "since", "seen"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))


def pseudo_huber(difference: Tensor) -> Tensor:
    """sqrt(|d|^2 + c^2) - c of pictures [B,C,H,W], [B], with c = 0.00054 sqrt(C H W).

    Song & Dhariwal 2024, eq. 7-8.
    """
    c = HUBER * math.sqrt(difference[0].numel())
    return (difference.float().flatten(1).square().sum(dim=1) + c**2).sqrt() - c


def _output_error(
    student: Denoiser, x: Tensor, sigma: Tensor, condition: Condition, target: Tensor
) -> Tensor:
    """The network's output minus the one that would make D equal to `target`."""
    scalars = student.precondition(sigma)
    wanted = (target - per_image(scalars.c_skip) * x) / per_image(scalars.c_out)
    return student.raw(x, sigma, condition) - wanted
