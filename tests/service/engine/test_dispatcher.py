"""The dispatcher between a store in memory and the fake engine, in simulated time."""

from __future__ import annotations

import pytest
from engine_support import Clock, MemoryPictures, MemoryQueue, make_job

from izograf.engine.dispatcher import Dispatcher, DispatcherSettings
from izograf.engine.fake import ENERGY_METHOD, WATTS, FakeEngine, Fault, FaultPlan, no_faults
from izograf.engine.protocol import Failed
from izograf.schema.job import MAX_ATTEMPTS, EventKind, Job, Status


class Service:
    """A queue with a dispatcher and an engine that may be replaced, as by a restart."""

    def __init__(
        self,
        faults: FaultPlan = no_faults,
        *,
        num_workers: int = 1,
        settings: DispatcherSettings | None = None,
    ) -> None:
        self.clock, self.queue, self.pictures = Clock(), MemoryQueue(), MemoryPictures()
        self.faults, self.num_workers, self.settings = (
            faults,
            num_workers,
            settings or DispatcherSettings(),
        )
        self.preview_seconds = 0.5
        self.boot()

    def boot(self) -> None:
        self.engine = FakeEngine(
            clock=self.clock, sleep=self.clock.sleep, num_workers=self.num_workers, num_steps=10,
            step_seconds=0.1, preview_seconds=self.preview_seconds, stall_seconds=3.0, size=4,
            faults=self.faults,
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            self.queue, self.pictures, self.engine, self.settings, clock=self.clock
        )

    def submit(self, *jobs: Job) -> None:
        for job in jobs:
            self.queue.submit(job)
        self.dispatcher.wake()

    def cancel(self, job_id: str) -> None:
        if self.queue.cancel(job_id):
            self.dispatcher.cancel(job_id)

    def turn(self) -> None:
        self.dispatcher.turn(0.05)
        self.clock.sleep(0.01)

    def run(self, turns: int = 2000) -> None:
        """Turns until every job has ended, and a little longer for those who wake late."""
        for _ in range(turns):
            if self.queue.settled():
                break
            self.turn()
        assert self.queue.settled()
        for _ in range(50):
            self.clock.sleep(0.2)
            self.turn()


def only(job: Job, fault: Fault, attempts: int = 100) -> FaultPlan:
    return lambda other, attempt: fault if other.id == job.id and attempt <= attempts else None


def test_a_job_is_computed_and_its_pictures_are_stored() -> None:
    service, job = Service(), make_job(1, num_images=3, seed=5)
    service.submit(job)
    service.run()
    (images,) = service.queue.rows[job.id].images
    assert [image.seed for image in images] == [5, 6, 7]
    assert all(image.sha256 in service.pictures.files for image in images)
    assert all("горы" in image.words for image in images), "found in Russian too"
    assert all(image.seconds == pytest.approx(1 / 3) for image in images)
    assert all(image.joules == pytest.approx(WATTS / 3) for image in images)
    done = service.queue.get(job.id)
    assert (done.seconds, done.joules) == (pytest.approx(1), pytest.approx(WATTS))
    assert {done.energy_method, *(i.energy_method for i in images)} == {ENERGY_METHOD}
    assert service.queue.status(job.id) is Status.DONE


def test_steps_are_throttled_and_the_first_preview_comes_within_two() -> None:
    service, job = Service(), make_job(1, num_inference_steps=100)
    service.submit(job)
    service.run()
    steps = [d for k, d in service.queue.rows[job.id].events if k is EventKind.STEP]
    previews = [d for k, d in service.queue.rows[job.id].events if k is EventKind.PREVIEW]
    assert previews[0]["step"] <= 2
    assert len(previews) == 20
    assert 10 <= len(steps) + len(previews) <= 60
    numbers = [data["step"] for _, data in service.queue.rows[job.id].events if "step" in data]
    assert numbers == sorted(numbers)


def test_p1_rows_left_running_by_a_killed_service_are_run_again() -> None:
    service, jobs = Service(), [make_job(n) for n in range(5)]
    service.submit(*jobs)
    for _ in range(4):
        service.turn()
    assert service.queue.status(jobs[0].id) is Status.RUNNING
    service.boot()  # nobody said goodbye
    service.run()
    assert all(service.queue.status(job.id) is Status.DONE for job in jobs)
    assert all(len(row.images) == 1 for row in service.queue.rows.values())


def test_p2_a_poison_job_is_dead_after_three_attempts_and_the_others_go_on() -> None:
    poison, others = make_job(1), [make_job(n) for n in (2, 3, 4)]
    service = Service(only(poison, Fault("crash", 3)))
    service.submit(poison, *others)
    service.run()
    assert service.queue.status(poison.id) is Status.DEAD
    assert [a for job_id, a in service.engine.submitted if job_id == poison.id] == [1, 2, 3]
    assert "died" in service.queue.rows[poison.id].job.reason
    assert all(service.queue.status(job.id) is Status.DONE for job in others)


