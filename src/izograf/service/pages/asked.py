"""A job that a page asked for and now shows: how far it is, and what came out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from izograf.schema.errors import NotFound
from izograf.schema.job import Job, Status
from izograf.service.access import Identity
from izograf.service.context import Service
from izograf.service.pages.pictures import Showing, Shown


@dataclass(frozen=True)
class Asked:
    """A job and its pictures in the order of its request; `position` in the queue, 1 is next."""

    job: Job
    pictures: tuple[Shown, ...] = ()
    position: int | None = None

    @property
    def pending(self) -> bool:
        return not self.job.status.final

    @property
    def failed(self) -> bool:
        return self.job.status.final and self.job.status is not Status.DONE


def asked_job(
    service: Service, identity: Identity, job_id: str | None, showing: Showing
) -> Asked | None:
    """The job that an address names; None if it names none that the caller may see."""
    if job_id is None:
        return None
    try:
        job = service.store.jobs.get(job_id, owner=identity.visible_owner)
    except NotFound:
        return None
    if job.status is Status.DONE:
        return Asked(job, showing.many(service.store.images.of_job(job.id)))
    waits = job.status is Status.QUEUED
    return Asked(job, position=service.store.jobs.queue_position(job.id) if waits else None)


def asked_jobs(
    service: Service, identity: Identity, job_ids: Iterable[str], showing: Showing
) -> tuple[Asked, ...]:
    """Those of the jobs that the caller may see."""
    found = (asked_job(service, identity, job_id, showing) for job_id in job_ids)
    return tuple(asked for asked in found if asked is not None)
