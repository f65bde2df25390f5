"""LocalEngine as a supervisor: real processes that come, die, hang and leave, without torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from engine_support import MemoryPictures, MemoryQueue, gather, make_job, wait_for

from izograf.engine.dispatcher import Dispatcher
from izograf.engine.local import LocalEngine, LocalSettings
from izograf.engine.process import WorkerProcess
from izograf.engine.protocol import (
    EngineEvent,
    Failed,
    Finished,
    Started,
    Stepped,
    Stopped,
    WorkerDied,
)
from izograf.schema.job import Status

LONG = {"num_inference_steps": 100_000, "step_seconds": 0.01}

Make = Callable[..., LocalEngine]


@pytest.fixture
def make() -> Iterator[Make]:
    engines: list[LocalEngine] = []

    def build(body: str = "light_worker", **chosen: Any) -> LocalEngine:
        engines.append(LocalEngine(LocalSettings(**chosen), body=body))
        return engines[-1]

    yield build
    for engine in engines:
        engine.close(0)


def has(kind: type, number: int = 1) -> Callable[[list[EngineEvent]], bool]:
    return lambda events: sum(isinstance(event, kind) for event in events) >= number


def running(process_id: int) -> bool:
    """Whether the process computes or sleeps; a zombie does neither."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_nothing_is_started_before_it_is_needed(make: Make) -> None:
    engine = make()
    assert engine.poll(0) == []
    assert engine.process_ids() == ()
    assert not engine.health()[0].alive


def test_jobs_are_computed_in_order(make: Make) -> None:
    engine = make()
    for number in range(3):
        engine.submit(make_job(number, seed=number, num_images=2), 1)
    events = gather(engine, has(Finished, 3))
    finished = [event for event in events if isinstance(event, Finished)]
    assert [[p.seed for p in event.pictures] for event in finished] == [[0, 1], [1, 2], [2, 3]]
    kinds = [type(event) for event in events if event.job_id == make_job(0).id]
    assert kinds == [Started, *[Stepped] * 4, Finished]
    assert engine.health()[0].jobs_done == 3


def test_previews_come_at_the_first_step_and_then_seldom(make: Make) -> None:
    engine = make(preview_seconds=0.5)
    engine.submit(make_job(1, seed=7, num_inference_steps=30, step_seconds=0.03), 1)
    events = gather(engine, has(Finished))
    shown = [e for e in events if isinstance(e, Stepped) and e.preview is not None]
    assert shown[0].step == 1
    assert shown[0].preview == b"preview of 7"
    assert 2 <= len(shown) <= 10


def test_p4_cancel_takes_effect_within_a_step(make: Make) -> None:
    engine = make()
    engine.submit(make_job(1, **{**LONG, "step_seconds": 0.2}), 1)
    engine.submit(make_job(2), 1)
    gather(engine, has(Stepped))
    engine.cancel(make_job(1).id)
    events = gather(engine, has(Finished))
    before = events[: events.index(Stopped(make_job(1).id, 1))]
    assert len(before) <= 1  # the step that was under way
    engine.cancel(make_job(1).id)
    engine.cancel("job_unknown")
    assert engine.poll(0.1) == []


def test_p4_cancel_of_a_waiting_job_is_immediate(make: Make) -> None:
    engine = make()
    engine.submit(make_job(1, **LONG), 1)
    gather(engine, has(Stepped))
    engine.submit(make_job(2), 1)
    engine.cancel(make_job(2).id)
    events = gather(engine, has(Stopped))
    assert Stopped(make_job(2).id, 1) in events
    assert not any(isinstance(e, Started) for e in events)


def test_p4_a_waiting_job_that_was_cancelled_is_never_started(make: Make) -> None:
    engine = make()
    engine.submit(make_job(1, **LONG), 1)
    gather(engine, has(Stepped))
    engine.submit(make_job(2), 1)
    engine.submit(make_job(3), 1)
    engine.cancel(make_job(2).id)
    engine.cancel(make_job(1).id)
    events = gather(engine, has(Finished))
    assert Stopped(make_job(2).id, 1) in events
    assert [e.job_id for e in events if isinstance(e, Started)] == [make_job(3).id]


