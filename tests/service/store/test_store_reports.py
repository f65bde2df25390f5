"""P3 and P4, one report at a time: what is late, or of a job that has ended, changes nothing.

Every report is held to both halves of `is_current` on its own, so that dropping the check from
any single one of them is noticed here by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from izograf.schema.job import Job
from izograf.schema.request import GenerationRequest
from izograf.store.open import Store
from izograf.store.tables import jobs

Report = Callable[[Store, Job, int], Any]


def finish(store: Store, job: Job, attempt: int) -> bool:
    late = store.images.stage(job, seed=attempt, png=b"late", width=1, height=1, record={})
    return store.jobs.finish(job.id, attempt, [late], result={"late": True})


REPORTS: dict[str, Report] = {
    "began": lambda store, job, attempt: store.jobs.began(job.id, attempt),
    "record_step": lambda store, job, attempt: store.jobs.record_step(job.id, attempt, 1, 9),
    "preview": lambda store, job, attempt: store.jobs.record_step(job.id, attempt, 1, 9, b"png"),
    "finish": finish,
    "fail": lambda store, job, attempt: store.jobs.fail(job.id, attempt, "Code", "Late."),
    "hand_back": lambda store, job, attempt: store.jobs.hand_back(job.id, attempt),
    "worker_died": lambda store, job, attempt: store.jobs.worker_died(job.id, attempt, "Late."),
}


def running(store: Store) -> Job:
    """A job that is computed for the first time."""
    job = store.jobs.submit("ann", "generate", GenerationRequest("scenes"))
    assert store.jobs.claim_next() is not None
    return job


def seen(store: Store, job: Job) -> tuple[object, ...]:
    """Everything that a report could change, with what only the row tells."""
    with store.database.reading() as connection:
        row = connection.execute(select(jobs).where(jobs.c.id == job.id)).one()
    return (
        tuple(row), store.jobs.events_after(job.id), store.images.of_job(job.id),
        store.jobs.num_queued(),
    )  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_p3_a_report_of_an_overtaken_attempt_changes_nothing(store: Store, name: str) -> None:
    job = running(store)
    store.jobs.hand_back(job.id, 1)
    claim = store.jobs.claim_next()
    assert claim is not None
    assert claim[1] == 2
    before = seen(store, job)
    assert not REPORTS[name](store, job, 1)
    assert not REPORTS[name](store, job, 3), "nobody was given this attempt yet"
    assert seen(store, job) == before
    assert REPORTS[name](store, job, 2), "the current one counts"
    assert seen(store, job) != before


@pytest.mark.parametrize(
    "end",
    [
        lambda store, job: store.jobs.hand_back(job.id, 1),
        lambda store, job: store.jobs.cancel(job.id),
        lambda store, job: store.jobs.fail(job.id, 1, "Code", "It cannot be."),
        lambda store, job: store.jobs.finish(job.id, 1, []),
    ],
    ids=["waits again", "cancelled", "failed", "done"],
)
@pytest.mark.parametrize("name", REPORTS)
def test_p3_p4_a_report_of_a_job_that_does_not_run_changes_nothing(
    store: Store, name: str, end: Callable[[Store, Job], bool]
) -> None:
    job = running(store)
    assert end(store, job)
    before = seen(store, job)
    assert not REPORTS[name](store, job, 1)
    assert seen(store, job) == before


@pytest.mark.parametrize(
    "end",
    [
        lambda store, job: store.jobs.cancel(job.id),
        lambda store, job: store.jobs.fail(job.id, 3, "Code", "It cannot be."),
        lambda store, job: store.jobs.finish(job.id, 3, []),
        lambda store, job: store.jobs.worker_died(job.id, 3, "It died."),
    ],
    ids=["cancelled", "failed", "done", "dead"],
)
def test_previews_go_when_the_job_has_ended(
    store: Store, end: Callable[[Store, Job], object]
) -> None:
    job = running(store)
    for attempt in (1, 2):
        store.jobs.record_step(job.id, attempt, 1, 9, b"png")
        store.jobs.worker_died(job.id, attempt, "It died.")
        store.jobs.claim_next()
    store.jobs.record_step(job.id, 3, 1, 9, b"png")

    def shown() -> int:
        return sum("png" in event.data for event in store.jobs.events_after(job.id))

    assert shown() == 3
    assert end(store, job)
    assert store.jobs.get(job.id).status.final
    assert shown() == 0
