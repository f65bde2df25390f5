"""`/api/v1/verify`: can a PNG that somebody brings be made again, and how closely?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from izograf.engine.tasks import PICTURE, VERIFY
from izograf.schema.errors import InvalidInput
from izograf.schema.job import Job
from izograf.schema.record import COMPOSITION, EDITED, RECORD_KEY, UPSCALED, parse_record
from izograf.schema.request import GenerationRequest
from izograf.service import orders
from izograf.service.access import Identity, User
from izograf.service.api import shapes
from izograf.service.api.routing import interface_router
from izograf.service.api.views import job_url, job_view
from izograf.service.context import Running, Service
from izograf.service.pngtext import read_texts
from izograf.service.uploads import UploadLimits, read_upload, with_text

router = interface_router("/api/v1/verify", "images")

BODY = {
    "requestBody": {
        "required": True,
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    }
}
FACTS = (
    "version", "seed", "batch", "position", COMPOSITION, EDITED, UPSCALED, "model_sha256",
    "pixels_sha256",
)  # fmt: skip
MOST_FACTS = 32
LONGEST_FACT = 200


@router.post("", status_code=202, summary="Submit a job that makes a PNG of yours again",
             openapi_extra=BODY)  # fmt: skip
async def verify_upload(
    request: Request, service: Running, identity: User, response: Response
) -> shapes.Job:
    body = await request.body()  # the gate limits its size
    job = await run_in_threadpool(submit_upload, service, identity, body)
    response.headers["Location"] = job_url(job.id)
    return job_view(job)


def submit_upload(service: Service, identity: Identity, png: bytes) -> Job:
    """The job. A stranger's file is not kept: its pixels are written anew, and of its record only
    what was checked here.

    Raises:
        InvalidInput: no PNG, a damaged one, one without our record, or beyond the limits.
        NotFound: its model is not here. QueueFull.
    """
    text = read_texts(png, (RECORD_KEY,)).get(RECORD_KEY)
    if text is None:
        raise InvalidInput("The PNG carries no izograf record: it cannot be verified.")
    record = parse_record(text, source="the PNG")
    request = service.catalogue.resolve(GenerationRequest.from_json(record["request"]))
    if UPSCALED in record:  # a name of the catalogue, never a path
        service.catalogue.card(record[UPSCALED]["model"])
    checked = checked_record(record, request, service.settings.max_images_per_job)
    picture = read_upload(png, UploadLimits.of(service.settings))
    sha256 = service.store.files.write(with_text(picture.png, RECORD_KEY, json.dumps(checked)))
    inputs = {PICTURE: sha256}
    return orders.submit(service, identity, request.single(record["seed"]), task=VERIFY,
                         inputs=inputs)  # fmt: skip


def checked_record(
    record: Mapping[str, Any], request: GenerationRequest, max_images: int
) -> dict[str, Any]:
    """What the engine is given: the request as checked here, and facts of bounded size.

    Raises:
        InvalidInput: making it again would take more pictures than one job may have.
    """
    count = max(record["batch"][1], len(record.get(COMPOSITION, ())))
    if count > max_images:
        raise InvalidInput(
            f"It was made in a batch of {count}, here a job makes at most {max_images}."
        )
    environment = list(record["environment"].items())[:MOST_FACTS]
    return {
        **{name: record[name] for name in FACTS if name in record},
        "request": request.to_json(),
        "environment": {k[:LONGEST_FACT]: str(v)[:LONGEST_FACT] for k, v in environment},
    }