def test_p2_a_job_whose_worker_dies_once_is_run_again_at_once() -> None:
    job = make_job(1)
    service = Service(only(job, Fault("crash", 3), attempts=1))
    service.submit(job)
    service.run()
    assert service.queue.status(job.id) is Status.DONE
    assert service.queue.kinds(job.id).count(EventKind.RETRIED) == 1


def test_p2_a_job_that_kills_the_service_before_its_first_step_is_charged_and_no_other() -> None:
    service, poison, waiting = Service(), make_job(1), make_job(2)
    service.submit(poison, waiting)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        service.turn()
        assert service.engine.submitted == [(poison.id, attempt), (waiting.id, attempt)]
        service.boot()  # nobody said goodbye
    service.run()
    assert service.queue.status(poison.id) is Status.DEAD
    assert EventKind.STEP not in service.queue.kinds(poison.id)
    assert service.queue.rows[waiting.id].deaths == 0
    assert service.queue.status(waiting.id) is Status.DONE


@pytest.mark.parametrize("checked", [True, False])
def test_p3_a_worker_that_wakes_late_changes_nothing(checked: bool) -> None:
    """Without the attempt check of the store, the control, there would be two results."""
    job = make_job(1)
    service = Service(only(job, Fault("stall", 3), attempts=1))
    service.queue.checks_attempts = checked
    service.submit(job)
    service.run()
    assert service.queue.status(job.id) is Status.DONE
    assert (len(service.queue.rows[job.id].images) == 1) is checked


@pytest.mark.parametrize(
    ("told", "settings"),
    [
        (True, DispatcherSettings(step_seconds=1e9, cancel_seconds=1e9)),
        (False, DispatcherSettings(step_seconds=1e9)),
        (False, DispatcherSettings(cancel_seconds=1e9)),
    ],
    ids=["told", "seen by a look into the store", "seen when a step is written"],
)
def test_p4_cancel_takes_effect_within_a_step_or_a_look(
    told: bool, settings: DispatcherSettings
) -> None:
    service = Service(settings=settings)
    service.preview_seconds = 1e9
    service.boot()
    job = make_job(1, num_inference_steps=1000)
    service.submit(job)
    for _ in range(5):
        service.turn()
    before = service.clock.now
    if told:
        service.cancel(job.id)
    else:
        service.queue.cancel(job.id)
    while service.engine.health()[0].busy:
        service.turn()
    assert service.clock.now - before <= (0.1 if told else 0.6)
    service.run()
    assert service.queue.kinds(job.id)[-1] is EventKind.CANCELLED


def test_p3_what_runs_elsewhere_under_a_later_attempt_is_stopped_here() -> None:
    service = Service(settings=DispatcherSettings(step_seconds=1e9))
    service.preview_seconds = 1e9
    service.boot()
    job = make_job(1, num_inference_steps=1000)
    service.submit(job)
    for _ in range(5):
        service.turn()
    assert service.engine.health()[0].busy
    service.queue.hand_back(job.id, 1)
    claim = service.queue.claim_next()  # by somebody else
    assert claim is not None
    assert claim[1] == 2
    before = service.clock.now
    while service.engine.health()[0].busy:
        service.turn()
        assert service.clock.now - before <= 0.6, "nobody wants its result"
    assert service.queue.status(job.id) is Status.RUNNING


def test_p4_cancel_of_a_waiting_job_never_starts_it() -> None:
    service, first, second = Service(), make_job(1), make_job(2)
    service.submit(first, second)
    service.turn()
    assert (second.id, 1) in service.engine.submitted
    service.cancel(second.id)
    service.run()
    assert service.queue.status(second.id) is Status.CANCELLED
    assert EventKind.STEP not in service.queue.kinds(second.id)


def test_p4_cancel_does_not_wait_for_the_dispatchers_turn() -> None:
    """Its turn may be waiting for the store."""
    service, job = Service(), make_job(1)
    service.submit(job)
    for _ in range(3):
        service.turn()
    assert service.engine.health()[0].busy
    service.cancel(job.id)
    assert not service.engine.health()[0].busy


def test_p4_cancel_between_the_claim_and_the_engine_is_not_lost() -> None:
    service = Service(settings=DispatcherSettings(cancel_seconds=1e9))
    service.turn()  # has looked into the store, and will not look again
    claim_next = service.queue.claim_next

    def claim_and_cancel() -> tuple[Job, int] | None:
        claimed = claim_next()
        if claimed is not None:
            service.cancel(claimed[0].id)
        return claimed

    service.queue.claim_next = claim_and_cancel  # type: ignore[method-assign]
    job = make_job(1)
    service.submit(job)
    service.turn()
    assert service.engine.submitted == [(job.id, 1)]
    assert not service.engine.health()[0].busy, "stopped before its first step"
    service.run()
    assert service.queue.kinds(job.id)[-1] is EventKind.CANCELLED


