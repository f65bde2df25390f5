"""The one training loop. It runs the phases of an objective and knows nothing of its family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from izograf.core.devices import Placement
from izograf.core.rng import generator, seeded_layers
from izograf.core.types import Batch, Objective, Phase
from izograf.schema.errors import InvalidInput
from izograf.training.checkpointing import checkpointed_blocks
from izograf.training.ema import MovingAverage
from izograf.training.schedule import LearningRateSchedule


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how to step; the clock is the number of images seen.

    Attributes:
        images: train until this many images were seen.
        batch_size: images per step, split into `accumulation` equal parts in memory.
        gradient_clip: largest gradient norm per phase; None for no limit.
        l1: weight of the sum of absolute weights (biases and norms excluded) in every loss.
            L2 is the optimisers' weight decay.
        ema_share: half-life of the weight average as a share of the images seen.
        gradient_checkpointing: keep only the inputs of a network's blocks and compute the blocks
            again in the backward pass: less memory, about a third more time, the same gradients.
    """

    images: int
    batch_size: int = 64
    accumulation: int = 1
    seed: int = 0
    schedule: LearningRateSchedule = field(default_factory=LearningRateSchedule)
    gradient_clip: float | None = 1.0
    l1: float = 0.0
    ema_share: float = 0.05
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.images < 1 or self.batch_size < 1 or self.accumulation < 1:
            raise InvalidInput("images, batch size and accumulation must be at least 1.")
        if self.batch_size % self.accumulation:
            raise InvalidInput(
                f"The batch size {self.batch_size} must be a multiple of the "
                f"accumulation {self.accumulation}."
            )
        if not 0 <= self.l1 < math.inf:
            raise InvalidInput(f"l1 must be a number from 0 on, got {self.l1}.")
        if not 0 <= self.ema_share < 1:
            raise InvalidInput(f"The EMA share must be from 0 to below 1, got {self.ema_share}.")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise InvalidInput(f"The gradient clip must be positive, got {self.gradient_clip}.")


@dataclass
class TrainingState:
    """Everything a step reads and writes, apart from the objective itself."""

    average: MovingAverage
    step: int = 0
    images_seen: int = 0


class Watcher(Protocol):
    """Called after every step; raises `StopTraining` to end the run."""

    def __call__(self, state: TrainingState, stats: Mapping[str, Tensor]) -> None: ...


class StopTraining(Exception):
    """Raised by a watcher: the run ends here; the argument says why."""


def train(
    objective: Objective,
    batches: Callable[[int], Batch],
    config: TrainingConfig,
    state: TrainingState,
    placement: Placement,
    watch: Watcher,
) -> None:
    """Steps until `config.images` images were seen, or a watcher stops the run.

    Step k is a function of the state before it, `batches(k)` and the seed: a run that was saved
    and restored takes the same steps as one that was not.
    """
    objective.modules.train()
    with checkpointed_blocks(objective.modules, enabled=config.gradient_checkpointing):
        _steps(objective, batches, config, state, placement, watch)


def _steps(
    objective: Objective,
    batches: Callable[[int], Batch],
    config: TrainingConfig,
    state: TrainingState,
    placement: Placement,
    watch: Watcher,
) -> None:
    phases, optimizers = objective.phases(), objective.optimizers()
    while state.images_seen < config.images:
        batch = batches(state.step)
        rate = config.schedule.factor(state.images_seen, config.images)
        stats: dict[str, Tensor] = {}
        for phase in phases:
            if state.step % phase.every == 0 and state.images_seen >= phase.after:
                optimizer = optimizers[phase.optimizer]
                _set_learning_rate(optimizer, rate)
                stats |= _run_phase(phase, optimizer, batch, config, state.step, placement)
        state.step += 1
        state.images_seen += len(batch)
        state.average.update(objective.modules, state.images_seen, len(batch))
        objective.after_step(state.images_seen, stats)
        watch(state, stats)


def _run_phase(
    phase: Phase,
    optimizer: Optimizer,
    batch: Batch,
    config: TrainingConfig,
    step: int,
    placement: Placement,
) -> dict[str, Tensor]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = torch.device(placement.device)
    rng = generator(config.seed, step, phase.name, device=device)
    optimizer.zero_grad(set_to_none=True)
    logged: dict[str, Tensor] = {}
    with seeded_layers(config.seed, step, phase.name, "layers", device=device):
        for part in _split(batch, config.accumulation):
            with autocast(placement):
                loss, stats = phase.loss(part, rng)
            # `inputs` lands gradients on this phase's parameters only: nothing is toggled
            (loss / config.accumulation).backward(inputs=parameters)  # type: ignore[no-untyped-call]
            for name, value in {"loss": loss, **stats}.items():
                key = f"{phase.name}/{name}"
                logged[key] = logged.get(key, 0) + value.detach() / config.accumulation
    if config.l1:
        add_l1_gradient(parameters, config.l1)
    if config.gradient_clip is not None:
        norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        logged[f"{phase.name}/gradient_norm"] = norm.detach()
    optimizer.step()
    return logged


def autocast(placement: Placement) -> torch.autocast:
    """Mixed precision as the placement says: float32 weights, bfloat16 matrix products."""
    device_type = torch.device(placement.device).type
    return torch.autocast(device_type, torch.bfloat16, enabled=placement.precision == "bf16")


@torch.no_grad()
def add_l1_gradient(parameters: list[nn.Parameter], weight: float) -> None:
    """Adds the gradient of weight * sum |w| for matrices and kernels, not for biases and norms."""
    for parameter in parameters:
        if parameter.ndim > 1 and parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=weight)


def _set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        base = group.setdefault("initial_lr", group["lr"])
        group["lr"] = base * factor


def _split(batch: Batch, parts: int) -> Iterator[Batch]:
    size = len(batch) // parts
    for start in range(0, size * parts, size):
        yield batch[slice(start, start + size)]