def test_p4_each_attempt_of_a_job_can_be_cancelled_and_its_worker_is_told_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, told = make(), []
    send = WorkerProcess.send

    def note(process: WorkerProcess, message: object) -> None:
        told.append(type(message).__name__)
        send(process, message)

    monkeypatch.setattr(WorkerProcess, "send", note)
    for attempt in (1, 2):
        engine.submit(make_job(1, **{**LONG, "step_seconds": 0.2}), attempt)
        gather(engine, has(Stepped))
        told.clear()
        for _ in range(3):
            engine.cancel(make_job(1).id)
        assert Stopped(make_job(1).id, attempt) in gather(engine, has(Stopped), seconds=60)
        assert told == ["Cancel"], "a busy worker reads no more than its pipe holds"


def test_p2_a_killed_worker_is_replaced_and_only_its_own_job_blamed(make: Make) -> None:
    engine = make()
    engine.submit(make_job(1, **LONG), 1)
    engine.submit(make_job(2), 1)
    gather(engine, has(Stepped))
    (killed,) = engine.process_ids()
    os.kill(killed, signal.SIGKILL)
    events = gather(engine, has(Finished))
    (died,) = [event for event in events if isinstance(event, WorkerDied)]
    assert died.jobs == ((make_job(1).id, 1),)
    assert "SIGKILL" in died.reason
    assert [e.job_id for e in events if isinstance(e, Finished)] == [make_job(2).id]
    assert engine.process_ids() != (killed,)
    assert not Path(f"/proc/{killed}").exists()  # reaped, no zombie


def test_the_death_of_an_idle_worker_is_nobodys_fault(make: Make) -> None:
    engine = make()
    engine.submit(make_job(1, die_at=2), 1)
    gather(engine, has(WorkerDied))
    wait_for(lambda: engine.health()[0].alive)
    (idle,) = engine.process_ids()
    os.kill(idle, signal.SIGKILL)
    wait_for(lambda: engine.process_ids() not in ((), (idle,)))
    engine.submit(make_job(2), 1)
    assert not has(WorkerDied)(gather(engine, has(Finished)))


def test_p2_a_poison_job_ends_dead_and_the_others_done(make: Make) -> None:
    queue, engine = MemoryQueue(), make()
    dispatcher = Dispatcher(queue, MemoryPictures(), engine)
    poison, others = make_job(1, die_at=2), [make_job(n) for n in (2, 3)]
    for job in (poison, *others):
        queue.submit(job)
    dispatcher.start()
    try:
        wait_for(queue.settled)
    finally:
        dispatcher.stop(grace=1)
    assert queue.status(poison.id) is Status.DEAD
    assert all(queue.status(job.id) is Status.DONE for job in others)
    assert all(queue.rows[job.id].deaths == 0 for job in others)


def test_a_stalled_worker_is_killed(make: Make) -> None:
    engine = make(stall_seconds=1.5)
    engine.submit(make_job(1, hang_at=2), 1)
    engine.submit(make_job(2), 1)
    events = gather(engine, has(Finished))
    (died,) = [event for event in events if isinstance(event, WorkerDied)]
    assert died.jobs == ((make_job(1).id, 1),)
    assert "no sign of life" in died.reason


def test_a_stopped_process_counts_as_stalled(make: Make) -> None:
    engine = make(stall_seconds=1.5)
    engine.submit(make_job(1, **LONG), 1)
    gather(engine, has(Stepped))
    os.kill(engine.process_ids()[0], signal.SIGSTOP)
    assert any(isinstance(event, WorkerDied) for event in gather(engine, has(WorkerDied)))


