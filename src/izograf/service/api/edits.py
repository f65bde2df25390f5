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
    painted = b"" if mask is None else await mask.read()
    job = await run_in_threadpool(
        _submitted, service, identity, _parsed(order), content, image_id, painted, idempotency_key
    )
    response.headers["Location"] = job_url(job.id)
    return job_view(job)


def _submitted(
    service: Service,
    identity: Identity,
    order: shapes.JobOrder,
    picture: bytes,
    image_id: str,
    mask: bytes,
    idempotency_key: str | None,
) -> Job:
    if bool(picture) == bool(image_id):
        raise InvalidInput("Give the picture to begin with, as picture or as image_id, once.")
    request = request_of(service, order, idempotency_key)
    if picture:
        begun = edits.from_upload(service, picture)
    else:
        begun = edits.from_image(service, identity, image_id)
    return edits.submit(service, identity, request, begun, mask, idempotency_key=idempotency_key)


def _parsed(order: str) -> shapes.JobOrder:
    """
    Raises:
        InvalidInput: it is no JSON of that form.
    """
    try:
        return shapes.JobOrder.model_validate_json(order)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "order"
        raise InvalidInput(f"The order cannot be read: {place}: {first['msg']}.") from None
