"""Jobs and what happens to them: the words that store, dispatcher, engines and service share.

Life of a job:

    queued -> running -> done
                      -> queued      its worker died: attempt + 1, at most MAX_ATTEMPTS
                      -> failed      the request itself cannot be carried out
                      -> dead        every attempt killed its worker
    queued | running  -> cancelled   final, whatever a worker reports afterwards
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from izograf.schema.request import GenerationRequest

MAX_ATTEMPTS = 3


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        """Whether the job will never change again."""
        return self not in (Status.QUEUED, Status.RUNNING)


@dataclass(frozen=True)
class Job:
    """One accepted order. Times are seconds since the epoch.

    Attributes:
        id: `job_` and 26 characters of `[0-9a-z]`, sortable by creation.
        owner: who asked; fairness and visibility go by it.
        task: what is to be done: "generate", "verify" (see `engine.tasks`).
        request: the complete, checked request.
        priority: larger runs first.
        attempt: 0 while never started; the number of the current or last attempt.
        reason: why it failed or died, one sentence; empty otherwise.
        inputs: name -> sha256 of a file in the store that the task reads.
        result: what the task found out, as JSON; empty until done, and where pictures are all.
        seconds, joules: what the computation took, where known.
        energy_method: how `joules` came about; begins with `measured`, `estimated` or `unknown`.
    """

    id: str
    owner: str
    task: str
    request: GenerationRequest
    status: Status
    created: float
    priority: int = 0
    attempt: int = 0
    started: float | None = None
    finished: float | None = None
    reason: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    joules: float | None = None
    energy_method: str = ""


class EventKind(StrEnum):
    """What can happen to a job, as its owner sees it."""

    QUEUED = "queued"
    STARTED = "started"
    STEP = "step"
    PREVIEW = "preview"
    RETRIED = "retried"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to a job; `number` counts from 1 without gaps, per job."""

    job_id: str
    number: int
    kind: EventKind
    at: float
    data: Mapping[str, Any]


@dataclass(frozen=True)
class StoredImage:
    """A finished picture. The file is named by its content: `sha256` of the PNG's bytes.

    Attributes:
        id: `img_` and 26 characters of `[0-9a-z]`, sortable by creation.
        label: the condition in one word, for search and file names.
        record: how it was made (see `schema.record`), as in the PNG itself.
        words: what else a text search finds it by; given when it is stored, not read back.
    """

    id: str
    job_id: str
    owner: str
    model: str
    label: str
    seed: int
    width: int
    height: int
    sha256: str
    created: float
    record: Mapping[str, Any]
    favourite: bool = False
    seconds: float | None = None
    joules: float | None = None
    energy_method: str = ""
    words: str = ""
