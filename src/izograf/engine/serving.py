"""The life of a worker process, whatever computes in it: orders in, events out, cancel by step.

Nothing here knows torch: a `Renderer` does the computing (see `engine.worker`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

from izograf.engine.messages import (
    Cancel,
    Close,
    Order,
    OrderDone,
    Ready,
    Task,
    WorkerSettings,
    WorkerState,
)
from izograf.engine.protocol import (
    Cost,
    EngineEvent,
    EnginePicture,
    Failed,
    Finished,
    OriginalFiles,
    Started,
    Stepped,
    Stopped,
)
from izograf.engine.tasks import find_task
from izograf.schema.errors import Cancelled, IzografError
from izograf.schema.request import GenerationRequest

log = logging.getLogger(__name__)

OUT_OF_MEMORY = "The pictures did not fit into memory: ask for fewer or smaller ones at a time."
INTERNAL = "Something went wrong inside the program; the operator's log has the details."

Rendered = tuple[tuple[EnginePicture, ...], Cost]
"""The pictures of one request and what they took."""

Verified = tuple[Mapping[str, Any], Cost]
"""The result of a verification as `engine.tasks` describes it, and what it took."""


class Progress(Protocol):
    """Called after each step with (step, num_steps, preview of the i-th request as a PNG).

    Raises `Cancelled` when nobody wants the result any more.
    """

    def __call__(self, step: int, num_steps: int, preview: Callable[[int], bytes], /) -> None: ...


class Renderer(Protocol):
    """What computes pictures in a worker. Running out of memory is always a `MemoryError`."""

    def render(
        self,
        request: GenerationRequest,
        progress: Progress,
        original: OriginalFiles | None = None,
    ) -> Rendered:
        """The pictures of the request, begun with `original` where there is one."""
        ...

    def render_together(
        self, requests: Sequence[GenerationRequest], progress: Progress
    ) -> Sequence[Rendered]:
        """All requests in one batch; they are compatible (see `engine.batching`).

        Each took the time of all, and its part of the energy by the number of its pictures.
        """
        ...

    def verify(
        self,
        request: GenerationRequest,
        png: bytes,
        progress: Progress,
        original: OriginalFiles | None = None,
    ) -> Verified:
        """How the picture `png` compares with its re-generation by the request's model.

        Raises:
            InvalidInput: it is no picture made here.
        """
        ...

    def release_memory(self) -> None:
        """Gives back what an interrupted computation left behind."""
        ...

    def state(self) -> WorkerState: ...


class Gone(Exception):
    """The engine is gone: the pipe is closed, and nobody waits for results."""


def serve(connection: Connection, settings: WorkerSettings, renderer: Renderer) -> None:
    """Carries out orders until told to close, or until the engine is gone."""
    server = _Server(connection, settings, renderer)
    try:
        server.report(Ready(renderer.state()))
        while (order := server.next_order()) is not None:
            server.carry_out(order)
            server.report(OrderDone(renderer.state()))
    except Gone:
        log.info("The engine is gone; the worker leaves.")


class _Server:
    def __init__(
        self, connection: Connection, settings: WorkerSettings, renderer: Renderer
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._renderer = renderer
        self.cancelled: set[str] = set()
        self._ended: set[str] = set()  # jobs of the order that have had their last event
        self._closing = False

    def report(self, message: EngineEvent | Ready | OrderDone) -> None:
        if isinstance(message, Finished | Failed | Stopped):
            self._ended.add(message.job_id)
        try:
            self._connection.send(message)
        except OSError as error:
            raise Gone from error

    def next_order(self) -> Order | None:
        """The next order, waited for; None when the worker is to leave."""
        while not self._closing:
            message = self._receive()
            if isinstance(message, Order):
                self.cancelled.clear()  # whatever is left is of jobs that ended already
                self._ended.clear()
                return message
            self._note(message)
        return None

    def carry_out(self, order: Order) -> None:
        """Computes every job of the order and reports the end of each."""
        for task in order.tasks:
            self.report(Started(task.job_id, task.attempt))
        if len(order.tasks) > 1:
            self._together(order.tasks)
        for task in order.tasks:
            if task.job_id not in self._ended:
                self.report(self._outcome(task))

    def read_messages(self) -> None:
        """Takes note of everything the engine has said meanwhile."""
        try:
            while self._connection.poll():
                self._note(self._receive())
        except OSError as error:
            raise Gone from error

    def _receive(self) -> object:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise Gone from error

    def _note(self, message: object) -> None:
        if isinstance(message, Cancel):
            self.cancelled.add(message.job_id)
        elif isinstance(message, Close):
            self._closing = True

    def _outcome(self, task: Task) -> EngineEvent:
        job_id, attempt = task.job_id, task.attempt
        try:
            progress = _StepReporter(self, (task,), self._settings.preview_seconds)
            progress.check()
            done = find_task(task.name)(self._renderer, task, progress)
            progress.check()
            return Finished(job_id, attempt, done.pictures, done.cost, done.result)
        except Cancelled:
            event: EngineEvent = Stopped(job_id, attempt)
        except MemoryError:
            event = Failed(job_id, attempt, "OutOfMemory", OUT_OF_MEMORY)
        except IzografError as error:
            event = Failed(job_id, attempt, type(error).__name__, str(error))
        except Gone:
            raise
        except Exception:
            log.exception("Job %s, attempt %d, failed", job_id, attempt)
            event = Failed(job_id, attempt, "InternalError", INTERNAL)
        # only here is the exception gone, and with it the frames that hold the tensors
        self._renderer.release_memory()
        return event

    def _together(self, tasks: Sequence[Task]) -> None:
        """Computes the tasks as one batch; after an error each is left to be tried on its own.

        Which of them is at fault cannot be told from the batch, and a neighbour's trouble is no
        reason to fail.
        """
        try:
            progress = _StepReporter(self, tasks, self._settings.preview_seconds)
            progress.check()
            rendered = self._renderer.render_together([t.request for t in tasks], progress)
            progress.check()
        except Gone:
            raise
        except Cancelled:
            log.debug("Every job of a shared batch was cancelled.")
        except Exception as error:
            log.warning("A shared batch failed (%s); its jobs run alone.", type(error).__name__)
        else:
            for task, (pictures, cost) in zip(tasks, rendered, strict=True):
                if task.job_id not in self._ended:
                    self.report(Finished(task.job_id, task.attempt, pictures, cost))
            return
        self._renderer.release_memory()


class _StepReporter:
    """Reports steps and previews of the tasks in a tensor, and notices what was cancelled.

    The job of a lone task is reported stopped by its caller; in a shared batch, the others go on.
    """

    def __init__(self, server: _Server, tasks: Sequence[Task], preview_seconds: float) -> None:
        self._server = server
        self._tasks = tasks
        self._stopped: set[str] = set()
        self._preview_seconds = preview_seconds
        self._last_preview = -float("inf")

    def __call__(self, step: int, num_steps: int, preview: Callable[[int], bytes], /) -> None:
        self.check()
        now = time.monotonic()
        due = now - self._last_preview >= self._preview_seconds
        if due:
            self._last_preview = now
        for index, task in enumerate(self._tasks):
            if task.job_id not in self._stopped:
                png = preview(index) if due else None
                self._server.report(Stepped(task.job_id, task.attempt, step, num_steps, png))

    def check(self) -> None:
        """Raises `Cancelled` when every task is; one of several is reported as stopped."""
        self._server.read_messages()
        for task in self._tasks:
            if task.job_id in self._server.cancelled and task.job_id not in self._stopped:
                self._stopped.add(task.job_id)
                if len(self._tasks) > 1:
                    self._server.report(Stopped(task.job_id, task.attempt))
        if len(self._stopped) == len(self._tasks):
            raise Cancelled
