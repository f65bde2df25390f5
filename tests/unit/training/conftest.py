"""States and jobs around the objective of `line_objective.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from line_objective import CPU, STEADY, batches

from izograf.training.ema import MovingAverage
from izograf.training.run import Job, RunConfig
from izograf.training.trainer import TrainingConfig, TrainingState


@pytest.fixture
def state_for() -> Callable[..., TrainingState]:
    """state_for(objective, share=0.05) -> a state at its beginning."""

    def make(objective: Any, share: float = 0.05) -> TrainingState:
        return TrainingState(MovingAverage(objective.modules, objective.averaged, share=share))

    return make


@pytest.fixture
def job_for() -> Callable[..., Job]:
    """job_for(objective, images=..., **fields of RunConfig) -> a job of four images a step."""

    def make(objective: Any, images: int = 40, evaluate: Any = None, **run: Any) -> Job:
        intervals = {"log_every": 4, "checkpoint_every": 8, **run}
        training = TrainingConfig(images, batch_size=4, schedule=STEADY)
        return Job(objective, batches, training, RunConfig(**intervals), CPU, evaluate=evaluate)

    return make