def test_errors_are_told_in_general_terms_and_the_worker_goes_on(make: Make) -> None:
    engine = make()
    engine.submit(make_job(1, raise_at=2), 1)
    engine.submit(make_job(2, oom_from=1), 1)
    engine.submit(make_job(3), 1)
    events = gather(engine, has(Finished))
    internal, memory = [event for event in events if isinstance(event, Failed)]
    assert (internal.code, internal.retry) == ("InternalError", False)
    assert "secret" not in internal.reason
    assert (memory.code, memory.retry) == ("OutOfMemory", False)
    assert not any(isinstance(event, WorkerDied) for event in events)


@pytest.mark.parametrize("limit", [{"max_model_loads": 2}, {"max_memory_bytes": 1}])
def test_a_worn_worker_is_replaced_in_good_order(make: Make, limit: dict[str, int]) -> None:
    engine = make(**limit)
    seen: list[int] = []
    for number in range(4):
        engine.submit(make_job(number, model=f"model-{number}"), 1)
        events = gather(engine, has(Finished))
        assert not any(isinstance(event, WorkerDied) for event in events)
        wait_for(lambda: engine.health()[0].alive and not engine.health()[0].busy)
        seen += [*engine.process_ids()]
    assert len(set(seen)) >= 2
    wait_for(lambda: sum(map(running, set(seen))) == 1)


def test_two_devices_work_at_the_same_time(make: Make) -> None:
    engine = make(devices=("cpu", "cpu"))
    assert engine.capacity == 4
    for number in (1, 2):
        engine.submit(make_job(number, **LONG), 1)
    gather(engine, has(Started, 2))
    assert [worker.busy for worker in engine.health()] == [True, True]


def test_compatible_requests_share_a_batch_where_that_is_allowed(make: Make) -> None:
    engine = make(mix_requests=True, batch_size=8)
    engine.submit(make_job(0, **LONG), 1)
    gather(engine, has(Stepped))
    same = {"num_inference_steps": 3}
    sea = {"type": "class", "class": "sea"}
    engine.submit(make_job(1, seed=10, num_images=2, **same), 1)
    engine.submit(make_job(2, seed=5, condition=sea, **same), 1)
    engine.submit(make_job(3, model="other", **same), 1)
    engine.cancel(make_job(0).id)
    events = gather(engine, has(Finished, 3))
    records = {e.job_id: e.pictures[0].record for e in events if isinstance(e, Finished)}
    rows = [["mountain", 10], ["mountain", 11], ["sea", 5]]
    assert records[make_job(1).id]["batch"] == [10, 2]
    assert records[make_job(1).id]["composition"] == rows
    assert records[make_job(2).id]["composition"] == rows
    assert "composition" not in records[make_job(3).id]


def test_p15_neighbours_of_a_job_that_does_not_fit_are_computed_without_it(make: Make) -> None:
    engine = make(mix_requests=True, batch_size=8)
    engine.submit(make_job(0, **LONG), 1)
    gather(engine, has(Stepped))
    for number, num_images in ((1, 1), (2, 3), (3, 2)):
        engine.submit(make_job(number, num_images=num_images, oom_from=3), 1)
    engine.cancel(make_job(0).id)
    events = gather(engine, lambda e: has(Finished, 2)(e) and has(Failed)(e))
    assert [e.job_id for e in events if isinstance(e, Failed)] == [make_job(2).id]
    done = [e.job_id for e in events if isinstance(e, Finished)]
    assert done == [make_job(1).id, make_job(3).id]


def test_cancelling_one_of_a_shared_batch_leaves_the_others(make: Make) -> None:
    engine = make(mix_requests=True, batch_size=8)
    engine.submit(make_job(0, **LONG), 1)
    gather(engine, has(Stepped))
    for number in (1, 2):
        engine.submit(make_job(number, num_inference_steps=20, step_seconds=0.05), 1)
    engine.cancel(make_job(0).id)
    gather(engine, has(Stepped, 2))
    engine.cancel(make_job(1).id)
    events = gather(engine, has(Finished))
    assert Stopped(make_job(1).id, 1) in events
    assert [e.job_id for e in events if isinstance(e, Finished)] == [make_job(2).id]


