"""What the engine and its worker processes say to each other over a pipe.

To the worker go `Order`, `Cancel` and `Close`. Back come `Ready`, the events of `engine.protocol`
as they are, and `OrderDone` when the worker is free again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from izograf.schema.request import GenerationRequest

GIB = 1 << 30
GENERATE = "generate"  # the task of which several may share a batch (see `engine.tasks`)


@dataclass(frozen=True)
class WorkerSettings:
    """How one worker process computes.

    Attributes:
        device, precision, backend: as `checkpoints.load.load_generator` takes them.
        batch_size: pictures computed in one tensor at most.
        preview_seconds: at least this long between two previews of a job.
        cache_bytes: models are kept loaded up to this sum; the one in use always is.
    """

    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    batch_size: int = 16
    preview_seconds: float = 1.0
    cache_bytes: int = 2 * GIB


@dataclass(frozen=True)
class Task:
    """One job of an order: what is to be done, and the content of the files it reads."""

    job_id: str
    attempt: int
    request: GenerationRequest
    name: str = GENERATE
    inputs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """Jobs for one worker; more than one only where they may share a batch."""

    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Cancel:
    """The worker is to stop this job at the next step."""

    job_id: str


@dataclass(frozen=True)
class Close:
    """The worker is to leave after the order in hand."""


@dataclass(frozen=True)
class WorkerState:
    """What a worker holds: its loaded models, its resident memory, models loaded in its life."""

    models: tuple[str, ...] = ()
    memory_bytes: int = 0
    model_loads: int = 0


@dataclass(frozen=True)
class Ready:
    """The worker has started and waits for orders."""

    state: WorkerState


@dataclass(frozen=True)
class OrderDone:
    """Every job of the order has had its last event."""

    state: WorkerState
