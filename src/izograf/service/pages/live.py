"""Jobs as pages show them: waiting and running ones with how far they are, ended ones with why."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from izograf.engine.serving import INTERNAL, OUT_OF_MEMORY
from izograf.schema.errors import IzografError
from izograf.schema.job import Job, Status, StoredImage
from izograf.schema.request import GenerationRequest
from izograf.service.access import Identity
from izograf.service.context import Service
from izograf.service.orders import GENERATE
from izograf.service.pages.rendering import by_job
from izograf.store.images import ImageFilter

RECENT_DONE = 10  # jobs whose time tells what the next will take
MOST_CARDS = 12
MOST_RECENT = 48
REASONS = {OUT_OF_MEMORY: "out_of_memory", INTERNAL: "internal"}


@dataclass(frozen=True)
class Progress:
    """The last step that was reported, with its picture as a data URL, or empty."""

    step: int = 0
    num_steps: int = 0
    preview: str = ""


@dataclass(frozen=True)
class LiveJob:
    """One job on a page.

    Attributes:
        position: 1 is next; None unless it waits.
        estimate: seconds until it begins, where past jobs tell.
        each: seconds that one job takes; 0 if unknown.
    """

    job: Job
    progress: Progress
    position: int | None
    estimate: float | None
    each: float

    @property
    def reason_key(self) -> str | None:
        """The name of the text that says why it failed, where there is one."""
        return REASONS.get(self.job.reason)

    @property
    def active(self) -> bool:
        return not self.job.status.final


@dataclass(frozen=True)
class Result:
    """The pictures of one job, and the request they came from (None if the record is odd)."""

    job_id: str
    images: Sequence[StoredImage]
    request: GenerationRequest | None

    @property
    def first(self) -> StoredImage:
        return self.images[0]


def live_job(service: Service, job: Job, each: float | None = None) -> LiveJob:
    """The job with everything its card shows."""
    seconds = seconds_each(service) if each is None else each
    position = estimate = None
    if job.status is Status.QUEUED:
        position = service.store.jobs.queue_position(job.id)
        if position is not None and seconds:
            estimate = position * seconds / max(1, _num_workers(service))
    running = job.status is Status.RUNNING
    return LiveJob(
        job, progress_of(service, job.id) if running else Progress(), position, estimate, seconds
    )


def live_jobs(service: Service, jobs: Iterable[Job]) -> list[LiveJob]:
    seconds = seconds_each(service)
    return [live_job(service, job, seconds) for job in jobs]


def active_jobs(service: Service, owner: str, limit: int = MOST_CARDS) -> list[Job]:
    """The owner's running jobs, then the waiting ones that come next."""
    jobs = service.store.jobs
    running = jobs.list_jobs(owner=owner, status=Status.RUNNING, limit=limit).items
    return [*running, *jobs.next_in_turn(limit, owner)][:limit]


def seconds_each(service: Service) -> float:
    """What a job takes, by the last ones that are done; 0 before the first."""
    page = service.store.jobs.list_jobs(status=Status.DONE, limit=RECENT_DONE)
    known = [job.seconds for job in page.items if job.seconds]
    return sum(known) / len(known) if known else 0.0


def progress_of(service: Service, job_id: str) -> Progress:
    """How far a running job has come, by its events."""
    last = service.store.jobs.last_events((job_id,)).get(job_id, 0)
    events = service.store.jobs.events_after(job_id, max(0, last - 60))
    step = num_steps = 0
    preview = ""
    for event in events:
        if "step" in event.data:
            step, num_steps = int(event.data["step"]), int(event.data["num_steps"])
        preview = str(event.data.get("png") or preview)
        if event.kind in ("started", "retried"):
            step, preview = 0, ""
    return Progress(step, num_steps, data_url(preview))


def data_url(png: str) -> str:
    """A base64 PNG as an image's address; empty if it is none."""
    try:
        base64.b64decode(png, validate=True)
    except ValueError:
        return ""
    return f"data:image/png;base64,{png}" if png else ""


def results(images: Sequence[StoredImage]) -> list[Result]:
    """The pictures, together by job, in the order in which they came."""
    return [Result(job, group, request_in(group[0].record)) for job, group in by_job(tuple(images))]


def request_in(record: Mapping[str, Any]) -> GenerationRequest | None:
    """The request in a picture's record."""
    try:
        return GenerationRequest.from_json(record["request"])
    except (IzografError, KeyError, TypeError):
        return None


def recent_results(service: Service, identity: Identity) -> list[Result]:
    """The caller's newest pictures; a job that does not fit whole is left to the gallery."""
    wanted = ImageFilter(owner=identity.owner)
    page = service.store.images.list_images(wanted, limit=MOST_RECENT)
    found = results(page.items)
    return found[:-1] if page.next_cursor and len(found) > 1 else found


def is_generation(job: Job) -> bool:
    return job.task == GENERATE


def _num_workers(service: Service) -> int:
    return sum(worker.alive for worker in service.engine.health())
