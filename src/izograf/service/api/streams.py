"""`/api/v1/events`: several jobs in one stream, for a browser opens six connections to a host."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.job import EventKind
from izograf.service.access import Identity, Viewer
from izograf.service.api.events import GONE, EventStream, stream_jobs
from izograf.service.api.routing import Responses, interface_router
from izograf.service.context import Running, Service

router = interface_router("/api/v1/events", "jobs")

MOST_JOBS = 50
POSITION = re.compile(r"(job_[0-9A-Za-z]{1,64})(?::([0-9]{1,10}))?")
STREAM: Responses = {
    200: {
        "description": (
            f"events as of one job, each with its `job` in the data; `{GONE}` for a job that does "
            "not exist any more. The stream ends after the final event of the last job"
        ),
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "required": ["event", "data"],
                    "properties": {
                        "id": {"type": "string", "pattern": "^[0-9]+$"},
                        "event": {"enum": [*map(str, EventKind), GONE]},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                    },
                }
            }
        },
    },
}


@router.get(
    "",
    summary="Follow several jobs in one stream",
    response_class=StreamingResponse,
    responses=STREAM,
)
async def follow_jobs(
    service: Running,
    identity: Viewer,
    job: Annotated[
        list[str],
        Query(
            description="an identifier, or `identifier:number` to begin after that event; connect "
            "again with the numbers you have seen",
            min_length=1,
            max_length=MOST_JOBS,
        ),
    ],
) -> EventStream:
    asked = dict(map(position, job))
    live, gone = await run_in_threadpool(_sorted_out, service, identity, asked)
    return EventStream(stream_jobs(service, live, gone))


def position(text: str) -> tuple[str, int]:
    """A job and the number of its last event that is known, from `job_...:12`.

    Raises:
        InvalidInput: it is neither an identifier nor one with a number.
    """
    found = POSITION.fullmatch(text)
    if found is None:
        raise InvalidInput(
            f"job must be an identifier like job_..., or one with a number like job_...:12, got "
            f"{text[:80]!r}."
        )
    return found[1], min(int(found[2] or 0), 2**31 - 1)


def _sorted_out(
    service: Service, identity: Identity, asked: dict[str, int]
) -> tuple[dict[str, int], list[str]]:
    """Positions that something follows, or will, and the jobs that the caller cannot see."""
    found, gone = {}, []
    for job_id in asked:
        try:
            found[job_id] = service.store.jobs.get(job_id, owner=identity.visible_owner)
        except NotFound:
            gone.append(job_id)
    last = service.store.jobs.last_events(tuple(found))
    live = {job_id: min(asked[job_id], last.get(job_id, 0)) for job_id in found}
    ended = {job_id for job_id, job in found.items() if job.status.final}
    return {
        job_id: known
        for job_id, known in live.items()
        if job_id not in ended or known < last[job_id]
    }, gone
