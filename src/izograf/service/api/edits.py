"""`/api/v1/edits`: pictures that begin with one of yours."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Form, Response, UploadFile
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from izograf.schema.errors import InvalidInput
from izograf.schema.job import Job
from izograf.service import edits
from izograf.service.access import Identity, User
from izograf.service.api import shapes
from izograf.service.api.jobs import Key, request_of
from izograf.service.api.routing import interface_router
from izograf.service.api.views import job_url, job_view
from izograf.service.context import Running, Service

router = interface_router("/api/v1/edits", "jobs")


@router.post("", status_code=202, summary="Submit a job that repaints a picture")
async def submit_edit(
    service: Running,
    identity: User,
    response: Response,
    order: Annotated[str, Form(description="JSON, as the body of `POST /api/v1/jobs`")],
    picture: Annotated[
        UploadFile | None, File(description="the picture to begin with, unless image_id is given")
    ] = None,
    mask: Annotated[
        UploadFile | None,
        File(description="of the same size, white or transparent where it may change"),
    ] = None,
    image_id: Annotated[str, Form(description="a picture of the gallery to begin with")] = "",
    idempotency_key: Key = None,
) -> shapes.Job:
    content = b"" if picture is None else await picture.read()
    painted = await read_mask(mask)
    begin = edits.Beginning(content, image_id)
    job = await run_in_threadpool(
        _submitted, service, identity, order, begin, painted, idempotency_key
    )
    response.headers["Location"] = job_url(job.id)
    return job_view(job)


def _submitted(
    service: Service,
    identity: Identity,
    order: str,
    begin: edits.Beginning,
    mask: bytes,
    idempotency_key: str | None,
) -> Job:
    try:
        parsed = shapes.JobOrder.model_validate_json(order)
    except ValidationError as error:
        raise InvalidInput(f"The order cannot be read: {first_fault(error)}.") from None
    request = request_of(service, parsed, idempotency_key)
    return edits.submit(service, identity, request, begin, mask, idempotency_key=idempotency_key)


async def read_mask(mask: UploadFile | None) -> bytes:
    """The mask's file, empty if none was sent.

    Raises:
        InvalidInput: an empty file was sent, which is no "repaint everything".
    """
    if mask is None:
        return b""
    if not (content := await mask.read()):
        raise InvalidInput("The mask is an empty file: leave it out, or send a picture.")
    return content


def first_fault(error: ValidationError) -> str:
    """Where the first fault of a document lies, and what it is."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
