"""An engine without models, processes or threads: steps by an injected clock, faults on demand.

With the real clock it serves pages and examples (`izograf serve --engine fake`); with a clock that
only its own waiting moves, a whole service can be simulated, deterministically and at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from izograf.engine.messages import Task, WorkerState
from izograf.engine.picture import draw, fake_picture, png, verify_fake
from izograf.engine.protocol import (
    NO_INPUTS,
    Cost,
    EngineEvent,
    Failed,
    Finished,
    OriginalFiles,
    Started,
    Stepped,
    Stopped,
    WorkerDied,
    WorkerHealth,
)
from izograf.engine.serving import (
    INTERNAL,
    OUT_OF_MEMORY,
    Progress,
    Rendered,
    Verified,
)
from izograf.engine.tasks import find_task
from izograf.schema.errors import InvalidInput
from izograf.schema.job import Job
from izograf.schema.request import GenerationRequest

FaultKind = Literal["crash", "error", "oom", "stall"]
PREVIEW_SIZE = 24
WATTS = 6.0  # while it pretends to compute
ENERGY_METHOD = f"estimated: pretended seconds x {WATTS:g} W"
WAIT_SLICE = 0.02  # how long another thread's `submit` or `cancel` may go unnoticed


@dataclass(frozen=True)
class Fault:
    """What goes wrong after step `step` (0: before the first) of an attempt.

    "crash": the worker dies. "error", "oom": the job fails. "stall": the worker is given up and
    declared dead after `stall_seconds`, yet wakes as long after that and delivers its result.
    """

    kind: FaultKind
    step: int = 0


FaultPlan = Callable[[Job, int], Fault | None]


def no_faults(job: Job, attempt: int) -> Fault | None:  # noqa: ARG001
    """The plan by which nothing goes wrong."""
    return None


@dataclass
class _Running:
    job: Job
    attempt: int
    inputs: Mapping[str, bytes]
    fault: Fault | None
    num_steps: int
    began: float
    step: int = 0
    wakes: float | None = None  # a stalled one, given up already


class FakeEngine:
    """`engine.protocol.Engine` whose workers carry out one job each at a fixed pace.

    Attributes:
        submitted: (job id, attempt) of everything ever submitted, for tests.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        num_workers: int = 1,
        num_steps: int = 18,
        step_seconds: float = 0.05,
        preview_seconds: float = 0.5,
        stall_seconds: float = 5.0,
        size: int = 64,
        faults: FaultPlan = no_faults,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._num_workers, self._num_steps = num_workers, num_steps
        self._step_seconds, self._preview_seconds = step_seconds, preview_seconds
        self._stall_seconds, self._size, self._faults = stall_seconds, size, faults
        self._waiting: deque[tuple[Job, int, Mapping[str, bytes]]] = deque()
        self._slots: list[_Running | None] = [None] * num_workers
        self._asleep: list[_Running] = []
        self._events: list[EngineEvent] = []
        self._jobs_done = [0] * num_workers
        self._lock = threading.RLock()
        self._closed = False
        self.submitted: list[tuple[str, int]] = []

    @property
    def capacity(self) -> int:
        return 2 * self._num_workers

    def submit(self, job: Job, attempt: int, inputs: Mapping[str, bytes] = NO_INPUTS) -> None:
        with self._lock:
            self.submitted.append((job.id, attempt))
            if self._closed:
                self._events.append(Stopped(job.id, attempt))
                return
            self._waiting.append((job, attempt, inputs))
            self._fill(self._clock())

    def cancel(self, job_id: str) -> None:
        with self._lock:
            for entry in [entry for entry in self._waiting if entry[0].id == job_id]:
                self._waiting.remove(entry)
                self._events.append(Stopped(job_id, entry[1]))
            for index, running in enumerate(self._slots):
                if running is not None and running.job.id == job_id and not self._stalls(running):
                    self._slots[index] = None
                    self._events.append(Stopped(job_id, running.attempt))
            self._fill(self._clock())

    def poll(self, timeout: float) -> list[EngineEvent]:
        deadline = self._clock() + timeout
        while True:
            with self._lock:
                now = self._clock()
                self._advance(now)
                if self._events or now >= deadline:
                    events, self._events = self._events, []
                    return events
                pause = min(deadline, self._next_change()) - now
            self._sleep(min(max(pause, 0.0), WAIT_SLICE) or 1e-6)

    def health(self) -> tuple[WorkerHealth, ...]:
        with self._lock:
            return tuple(
                WorkerHealth(
                    name=f"fake-{index}",
                    device="none",
                    alive=not self._closed,
                    busy=running is not None,
                    models=() if running is None else (running.job.request.model,),
                    memory_bytes=0,
                    jobs_done=self._jobs_done[index],
                )
                for index, running in enumerate(self._slots)
            )

    def close(self, grace: float) -> None:
        deadline = self._clock() + grace
        with self._lock:
            self._closed = True
            self._waiting.clear()
        while True:
            with self._lock:
                now = self._clock()
                self._advance(now)
                if now >= deadline or not any(self._slots):
                    self._slots = [None] * self._num_workers
                    return
                pause = min(deadline, self._next_change()) - now
            self._sleep(min(max(pause, 0.0), WAIT_SLICE) or 1e-6)

    def _fill(self, now: float) -> None:
        """Gives waiting jobs to free workers."""
        for index, running in enumerate(self._slots):
            if running is None and self._waiting:
                job, attempt, inputs = self._waiting.popleft()
                num_steps = job.request.options.get("num_inference_steps", self._num_steps)
                steps = int(num_steps) if isinstance(num_steps, int | float) else self._num_steps
                fault = self._faults(job, attempt)
                self._slots[index] = _Running(job, attempt, inputs, fault, max(1, steps), now)
                self._events.append(Started(job.id, attempt))

    def _advance(self, now: float) -> None:
        """Everything that has happened by the time `now`."""
        for sleeper in [r for r in self._asleep if r.wakes is not None and r.wakes <= now]:
            self._asleep.remove(sleeper)
            self._events.append(self._finished(sleeper))
        for index, running in enumerate(self._slots):
            if running is not None and self._advance_one(running, now):
                self._slots[index] = None
                self._jobs_done[index] += 1
        self._fill(now)

    def _advance_one(self, running: _Running, now: float) -> bool:
        """Whether the worker is free again."""
        job_id, attempt = running.job.id, running.attempt
        while True:
            if running.fault is not None and running.step >= running.fault.step:
                return self._fail(running, running.fault.kind, now)
            if now < self._due(running):
                return False
            running.step += 1
            self._events.append(
                Stepped(job_id, attempt, running.step, running.num_steps, self._preview(running))
            )
            if running.step >= running.num_steps:
                self._events.append(self._finished(running))
                return True

    def _fail(self, running: _Running, kind: FaultKind, now: float) -> bool:
        job_id, attempt = running.job.id, running.attempt
        if kind == "stall":
            given_up = self._due(running)
            if now < given_up:
                return False
            running.wakes = given_up + self._stall_seconds
            self._asleep.append(running)
            self._events.append(
                WorkerDied(((job_id, attempt),), "The worker gave no sign of life (a made fault).")
            )
        elif kind == "crash":
            self._events.append(WorkerDied(((job_id, attempt),), "The worker died (a made fault)."))
        elif kind == "oom":
            self._events.append(Failed(job_id, attempt, "OutOfMemory", OUT_OF_MEMORY))
        else:
            self._events.append(Failed(job_id, attempt, "InternalError", INTERNAL))
        return True

    def _stalls(self, running: _Running) -> bool:
        """Whether it has stopped listening."""
        fault = running.fault
        return fault is not None and fault.kind == "stall" and running.step >= fault.step

    def _due(self, running: _Running) -> float:
        """When the next step of it is done; of a stalled one, when it is given up."""
        if self._stalls(running):
            return running.began + running.step * self._step_seconds + self._stall_seconds
        return running.began + (running.step + 1) * self._step_seconds

    def _next_change(self) -> float:
        times = [self._due(running) for running in self._slots if running is not None]
        times += [running.wakes for running in self._asleep if running.wakes is not None]
        return min(times, default=float("inf"))

    def _preview(self, running: _Running) -> bytes | None:
        every = max(
            1, round(self._preview_seconds / self._step_seconds) if self._step_seconds else 1
        )
        if (running.step - 1) % every:
            return None
        request, size = running.job.request, PREVIEW_SIZE
        detail = running.step / running.num_steps
        return png(draw(request, request.seed, size=size, detail=detail), size, size)

    def _finished(self, running: _Running) -> Finished | Failed:
        job, attempt = running.job, running.attempt
        task = Task(job.id, attempt, job.request, job.task, running.inputs)
        try:
            done = find_task(job.task)(DrawingRenderer(self._size), task, _unheard)
        except InvalidInput as error:
            return Failed(job.id, attempt, type(error).__name__, str(error))
        seconds = running.num_steps * self._step_seconds
        cost = Cost(seconds, WATTS * seconds, ENERGY_METHOD)
        return Finished(job.id, attempt, done.pictures, cost, done.result)


class DrawingRenderer:
    """`serving.Renderer` that draws pictures of `size` pixels at once, without steps."""

    def __init__(self, size: int) -> None:
        self._size = size

    def render(
        self,
        request: GenerationRequest,
        progress: Progress,  # noqa: ARG002
        original: OriginalFiles | None = None,
    ) -> Rendered:
        pictures = [
            fake_picture(request, seed, size=self._size, position=position, original=original)
            for position, seed in enumerate(request.seeds)
        ]
        return tuple(pictures), Cost()

    def render_together(
        self, requests: Sequence[GenerationRequest], progress: Progress
    ) -> Sequence[Rendered]:
        return [self.render(request, progress) for request in requests]

    def verify(
        self,
        request: GenerationRequest,
        png: bytes,
        progress: Progress,  # noqa: ARG002
        original: OriginalFiles | None = None,
    ) -> Verified:
        found = verify_fake(png, model=request.model, size=self._size, original=original)
        return found, Cost()

    def release_memory(self) -> None:
        """Nothing is ever held."""

    def state(self) -> WorkerState:
        return WorkerState()


def _unheard(step: int, num_steps: int, preview: Callable[[int], bytes], /) -> None:
    """Progress that nobody listens to."""
