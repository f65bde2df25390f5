"""`/api/v1/jobs`: submit, list, read, cancel, try again, follow."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from izograf.engine.tasks import ORIGINAL
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.job import EventKind, Job, Status
from izograf.schema.prompting import compose_prompt, remarks_of
from izograf.schema.request import GenerationRequest
from izograf.schema.styles import usable_styles
from izograf.service import orders
from izograf.service.access import Forbidden, Identity, User, Viewer
from izograf.service.api import shapes
from izograf.service.api.events import EventStream, stream_events
from izograf.service.api.routing import Responses, interface_router
from izograf.service.api.views import job_url, job_view, page_view
from izograf.service.context import Running, Service

router = interface_router("/api/v1/jobs", "jobs")

Key = Annotated[
    str | None,
    Header(description="the same key and body again give the same job", max_length=255),
]
EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"enum": [str(kind) for kind in EventKind]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
ORIGINAL_PNG: Responses = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}
STREAM: Responses = {
    200: {
        "description": "ids are event numbers; the stream ends after the final event",
        "content": {"text/event-stream": {"schema": EVENT}},
    },
    204: {"description": "the job has ended and there is nothing left to tell"},
}


@router.post("", status_code=202, summary="Submit a job")
def submit_job(
    order: shapes.JobOrder,
    service: Running,
    identity: User,
    response: Response,
    idempotency_key: Key = None,
) -> shapes.Job:
    request = request_of(service, order, idempotency_key)
    job = orders.submit(service, identity, request, idempotency_key=idempotency_key)
    return _accepted(service, job, response)


@router.get("", summary="List jobs, newest first")
def list_jobs(
    service: Running,
    identity: Viewer,
    status: Status | None = None,
    model: str | None = None,
    owner: Annotated[str | None, Query(description="for administrators")] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> shapes.Page[shapes.Job]:
    page = service.store.jobs.list_jobs(
        owner=owner_asked_for(identity, owner),
        status=status,
        model=model,
        cursor=cursor,
        limit=limit,
    )
    return page_view(page, job_view)


@router.get("/{job_id}", summary="One job, with its queue position or its pictures")
def get_job(job_id: str, service: Running, identity: Viewer) -> shapes.Job:
    job = service.store.jobs.get(job_id, owner=identity.visible_owner)
    queued, done = job.status is Status.QUEUED, job.status is Status.DONE
    return job_view(
        job,
        queue_position=service.store.jobs.queue_position(job_id) if queued else None,
        images=service.store.images.of_job(job_id) if done else None,
        remarks=remarks_on(service, job),
    )


@router.delete("/{job_id}", summary="Cancel a job; one that has ended stays as it is")
def cancel_job(job_id: str, service: Running, identity: User) -> shapes.Job:
    return job_view(orders.cancel(service, identity, job_id))


@router.post("/{job_id}/retry", status_code=202, summary="Do an ended job again, as a new one")
def retry_job(job_id: str, service: Running, identity: User, response: Response) -> shapes.Job:
    return _accepted(service, orders.retry(service, identity, job_id), response)


@router.get(
    "/{job_id}/original",
    summary="What an edit began with: a PNG",
    response_class=Response,
    responses=ORIGINAL_PNG,
)
def read_original(job_id: str, service: Running, identity: Viewer) -> Response:
    job = service.store.jobs.get(job_id, owner=identity.visible_owner)
    if ORIGINAL not in job.inputs:
        raise NotFound("That job did not begin with a picture.")
    if not service.store.files.exists(job.inputs[ORIGINAL]):
        raise NotFound("What that job began with is no longer kept.")
    content = service.store.files.read(job.inputs[ORIGINAL])
    return Response(content, media_type="image/png", headers={"Cache-Control": "private"})


@router.get(
    "/{job_id}/events",
    summary="Follow a job: server-sent events with replay",
    response_class=StreamingResponse,
    responses=STREAM,
)
async def follow_job(
    job_id: str,
    service: Running,
    identity: Viewer,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="number of the last one seen")] = 0,
    last_event_id: Annotated[
        str | None, Header(description="what a browser sends when it connects again")
    ] = None,
) -> Response:
    seen = after if last_event_id is None else event_number(last_event_id)
    jobs = service.store.jobs
    job = await run_in_threadpool(jobs.get, job_id, owner=identity.visible_owner)
    last = (await run_in_threadpool(jobs.last_events, (job_id,))).get(job_id, 0)
    if job.status.final and seen >= last:
        return Response(status_code=204)  # a browser does not connect again
    return EventStream(stream_events(service, job_id, min(seen, last)))


def request_of(
    service: Service, order: shapes.JobOrder, idempotency_key: str | None
) -> GenerationRequest:
    """The request of an order, still to be checked against a card.

    Raises:
        NotFound, InvalidInput: no such model or style, or a model that reads no prompts.
    """
    towards = order.towards.model_dump(by_alias=True, exclude_none=True) if order.towards else {}
    if order.towards is not None and not towards:
        raise InvalidInput("towards needs a seed, a class or both: leave it out for plain images.")
    seed = orders.choose_seed(idempotency_key) if order.seed is None else order.seed
    condition = order.condition.model_dump(by_alias=True)
    if isinstance(order.condition, shapes.TextCondition):
        card, asked = service.catalogue.card(order.model), order.condition
        condition = compose_prompt(
            card,
            asked.prompt,
            negative=asked.negative_prompt,
            given=asked.attributes,
            style=asked.style,
            presets=usable_styles()[0],
        ).condition
    options = order.options
    if order.fast:
        options = service.catalogue.card(order.model).faster(options)
    return GenerationRequest(order.model, condition, order.num_images, seed, options, towards)


def owner_asked_for(identity: Identity, owner: str | None) -> str | None:
    """Whose things to list: those of `owner` for an administrator, else the caller's own.

    Raises:
        Forbidden: somebody else's were asked for.
    """
    if identity.visible_owner is None or owner is None:
        return owner if identity.visible_owner is None else identity.visible_owner
    if owner != identity.visible_owner:
        raise Forbidden("Only an administrator may list what belongs to others.")
    return owner


def event_number(text: str) -> int:
    """The number in a `Last-Event-ID`; an empty one is none.

    Raises:
        InvalidInput: it is no event's number.
    """
    digits = text.strip() or "0"
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise InvalidInput("Last-Event-ID must be the number of an event.")
    return min(int(digits), 2**31 - 1)


def _accepted(service: Service, job: Job, response: Response) -> shapes.Job:
    response.headers["Location"] = job_url(job.id)
    return job_view(job, remarks=remarks_on(service, job))


def remarks_on(service: Service, job: Job) -> tuple[str, ...]:
    """What the author of a prompt should read about it; nothing where its model is gone."""
    if job.request.condition.get("type") != "text":
        return ()
    try:
        return remarks_of(service.catalogue.card(job.request.model), job.request.condition)
    except (NotFound, InvalidInput):
        return ()
