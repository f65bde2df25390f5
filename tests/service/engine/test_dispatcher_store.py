"""The dispatcher and the real store: the port fits, and a job's whole life is in the rows."""

from __future__ import annotations

from pathlib import Path

from engine_support import Clock

from izograf.engine.dispatcher import Dispatcher
from izograf.engine.fake import FakeEngine, Fault
from izograf.schema.job import EventKind, Status
from izograf.schema.request import GenerationRequest
from izograf.store.migrate import upgrade
from izograf.store.open import Store, default_url, open_store


def request(seed: int) -> GenerationRequest:
    condition = {"type": "class", "class": "mountain"}
    return GenerationRequest("scenes", condition, 2, seed, {"num_inference_steps": 10})


def service(store: Store, clock: Clock, poison: str = "") -> Dispatcher:
    engine = FakeEngine(
        clock=clock, sleep=clock.sleep, num_workers=2, step_seconds=0.1, size=4, stall_seconds=3,
        faults=lambda job, _: Fault("crash", 2) if job.id == poison else None,
    )  # fmt: skip
    return Dispatcher(store.jobs, store.images, engine, clock=clock)


def run(store: Store, dispatcher: Dispatcher, clock: Clock, turns: int = 400) -> None:
    for _ in range(turns):
        dispatcher.turn(0.05)
        clock.sleep(0.01)
        counted = store.jobs.count_by_status()
        if not counted[Status.QUEUED] and not counted[Status.RUNNING]:
            return
    raise AssertionError(counted)


def test_jobs_end_done_cancelled_and_dead_with_pictures_and_events(tmp_path: Path) -> None:
    upgrade(default_url(tmp_path))
    store, clock = open_store(tmp_path), Clock()
    done, poison, cancelled = (store.jobs.submit("anna", "generate", request(n)) for n in range(3))
    dispatcher = service(store, clock, poison.id)
    dispatcher.turn(0.05)
    store.jobs.cancel(cancelled.id)
    dispatcher.cancel(cancelled.id)
    run(store, dispatcher, clock)
    assert [store.jobs.get(job.id).status for job in (done, poison, cancelled)] == [
        Status.DONE,
        Status.DEAD,
        Status.CANCELLED,
    ]
    images = store.images.of_job(done.id)
    assert [image.seed for image in images] == [0, 1]
    assert store.images.read_png(images[0].id).startswith(b"\x89PNG")
    kinds = [event.kind for event in store.jobs.events_after(done.id)]
    assert kinds[:2] == [EventKind.QUEUED, EventKind.STARTED]
    assert EventKind.PREVIEW in kinds
    assert kinds[-1] is EventKind.DONE
    dispatcher.stop(grace=0)
    store.close()


def test_p1_twenty_jobs_survive_a_kill_in_their_midst_and_finish_once(tmp_path: Path) -> None:
    upgrade(default_url(tmp_path))
    store, clock = open_store(tmp_path), Clock()
    accepted = [store.jobs.submit("anna", "generate", request(n)) for n in range(20)]
    dispatcher = service(store, clock)
    for _ in range(30):
        dispatcher.turn(0.05)
    assert store.jobs.count_by_status()[Status.RUNNING]
    store.close()  # the process is gone; what it had in memory is not asked again
    store = open_store(tmp_path)
    dispatcher = service(store, clock)
    run(store, dispatcher, clock, turns=2000)
    assert store.jobs.count_by_status()[Status.DONE] == 20
    assert all(len(store.images.of_job(job.id)) == 2 for job in accepted)
    dispatcher.stop(grace=0)
    store.close()
