"""The one owner of the queue: takes jobs from the store to the engine, and results back.

The store's rows are the truth and judge every report by its attempt; the dispatcher remembers only
what is in flight. While the store cannot be reached it keeps the engine's results and writes them
down, in order, when the store is back; nothing new is claimed until all of them are written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from izograf.engine.ports import JobQueue, Pictures
from izograf.engine.protocol import (
    Engine,
    EngineEvent,
    Failed,
    Finished,
    Started,
    Stepped,
    Stopped,
    WorkerDied,
)
from izograf.engine.serving import INTERNAL
from izograf.engine.words import SearchWords
from izograf.schema.errors import NotFound, StorageError
from izograf.schema.job import Job, Status

log = logging.getLogger(__name__)

BUSY_SECONDS = 0.05  # how long a turn waits for the engine
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # before the store is asked again
JOIN_SECONDS = 30.0

Ending = Finished | Failed | Stopped | WorkerDied


@dataclass(frozen=True)
class DispatcherSettings:
    """How eagerly the dispatcher looks and writes.

    Attributes:
        idle_seconds: between two looks into a queue that was empty; `wake` makes it look at once.
        step_seconds: between two steps written down for the same job; previews always are.
        cancel_seconds: between two looks for jobs cancelled by others than `cancel`.
    """

    idle_seconds: float = 0.5
    step_seconds: float = 0.3
    cancel_seconds: float = 0.5


@dataclass
class _Flight:
    """A job given to the engine, until its end is written down."""

    job: Job
    attempt: int
    started: bool = False
    noted: bool = False  # the store knows that it started
    ended: bool = False  # the engine is done with it
    step: Stepped | None = None  # the latest one, not yet written down
    written_at: float = -float("inf")


class Dispatcher:
    """Runs in a thread of its own (`start`, `stop`), or turn by turn (`recover`, `turn`)."""

    def __init__(
        self,
        queue: JobQueue,
        pictures: Pictures,
        engine: Engine,
        settings: DispatcherSettings = DispatcherSettings(),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue, self._pictures, self._engine = queue, pictures, engine
        self._settings, self._clock = settings, clock
        self._flights: dict[str, _Flight] = {}
        self._outbox: deque[Ending] = deque()
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()  # of `_cancelled`, the only thing other threads touch
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._grace = 0.0
        self._hurried = False
        self._thread: threading.Thread | None = None
        self._recovered = False
        self._claim_failed = False  # maybe after the row was changed
        self._next_claim = self._next_look = self._store_back = -float("inf")
        self._words = SearchWords()
        self._pause = 0.0  # between questions to the store; 0 while it answers

    # --- for other threads

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._thread.start()

    def stop(self, grace: float) -> None:
        """Claims no more, lets running jobs finish for `grace` seconds, hands the rest back.

        The engine is closed. Returns when all is written down, or the store could not be reached.
        """
        self._grace = grace
        self._stopping.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join(grace + JOIN_SECONDS)
            self._thread = None
        else:
            self.wind_up(grace)

    def hurry(self) -> None:
        """Ends the grace time of `stop`; a signal handler may call it while `stop` waits."""
        self._hurried = True

    def wake(self) -> None:
        """Says that a job was queued."""
        self._next_claim = -float("inf")
        self._awake.set()

    def cancel(self, job_id: str) -> None:
        """Stops the computing of a job whose row was cancelled, within one step."""
        with self._lock:
            self._cancelled.add(job_id)  # it may be between its claim and the engine just now
        self._engine.cancel(job_id)
        self._awake.set()

    @property
    def alive(self) -> bool:
        """Whether the thread runs and the store answers."""
        return self._thread is not None and self._thread.is_alive() and not self._pause

    # --- the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._awake.clear()
                self.turn(BUSY_SECONDS)
                if not self._flights and not self._outbox:
                    self._awake.wait(self._pause or self._settings.idle_seconds)
            except Exception:
                log.exception("The dispatcher met an error of its own; it goes on.")
                self._awake.wait(self._settings.idle_seconds)
        try:
            self.wind_up(self._grace)
        except Exception:
            log.exception("The dispatcher could not stop in good order.")

    def turn(self, timeout: float) -> None:
        """One round: claim, forward cancellations, hear the engine for `timeout`, write down."""
        if self._store_answers():
            try:
                self._recover()
                self._write_down()
                self._claim()
                self._look_for_cancelled()
                self._trust_store()
            except StorageError as error:
                self._distrust_store(error)
        self._forward_cancelled()
        for event in self._engine.poll(timeout if self._flights else 0.0):
            self._hear(event)
        self._try_to_write()

    def wind_up(self, grace: float) -> None:
        """What `stop` promises, in the calling thread."""
        deadline = self._clock() + grace
        for flight in self._flights.values():
            if not flight.started:
                self._engine.cancel(flight.job.id)  # it was only waiting: hand it back at once
        while self._flights and self._clock() < deadline and not self._hurried:
            for event in self._engine.poll(min(BUSY_SECONDS, deadline - self._clock())):
                self._hear(event)
            self._try_to_write()
        self._engine.close(0)
        for event in self._engine.poll(0.0):
            self._hear(event)
        for flight in self._flights.values():
            if not flight.ended:
                flight.ended = True
                self._outbox.append(Stopped(flight.job.id, flight.attempt))
        self._store_back = -float("inf")
        self._try_to_write()
        if self._outbox:
            log.error("The store is away: %d jobs are left to the next start.", len(self._outbox))

    # --- the store

    def _store_answers(self) -> bool:
        return self._clock() >= self._store_back

    def _trust_store(self) -> None:
        if self._pause:
            log.warning("The store is back.")
        self._pause = 0.0

    def _distrust_store(self, error: StorageError) -> None:
        if not self._pause:
            log.error("The store does not answer, results are kept: %s", error)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause or FIRST_PAUSE)
        self._store_back = self._clock() + self._pause

    def _recover(self) -> None:
        """Queues what nobody computes: at the start every running row, later a lost claim."""
        if not self._recovered:
            self._queue.requeue_running()
            self._recovered = True
        elif self._claim_failed:
            for job in self._queue.list_jobs(status=Status.RUNNING, limit=200).items:
                if job.id not in self._flights:
                    self._queue.hand_back(job.id, job.attempt)
                    self._next_claim = -float("inf")
        self._claim_failed = False

    def _claim(self) -> None:
        """Fills the engine; every result was written down just before, or this is not reached."""
        while len(self._flights) < self._engine.capacity and self._clock() >= self._next_claim:
            self._next_claim = self._clock() + self._settings.idle_seconds
            self._claim_failed = True
            claimed = self._queue.claim_next()
            self._claim_failed = False
            if claimed is None:
                return
            job, attempt = claimed
            self._next_claim = -float("inf")
            self._flights[job.id] = _Flight(job, attempt)
            self._submit(job, attempt)

    def _submit(self, job: Job, attempt: int) -> None:
        """Gives the engine the job with the files it reads; one of them missing fails the job."""
        try:
            inputs = {name: self._pictures.read_file(sha) for name, sha in job.inputs.items()}
        except StorageError as error:
            self._hear(Failed(job.id, attempt, type(error).__name__, str(error)))
        else:
            self._engine.submit(job, attempt, inputs)

    def _look_for_cancelled(self) -> None:
        """Notices what another process cancelled in the store."""
        if self._clock() < self._next_look:
            return
        self._next_look = self._clock() + self._settings.cancel_seconds
        for flight in self._flights.values():
            if not flight.ended and not self._wanted(flight):
                self._engine.cancel(flight.job.id)

    def _wanted(self, flight: _Flight) -> bool:
        try:
            job = self._queue.get(flight.job.id)
        except NotFound:  # deleted meanwhile
            return False
        return job.status is Status.RUNNING and job.attempt == flight.attempt

    def _try_to_write(self) -> None:
        if self._store_answers():
            try:
                self._write_down()
            except StorageError as error:
                self._distrust_store(error)

    def _write_down(self) -> None:
        """Writes everything the engine said, in order. What raises is still in the outbox."""
        while self._outbox:
            ending = self._outbox[0]
            try:
                self._write_ending(ending)
            except StorageError:
                raise
            except Exception:
                log.exception(
                    "The end of a job could not be written: %s", type(ending).__name__,
                    extra={"job_id": ", ".join(job_id for job_id, _ in _pairs(ending))},
                )  # fmt: skip
                self._give_up(ending)
            self._outbox.popleft()
            self._land(ending)
        for flight in list(self._flights.values()):
            self._note_start(flight)
            self._write_step(flight)

    def _note_start(self, flight: _Flight) -> None:
        if flight.started and not flight.noted and not flight.ended:
            self._queue.began(flight.job.id, flight.attempt)
            flight.noted = True

    def _write_step(self, flight: _Flight) -> None:
        step, now = flight.step, self._clock()
        if step is None or flight.ended:
            return
        if step.preview is None and now - flight.written_at < self._settings.step_seconds:
            return
        current = self._queue.record_step(
            step.job_id, step.attempt, step.step, step.num_steps, step.preview
        )
        flight.step, flight.written_at = None, now
        if not current:
            self._engine.cancel(step.job_id)

    def _write_ending(self, ending: Ending) -> None:
        if isinstance(ending, Finished):
            self._write_pictures(ending)
        elif isinstance(ending, Stopped):
            self._queue.hand_back(ending.job_id, ending.attempt)  # unless it was cancelled
        elif isinstance(ending, WorkerDied):
            for job_id, attempt in ending.jobs:
                self._queue.worker_died(job_id, attempt, ending.reason)
        elif ending.retry:
            self._queue.worker_died(ending.job_id, ending.attempt, ending.reason)
        else:
            self._queue.fail(ending.job_id, ending.attempt, ending.code, ending.reason)
        if not isinstance(ending, Finished):
            self._next_claim = -float("inf")  # something may be queued again

    def _write_pictures(self, ending: Finished) -> None:
        """Files first, then the rows. Whether the result counts is for the store to decide."""
        flight = self._flights.get(ending.job_id)
        try:
            job = flight.job if flight is not None else self._queue.get(ending.job_id)
        except NotFound:
            return  # deleted meanwhile
        cost, share = ending.cost, 1 / max(1, len(ending.pictures))
        words = self._words(job.request) if ending.pictures else ""
        self._pictures.write_files([picture.png for picture in ending.pictures])
        staged = [
            self._pictures.stage(
                job,
                seed=picture.seed,
                png=picture.png,
                width=picture.width,
                height=picture.height,
                record=picture.record,
                seconds=cost.seconds * share,
                joules=cost.part(share).joules,
                energy_method=cost.energy_method,
                words=words,
            )
            for picture in ending.pictures
        ]
        self._queue.finish(
            ending.job_id,
            ending.attempt,
            staged,
            seconds=cost.seconds,
            joules=cost.joules,
            energy_method=cost.energy_method,
            result=ending.result,
        )

    def _give_up(self, ending: Ending) -> None:
        """Fails the jobs of an ending that the store refuses for what it holds."""
        pairs = _pairs(ending)
        for job_id, attempt in pairs:
            try:
                self._queue.fail(job_id, attempt, "InternalError", INTERNAL)
            except StorageError:
                raise
            except Exception:
                log.exception("A job cannot even be failed.", extra={"job_id": job_id})

    def _land(self, ending: Ending) -> None:
        for job_id, attempt in _pairs(ending):
            flight = self._flights.get(job_id)
            if flight is not None and flight.attempt == attempt:
                del self._flights[job_id]

    # --- the engine

    def _hear(self, event: EngineEvent) -> None:
        if isinstance(event, Started | Stepped):
            flight = self._flights.get(event.job_id)
            if flight is None or flight.attempt != event.attempt or flight.ended:
                return
            flight.started = True
            if isinstance(event, Stepped):
                held = flight.step.preview if flight.step is not None else None
                flight.step = event if event.preview else replace(event, preview=held)
            return
        for job_id, attempt in _pairs(event):
            flight = self._flights.get(job_id)
            if flight is not None and flight.attempt == attempt:
                flight.ended = True
        self._outbox.append(event)

    def _forward_cancelled(self) -> None:
        with self._lock:
            cancelled, self._cancelled = self._cancelled, set()
        for job_id in cancelled:
            self._engine.cancel(job_id)


def _pairs(ending: Ending) -> tuple[tuple[str, int], ...]:
    """The (job id, attempt) pairs that it ends."""
    if isinstance(ending, WorkerDied):
        return ending.jobs
    return ((ending.job_id, ending.attempt),)