@pytest.mark.parametrize(("kind", "code"), [("error", "InternalError"), ("oom", "OutOfMemory")])
def test_p15_a_failed_job_is_not_tried_again_and_harms_nobody(kind: str, code: str) -> None:
    bad, good = make_job(1), make_job(2)
    service = Service(only(bad, Fault(kind, 3)))  # type: ignore[arg-type]
    service.submit(bad, good)
    service.run()
    assert service.queue.status(bad.id) is Status.FAILED
    assert service.queue.rows[bad.id].events[-1][1]["code"] == code
    assert service.queue.status(good.id) is Status.DONE
    assert [pair for pair in service.engine.submitted if pair[0] == bad.id] == [(bad.id, 1)]


def test_a_failure_that_might_pass_elsewhere_is_tried_again() -> None:
    service, job = Service(), make_job(1)
    service.submit(job)
    service.turn()
    service.dispatcher._hear(Failed(job.id, 1, "Busy", "Try elsewhere.", retry=True))
    service.engine.cancel(job.id)
    service.run()
    assert service.queue.status(job.id) is Status.DONE
    assert service.queue.rows[job.id].job.attempt == 2


@pytest.mark.parametrize("committed", [False, True], ids=["unchanged", "changed unnoticed"])
@pytest.mark.parametrize("moment", range(40))
def test_p13_an_outage_of_the_store_loses_nothing(moment: int, committed: bool) -> None:
    service, jobs = Service(num_workers=2), [make_job(n) for n in range(9)]
    service.turn()
    service.submit(*jobs)
    for _ in range(moment):
        service.turn()
    service.queue.away, service.queue.committed = 1 + moment % 3, committed
    service.run()
    assert service.queue.away == 0
    assert all(service.queue.status(job.id) is Status.DONE for job in jobs)
    assert all(len(row.images) == 1 for row in service.queue.rows.values())
    assert all(row.deaths == 0 for row in service.queue.rows.values())


def test_p13_the_engine_goes_on_during_a_long_outage() -> None:
    service, job = Service(), make_job(1)
    service.submit(job)
    for _ in range(3):
        service.turn()
    service.queue.away = 10_000
    for _ in range(400):
        service.turn()
    assert service.queue.away > 9_900  # it backs off
    service.queue.away = 0
    service.run()
    assert service.queue.status(job.id) is Status.DONE
    assert service.engine.submitted == [(job.id, 1)]


def test_a_result_the_store_refuses_fails_the_job_and_not_the_service() -> None:
    service, bad, good = Service(), make_job(1), make_job(2)
    finish = service.queue.finish

    def refuse(job_id: str, *rest: object, **more: object) -> bool:
        if job_id == bad.id:
            raise ValueError("a label that no database can hold")
        return finish(job_id, *rest, **more)  # type: ignore[arg-type]

    service.queue.finish = refuse  # type: ignore[method-assign]
    service.submit(bad, good)
    service.run()
    assert service.queue.status(bad.id) is Status.FAILED
    assert service.queue.status(good.id) is Status.DONE


def test_stopping_lets_the_running_job_finish_and_hands_the_waiting_one_back() -> None:
    service, first, second, third = Service(), make_job(1), make_job(2), make_job(3)
    service.submit(first, second, third)
    for _ in range(3):
        service.turn()
    service.dispatcher.stop(grace=5)
    assert service.queue.status(first.id) is Status.DONE
    assert [service.queue.status(job.id) for job in (second, third)] == [Status.QUEUED] * 2
    assert service.queue.rows[second.id].deaths == 0
    service.boot()
    service.run()
    assert all(len(row.images) == 1 for row in service.queue.rows.values())


def test_stopping_without_grace_hands_everything_back_without_a_death() -> None:
    service, job = Service(), make_job(1)
    service.submit(job)
    for _ in range(3):
        service.turn()
    service.dispatcher.stop(grace=0)
    assert service.queue.status(job.id) is Status.QUEUED
    assert service.queue.rows[job.id].deaths == 0


def test_stopping_while_the_store_is_away_comes_to_an_end() -> None:
    service, job = Service(), make_job(1)
    service.submit(job)
    for _ in range(3):
        service.turn()
    service.queue.away = 10_000
    before = service.clock.now
    service.dispatcher.stop(grace=5)
    assert service.clock.now - before <= 6
    service.queue.away = 0
    service.boot()
    service.run()
    assert service.queue.status(job.id) is Status.DONE


def test_the_thread_takes_jobs_cancels_and_stops() -> None:
    queue, pictures = MemoryQueue(), MemoryPictures()
    engine = FakeEngine(num_steps=5, step_seconds=0.002, size=4)
    dispatcher = Dispatcher(queue, pictures, engine)
    dispatcher.start()
    try:
        from engine_support import wait_for

        jobs = [make_job(n) for n in range(8)]
        slow = make_job(9, num_inference_steps=10**7)  # hours
        for job in (*jobs, slow):
            queue.submit(job)
            dispatcher.wake()
        wait_for(lambda: all(queue.status(job.id) is Status.DONE for job in jobs))
        assert dispatcher.alive
        wait_for(lambda: queue.status(slow.id) is Status.RUNNING)
        queue.cancel(slow.id)
        dispatcher.cancel(slow.id)
        wait_for(lambda: not engine.health()[0].busy)
    finally:
        dispatcher.stop(grace=5)
    assert not dispatcher.alive
