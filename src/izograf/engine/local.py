"""The engine of one machine: a worker process per device, supervised, replaced when it dies.

A job is in exactly one place: waiting here, or in the hands of one worker. Only jobs in the hands
of a worker are blamed for its death; those that wait are given to its successor.

One thread per worker reads its pipe, so that a worker which is done gets its next order at once,
however long the dispatcher takes to write the last result down.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from izograf.engine.batching import next_order
from izograf.engine.messages import (
    GIB,
    Cancel,
    Close,
    Order,
    OrderDone,
    Ready,
    Task,
    WorkerSettings,
    WorkerState,
)
from izograf.engine.process import BODY, WorkerProcess
from izograf.engine.protocol import (
    NO_INPUTS,
    EngineEvent,
    Failed,
    Finished,
    Started,
    Stepped,
    Stopped,
    WorkerDied,
    WorkerHealth,
)
from izograf.schema.job import Job

PREFETCH = 2  # jobs per worker: one computed, one at hand
MAX_FAILED_STARTS = 3
EXIT_SECONDS = 3.0
SUPERVISION_SECONDS = 0.2
_Event = Started | Stepped | Finished | Failed | Stopped  # of one job, from its worker


@dataclass(frozen=True)
class LocalSettings:
    """How the engine uses this machine.

    Attributes:
        devices: one worker for each, as `core.devices.choose_device` takes them.
        mix_requests: whether compatible small requests share a batch (see `engine.batching`).
        max_model_loads: a worker is replaced after loading that many models; 0 for never.
        max_memory_bytes: or above so much resident memory; 0 for never.
        stall_seconds: a worker silent for so long with a job in hand is killed. Every step is a
            sign of life; loading a model and a single step are not interrupted by one.
        start_seconds: a worker not ready after so long is killed.
    """

    devices: tuple[str, ...] = ("auto",)
    precision: str = "auto"
    backend: str = "auto"
    batch_size: int = 16
    mix_requests: bool = False
    preview_seconds: float = 1.0
    cache_bytes: int = 2 * GIB
    max_model_loads: int = 100
    max_memory_bytes: int = 0
    stall_seconds: float = 300.0
    start_seconds: float = 120.0

    def worker(self, device: str) -> WorkerSettings:
        return WorkerSettings(
            device,
            self.precision,
            self.backend,
            self.batch_size,
            self.preview_seconds,
            self.cache_bytes,
        )


@dataclass
class _Slot:
    """A place for a worker, and the process that fills it now."""

    name: str
    device: str
    process: WorkerProcess | None = None
    reader: threading.Thread | None = None
    ready: bool = False
    order: Order | None = None
    unfinished: dict[str, int] = field(default_factory=dict)  # job id -> attempt
    cancelled: set[str] = field(default_factory=set)  # of those, what the worker was told to stop
    heard: float = 0.0
    state: WorkerState = field(default_factory=WorkerState)
    jobs_done: int = 0
    verdict: str = ""  # why the engine itself ended the process
    failed_starts: int = 0
    not_before: float = 0.0  # when the next start may be tried

    @property
    def idle(self) -> bool:
        return self.process is not None and self.ready and self.order is None and not self.verdict


class LocalEngine:
    """`engine.protocol.Engine` on the devices of this machine; safe to call from any thread."""

    def __init__(self, settings: LocalSettings = LocalSettings(), *, body: str = BODY) -> None:
        self._settings = settings
        self._body = body
        self._slots = [
            _Slot(f"local-{index}", device) for index, device in enumerate(settings.devices)
        ]
        self._pending: deque[Task] = deque()
        self._events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
        self._changed = threading.Condition(threading.RLock())
        self._closing = False
        # runs before multiprocessing's own, which would wait for workers that ignore SIGTERM
        atexit.register(self.close, 0)

    @property
    def capacity(self) -> int:
        per_worker = self._settings.batch_size if self._settings.mix_requests else 1
        return PREFETCH * per_worker * len(self._slots)

    def start(self) -> None:
        """Starts every worker now, so that the first job need not wait for it."""
        with self._changed:
            for slot in self._slots:
                if slot.process is None:
                    self._start(slot)

    def submit(self, job: Job, attempt: int, inputs: Mapping[str, bytes] = NO_INPUTS) -> None:
        with self._changed:
            if self._closing:
                self._events.put(Stopped(job.id, attempt))
                return
            self._pending.append(Task(job.id, attempt, job.request, job.task, dict(inputs)))
            self._assign()

    def cancel(self, job_id: str) -> None:
        with self._changed:
            for task in [task for task in self._pending if task.job_id == job_id]:
                self._pending.remove(task)
                self._events.put(Stopped(task.job_id, task.attempt))
            for slot in self._slots:
                told = (
                    job_id in slot.cancelled
                )  # once: a busy worker reads no more than the pipe holds
                if job_id in slot.unfinished and not told and slot.process is not None:
                    slot.cancelled.add(job_id)
                    slot.process.send(Cancel(job_id))

    def poll(self, timeout: float) -> list[EngineEvent]:
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                self._supervise()
            remaining = max(0.0, deadline - time.monotonic())
            try:
                events = [self._events.get(timeout=min(remaining, SUPERVISION_SECONDS))]
            except queue.Empty:
                if time.monotonic() >= deadline:
                    return []
                continue
            with suppress(queue.Empty):
                while True:
                    events.append(self._events.get(block=False))
            return events

    def health(self) -> tuple[WorkerHealth, ...]:
        with self._changed:
            return tuple(
                WorkerHealth(
                    name=slot.name,
                    device=slot.device,
                    alive=slot.process is not None and slot.ready,
                    busy=slot.order is not None,
                    models=slot.state.models,
                    memory_bytes=slot.state.memory_bytes,
                    jobs_done=slot.jobs_done,
                    starting=slot.process is not None and not slot.ready,
                )
                for slot in self._slots
            )

    def process_ids(self) -> tuple[int, ...]:
        """The system's numbers of the running workers."""
        with self._changed:
            return tuple(slot.process.id for slot in self._slots if slot.process is not None)

    def close(self, grace: float) -> None:
        """Lets running jobs finish for `grace` seconds, then stops every worker.

        Jobs that wait are not started, and those interrupted have no further event: the caller
        knows which had no end. Events until then can still be polled.
        """
        with self._changed:
            self._closing = True
            self._pending.clear()
            self._changed.wait_for(lambda: not any(s.order for s in self._slots), max(0.0, grace))
            for slot in self._slots:
                slot.verdict = slot.verdict or "the engine was closed"
                if slot.process is not None and slot.order is None and slot.ready:
                    slot.process.send(Close())
                elif slot.process is not None:
                    slot.process.kill()
            self._changed.wait_for(self._empty, EXIT_SECONDS)
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.kill()
            self._changed.wait_for(self._empty, EXIT_SECONDS)
            readers = [slot.reader for slot in self._slots if slot.reader is not None]
        for reader in readers:
            if reader is not threading.current_thread():
                reader.join(EXIT_SECONDS)
        atexit.unregister(self.close)

    def _empty(self) -> bool:
        return all(slot.process is None for slot in self._slots)

    def _assign(self) -> None:
        """Gives waiting jobs to idle workers, and starts as many workers as would have work."""
        while self._pending and (idle := [slot for slot in self._slots if slot.idle]):
            order = next_order(
                self._pending,
                batch_size=self._settings.batch_size,
                mix_requests=self._settings.mix_requests,
            )
            model = order.tasks[0].request.model
            slot = next((s for s in idle if model in s.state.models), idle[0])
            for task in order.tasks:
                self._pending.remove(task)
            slot.order, slot.heard = order, time.monotonic()
            slot.unfinished = {task.job_id: task.attempt for task in order.tasks}
            slot.cancelled.clear()
            assert slot.process is not None
            slot.process.send(order)
        starting = sum(slot.process is not None and not slot.ready for slot in self._slots)
        for slot in self._slots:
            if slot.process is None and starting < len(self._pending):
                starting += self._start(slot)

    def _start(self, slot: _Slot) -> bool:
        if self._closing or time.monotonic() < slot.not_before:
            return False
        slot.ready, slot.verdict, slot.heard = False, "", time.monotonic()
        slot.state = WorkerState()
        try:
            slot.process = WorkerProcess(
                slot.name, self._settings.worker(slot.device), body=self._body
            )
        except OSError as error:  # no process, memory or file descriptor left
            self._start_failed(slot, str(error))
            return False
        slot.reader = threading.Thread(
            target=_read, args=(self, slot, slot.process), name=slot.name, daemon=True
        )
        slot.reader.start()
        return True

    def _supervise(self) -> None:
        """Ends workers that are silent for too long; tries starts that had to wait."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.process is None or slot.idle:
                continue
            limit = self._settings.stall_seconds if slot.ready else self._settings.start_seconds
            if slot.verdict:
                limit = EXIT_SECONDS
            if now - slot.heard > limit:
                ending = f"the worker gave no sign of life for {limit:g} seconds"
                slot.verdict = slot.verdict or ending
                slot.process.kill()
        self._assign()

    def heard(self, slot: _Slot, message: object) -> None:
        """Takes a message of the slot's worker; called by its reader."""
        with self._changed:
            slot.heard = time.monotonic()
            if isinstance(message, Ready):
                slot.ready, slot.failed_starts, slot.state = True, 0, message.state
            elif isinstance(message, OrderDone):
                slot.order, slot.state = None, message.state
                self._retire_if_worn(slot)
            elif isinstance(message, _Event):
                if not isinstance(message, Started | Stepped):
                    slot.unfinished.pop(message.job_id, None)
                    slot.jobs_done += 1
                self._events.put(message)
            self._assign()
            self._changed.notify_all()

    def _retire_if_worn(self, slot: _Slot) -> None:
        loads, memory = self._settings.max_model_loads, self._settings.max_memory_bytes
        if (loads and slot.state.model_loads >= loads) or (
            memory and slot.state.memory_bytes > memory
        ):
            slot.verdict = "the worker was replaced in good order"
            if slot.process is not None:
                slot.process.send(Close())

    def gone(self, slot: _Slot, ending: str) -> None:
        """Takes note of the end of the slot's worker; called by its reader, when it is reaped."""
        with self._changed:
            reason = slot.verdict or ending
            was_ready, blamed = slot.ready, tuple(slot.unfinished.items())
            slot.process, slot.order, slot.ready = None, None, False
            slot.unfinished, slot.state = {}, WorkerState()
            if not self._closing:
                if not was_ready:
                    self._start_failed(slot, reason)
                elif blamed:
                    self._events.put(WorkerDied(blamed, f"{reason[0].upper()}{reason[1:]}."))
                self._start(slot)  # it was of use before: the next job should not have to wait
                self._assign()
            self._changed.notify_all()

    def _start_failed(self, slot: _Slot, reason: str) -> None:
        """Waits longer before each next start; the jobs are blamed when it goes on and on."""
        slot.failed_starts += 1
        slot.not_before = time.monotonic() + 0.25 * 2 ** min(slot.failed_starts, 7)
        if slot.failed_starts % MAX_FAILED_STARTS == 0 and self._pending:
            jobs = tuple((task.job_id, task.attempt) for task in self._pending)
            self._pending.clear()
            self._events.put(WorkerDied(jobs, f"No worker could be started: {reason}."))


def _read(engine: LocalEngine, slot: _Slot, process: WorkerProcess) -> None:
    """Passes a worker's messages on until its end."""
    while (message := process.receive()) is not None:
        engine.heard(slot, message)
    engine.gone(slot, process.reap())
