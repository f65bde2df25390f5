"""P4 inside a worker: at which moments it hears that a job was cancelled, without a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from engine_support import make_job
from light_worker import LightRenderer

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
from izograf.engine.protocol import EngineEvent, Finished, Started, Stepped, Stopped
from izograf.engine.serving import Progress, Rendered, serve
from izograf.schema.request import GenerationRequest


class Watched(LightRenderer):
    """Calls `afterwards` when its pictures are made and not yet reported."""

    def __init__(self, afterwards: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.afterwards = afterwards
        self.calls = 0

    def render_together(
        self, requests: Sequence[GenerationRequest], progress: Progress
    ) -> Sequence[Rendered]:
        self.calls += 1
        rendered = super().render_together(requests, progress)
        self.afterwards()
        return rendered


def task(number: int, attempt: int = 1) -> Task:
    job = make_job(number, num_inference_steps=2)
    return Task(job.id, attempt, job.request, job.task, {})


def said(engine: Connection, worker: Connection, renderer: LightRenderer) -> list[EngineEvent]:
    """The beginnings and ends of jobs that the worker reports until it is told to close."""
    serve(worker, WorkerSettings(), renderer)
    events = []
    while engine.poll():
        message = engine.recv()
        if not isinstance(message, Ready | OrderDone | Stepped):
            events.append(message)
    return events


def test_p4_a_job_cancelled_before_it_began_computes_nothing() -> None:
    engine, worker = Pipe()
    for message in (Order((task(1),)), Cancel(task(1).job_id), Close()):
        engine.send(message)
    renderer = Watched()
    assert said(engine, worker, renderer) == [
        Started(task(1).job_id, 1), Stopped(task(1).job_id, 1),
    ]  # fmt: skip
    assert renderer.calls == 0


def test_p4_a_job_cancelled_after_its_last_step_is_stopped() -> None:
    engine, worker = Pipe()
    engine.send(Order((task(1),)))
    engine.send(Close())
    renderer = Watched(lambda: engine.send(Cancel(task(1).job_id)))
    ends = said(engine, worker, renderer)[1:]
    assert ends == [Stopped(task(1).job_id, 1)]


def test_p4_one_of_a_batch_cancelled_after_the_last_step_is_stopped_and_no_other() -> None:
    engine, worker = Pipe()
    engine.send(Order((task(1), task(2))))
    engine.send(Close())
    renderer = Watched(lambda: engine.send(Cancel(task(1).job_id)))
    ends = said(engine, worker, renderer)[2:]
    assert ends[0] == Stopped(task(1).job_id, 1)
    assert [end.job_id for end in ends if isinstance(end, Finished)] == [task(2).job_id]
    assert len(ends) == 2
    assert renderer.calls == 1, "nothing was computed again"


def test_a_cancel_that_came_too_late_does_not_stop_the_next_attempt() -> None:
    engine, worker = Pipe()
    engine.send(Order((task(1),)))

    class Between(Watched):
        """Is asked for its state when it is ready, and after each order."""

        asked = 0

        def state(self) -> WorkerState:
            self.asked += 1
            if self.asked == 2:
                engine.send(Cancel(task(1).job_id))
                engine.send(Order((task(1, attempt=2),)))
            elif self.asked == 3:
                engine.send(Close())
            return super().state()

    ends = said(engine, worker, Between())
    assert [end.attempt for end in ends if isinstance(end, Finished)] == [1, 2]
