"""What the engine's tests share: a clock moved by hand, and a store in memory that can fail."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from izograf.engine.protocol import Engine, EngineEvent
from izograf.schema.errors import NotFound, StorageError, StoreUnavailable
from izograf.schema.job import MAX_ATTEMPTS, EventKind, Job, Status, StoredImage
from izograf.schema.request import GenerationRequest


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def make_job(number: int, *, model: str = "scenes", seed: int = 0, num_images: int = 1,
             condition: Mapping[str, str] | None = None, task: str = "generate",
             inputs: Mapping[str, str] | None = None, towards: Mapping[str, Any] | None = None,
             **options: Any) -> Job:  # fmt: skip
    request = GenerationRequest(
        model, condition or {"type": "class", "class": "mountain"}, num_images, seed, options,
        towards or {},
    )  # fmt: skip
    return Job(f"job_{number:026d}", "anna", task, request, Status.QUEUED, 0.0, inputs=inputs or {})


@dataclass
class Row:
    job: Job
    deaths: int = 0
    began: bool = False
    events: list[tuple[EventKind, Mapping[str, Any]]] = field(default_factory=list)
    images: list[Sequence[StoredImage]] = field(default_factory=list)


@dataclass(frozen=True)
class Listing:
    items: tuple[Job, ...]


class MemoryQueue:
    """`engine.ports.JobQueue` with the semantics of `store.JobStore`, in memory.

    Attributes:
        checks_attempts: switched off, reports of old attempts count: the control of P3.
        away: how many of the next calls fail; those in `committed` after their change was made.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.checks_attempts = True
        self.away = 0
        self.committed = False
        self._lock = threading.RLock()

    def submit(self, job: Job) -> None:
        with self._lock:
            self.rows[job.id] = Row(job, events=[(EventKind.QUEUED, {})])

    def cancel(self, job_id: str) -> bool:
        with self._lock:
            row = self.rows[job_id]
            if row.job.status.final:
                return False
            self._set(row, EventKind.CANCELLED, status=Status.CANCELLED)
            return True

    def status(self, job_id: str) -> Status:
        return self.rows[job_id].job.status

    def kinds(self, job_id: str) -> list[EventKind]:
        return [kind for kind, _ in self.rows[job_id].events]

    def settled(self) -> bool:
        with self._lock:
            return all(row.job.status.final for row in self.rows.values())

    # --- the port

    def requeue_running(self) -> None:
        def work() -> None:
            for row in self.rows.values():
                if row.job.status is Status.RUNNING and row.began:
                    self._die(row, "The service stopped.")
                elif row.job.status is Status.RUNNING:
                    self._set(row, EventKind.RETRIED, status=Status.QUEUED)

        self._call(work)

    def claim_next(self) -> tuple[Job, int] | None:
        def work() -> tuple[Job, int] | None:
            for row in self.rows.values():
                if row.job.status is Status.QUEUED:
                    attempt, row.began = row.job.attempt + 1, False
                    self._set(row, EventKind.STARTED, status=Status.RUNNING, attempt=attempt)
                    return row.job, attempt
            return None

        return self._call(work)

    def get(self, job_id: str) -> Job:
        def work() -> Job:
            if job_id not in self.rows:
                raise NotFound(job_id)
            return self.rows[job_id].job

        return self._call(work)

    def list_jobs(self, *, status: Status | None = None, limit: int = 50) -> Listing:
        return self._call(
            lambda: Listing(
                tuple(r.job for r in self.rows.values() if r.job.status is status)[:limit]
            )
        )

    def began(self, job_id: str, attempt: int) -> bool:
        def change(row: Row) -> None:
            row.began = True

        return self._report(job_id, attempt, change)

    def record_step(
        self, job_id: str, attempt: int, step: int, num_steps: int, preview: bytes | None = None
    ) -> bool:
        data = {"attempt": attempt, "step": step, "num_steps": num_steps, "png": preview}
        kind = EventKind.STEP if preview is None else EventKind.PREVIEW
        return self._report(job_id, attempt, lambda row: self._set(row, kind, data))

    def finish(self, job_id: str, attempt: int, pictures: Sequence[StoredImage], *,
               seconds: float | None = None, joules: float | None = None,
               energy_method: str = "",
               result: Mapping[str, Any] | None = None) -> bool:  # fmt: skip
        def change(row: Row) -> None:
            row.images.append(pictures)
            data = {"seconds": seconds, "result": result}
            self._set(
                row, EventKind.DONE, data, status=Status.DONE, seconds=seconds, joules=joules,
                energy_method=energy_method, result=result,
            )  # fmt: skip

        return self._report(job_id, attempt, change)

    def fail(self, job_id: str, attempt: int, code: str, reason: str) -> bool:
        def change(row: Row) -> None:
            self._set(row, EventKind.FAILED, {"code": code}, status=Status.FAILED, reason=reason)

        return self._report(job_id, attempt, change)

    def worker_died(self, job_id: str, attempt: int, reason: str) -> Status | None:
        done = self._report(job_id, attempt, lambda row: self._die(row, reason))
        return self.rows[job_id].job.status if done else None

    def hand_back(self, job_id: str, attempt: int) -> bool:
        return self._report(
            job_id, attempt, lambda row: self._set(row, EventKind.RETRIED, status=Status.QUEUED)
        )

    def _die(self, row: Row, reason: str) -> None:
        row.deaths += 1
        dead = row.deaths >= MAX_ATTEMPTS
        kind, status = (EventKind.DEAD, Status.DEAD) if dead else (EventKind.RETRIED, Status.QUEUED)
        self._set(row, kind, {"reason": reason}, status=status, reason=reason)

    def _report(self, job_id: str, attempt: int, change: Callable[[Row], None]) -> bool:
        def work() -> bool:
            row = self.rows.get(job_id)
            if row is None:
                return False
            current = row.job.status is Status.RUNNING and row.job.attempt == attempt
            if not current and self.checks_attempts:
                return False
            change(row)
            return True

        return self._call(work)

    def _set(
        self, row: Row, kind: EventKind, data: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        row.job = replace(row.job, **values)
        row.events.append((kind, data or {}))

    def _call(self, work: Callable[[], Any]) -> Any:
        with self._lock:
            failing = self.away > 0
            self.away -= failing
            if failing and not self.committed:
                raise StoreUnavailable("away, nothing was changed")
            result = work()
            if failing:
                raise StoreUnavailable("away, the change was made all the same")
            return result


class MemoryPictures:
    """`engine.ports.Pictures` in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._number = 0

    def write_files(self, pngs: Sequence[bytes]) -> None:
        self.files |= {hashlib.sha256(png).hexdigest(): png for png in pngs}

    def stage(self, job: Job, *, seed: int, png: bytes, width: int, height: int,
              record: Mapping[str, Any], seconds: float | None = None,
              joules: float | None = None, energy_method: str = "",
              words: str = "") -> StoredImage:  # fmt: skip
        sha256 = hashlib.sha256(png).hexdigest()
        self.files[sha256] = png
        self._number += 1
        return StoredImage(
            f"img_{self._number:026d}", job.id, job.owner, job.request.model, job.request.label,
            seed, width, height, sha256, 0.0, record, seconds=seconds,
            joules=joules, energy_method=energy_method, words=words,
        )  # fmt: skip

    def read_file(self, sha256: str) -> bytes:
        if sha256 not in self.files:
            raise StorageError(f"The file {sha256} is missing: restore a backup.")
        return self.files[sha256]


def gather(
    engine: Engine, until: Callable[[list[EngineEvent]], bool], *, seconds: float = 240
) -> list[EngineEvent]:
    """The engine's events up to the moment `until` holds of them."""
    events: list[EngineEvent] = []
    deadline = time.monotonic() + seconds
    while not until(events):
        assert time.monotonic() < deadline, f"nothing more came after {events[-5:]}"
        events += engine.poll(0.1)
    return events


def wait_for(condition: Callable[[], bool], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
