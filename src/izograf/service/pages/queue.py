"""`/queue`: what runs, what waits and whose it is, and how the workers are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from izograf.schema.job import Job, Status
from izograf.service.access import Identity, Viewer
from izograf.service.context import Running, Service
from izograf.service.pages import live
from izograf.service.pages.rendering import render

router = APIRouter(include_in_schema=False)

MOST_WAITING = 25
MOST_ENDED = 20


@router.get("/queue")
def show_queue(request: Request, service: Running, identity: Viewer) -> Response:
    return render(request, "queue.html", **_state(service, identity))


@router.get("/queue/state")
def show_state(request: Request, service: Running, identity: Viewer) -> Response:
    """The changing part of the page, for scripts."""
    return render(request, "_queue.html", **_state(service, identity))


def _state(service: Service, identity: Identity) -> dict[str, Any]:
    owner = identity.visible_owner
    jobs = service.store.jobs
    running = jobs.list_jobs(owner=owner, status=Status.RUNNING, limit=MOST_WAITING).items
    waiting = jobs.next_in_turn(MOST_WAITING, owner)
    shown = live.live_jobs(service, waiting)
    num_waiting = jobs.num_queued()
    return {
        "running": live.live_jobs(service, sorted(running, key=lambda job: job.started or 0)),
        "waiting": shown,
        "num_hidden": max(
            0, (num_waiting if owner is None else jobs.num_queued(owner)) - len(shown)
        ),
        "ended": _ended(service, owner),
        "num_waiting": num_waiting,
        "num_others": max(0, num_waiting - jobs.num_queued(identity.owner)),
        "names": _names(service, [*running, *waiting]),
        "estimate": num_waiting * live.seconds_each(service),
        "workers": service.engine.health(),
        "accepting": service.dispatcher.alive,
        "next": "/queue",
    }


def _ended(service: Service, owner: str | None) -> list[Job]:
    """The jobs that ended last, however many wait."""
    found = [
        job
        for status in Status
        if status.final
        for job in service.store.jobs.list_jobs(owner=owner, status=status, limit=MOST_ENDED).items
    ]
    return sorted(found, key=lambda job: job.finished or 0, reverse=True)[:MOST_ENDED]


def _names(service: Service, jobs: list[Job]) -> dict[str, str]:
    """Owners by the names that people know them by."""
    known = {user.id: user.name for user in service.store.accounts.list_users()}
    return {job.owner: known.get(job.owner, job.owner) for job in jobs}