def test_closing_with_grace_lets_the_running_job_finish(make: Make) -> None:
    engine = make()
    engine.submit(make_job(1, num_inference_steps=5, step_seconds=0.1), 1)
    engine.submit(make_job(2), 1)
    gather(engine, has(Stepped))
    (process_id,) = engine.process_ids()
    engine.close(grace=200)
    events = engine.poll(0)
    assert [e.job_id for e in events if isinstance(e, Finished)] == [make_job(1).id]
    assert not any(isinstance(event, WorkerDied) for event in events)
    assert not running(process_id)
    engine.submit(make_job(3), 1)
    assert engine.poll(0) == [Stopped(make_job(3).id, 1)]


def test_closing_without_grace_ends_everything_and_leaks_nothing(make: Make) -> None:
    def round_trip() -> None:
        engine = make(devices=("cpu", "cpu"))
        for number in (1, 2):
            engine.submit(make_job(number, **LONG), 1)
        gather(engine, has(Stepped, 2))
        process_ids = engine.process_ids()
        start = time.monotonic()
        engine.close(grace=0)
        assert time.monotonic() - start < 10
        assert not any(Path(f"/proc/{process_id}").exists() for process_id in process_ids)

    round_trip()  # multiprocessing's own resource tracker comes with the first and stays
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    round_trip()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_signals_meant_for_the_service_do_not_end_its_workers(make: Make) -> None:
    engine = make()
    engine.submit(make_job(1, num_inference_steps=20, step_seconds=0.02), 1)
    gather(engine, has(Stepped))
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(engine.process_ids()[0], number)
    events = gather(engine, has(Finished))
    assert not any(isinstance(event, WorkerDied) for event in events)


@pytest.mark.filterwarnings("ignore")
def test_workers_that_cannot_start_are_not_started_forever(
    make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = make(body="no_such_worker_module")
    engine.submit(make_job(1), 1)
    events = gather(engine, has(WorkerDied))
    assert events[0].jobs == ((make_job(1).id, 1),)
    assert "could be started" in events[0].reason
    assert capfd.readouterr().err.count("ModuleNotFoundError") == 3


SCRIPT = """
import sys, time
sys.path.insert(0, {folder!r})
from engine_support import gather, make_job
from izograf.engine.local import LocalEngine
from izograf.engine.protocol import Stepped

if __name__ == "__main__":
    engine = LocalEngine(body="light_worker")
    engine.submit(make_job(1, num_inference_steps=100000, step_seconds=0.01), 1)
    gather(engine, lambda events: any(isinstance(e, Stepped) for e in events))
    try:
        print(*engine.process_ids(), flush=True)
        {then}
    except KeyboardInterrupt:
        gather(engine, lambda events: any(isinstance(e, Stepped) for e in events))
        print("still computing", flush=True)
"""


Program = Callable[[str], tuple[subprocess.Popen[str], int]]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """Starts a program of its own with a busy engine; gives it and the number of its worker."""
    started: list[subprocess.Popen[str]] = []

    def start(then: str) -> tuple[subprocess.Popen[str], int]:
        script = tmp_path / "service.py"
        script.write_text(SCRIPT.format(folder=str(Path(__file__).parent), then=then))
        process = subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # a suite that was started in a shell's background passes on that SIGINT is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_worker_leaves_when_its_service_was_killed(program: Program) -> None:
    process, worker = program("time.sleep(1000)")
    process.kill()
    process.wait()
    wait_for(lambda: not running(worker))


def test_a_program_that_forgets_to_close_ends_all_the_same(program: Program) -> None:
    process, worker = program("pass")
    assert process.wait(timeout=200) == 0
    assert not running(worker)


def test_an_interrupt_of_the_whole_group_leaves_workers_to_their_engine(program: Program) -> None:
    process, worker = program("time.sleep(1000)")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert "still computing" in output
    assert not running(worker)
