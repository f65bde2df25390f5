"""Pictures that begin with another one: what pages, the interface and OpenAI's dialect share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from izograf.engine.tasks import EDIT, MASK, ORIGINAL
from izograf.schema.errors import InvalidInput
from izograf.schema.job import Job
from izograf.schema.request import GenerationRequest
from izograf.service import orders
from izograf.service.access import Identity
from izograf.service.context import Service
from izograf.service.uploads import CleanPicture, UploadLimits, read_upload


@dataclass(frozen=True)
class Beginning:
    """A picture to begin with that is kept in the store: its sha256 and its size in pixels."""

    sha256: str
    width: int
    height: int


def from_upload(service: Service, content: bytes) -> Beginning:
    """An uploaded picture, made anew and kept.

    Raises:
        UnusablePicture: it cannot be read, or is beyond the limits.
    """
    return _kept(service, read_upload(content, UploadLimits.of(service.settings)))


def from_image(service: Service, identity: Identity, image_id: str) -> Beginning:
    """A picture of the gallery.

    Raises:
        NotFound: there is none, or it is not the caller's.
    """
    image = service.store.images.get(image_id, owner=identity.visible_owner)
    return Beginning(image.sha256, image.width, image.height)


def from_job(service: Service, identity: Identity, job_id: str) -> Beginning:
    """What an earlier job began with.

    Raises:
        NotFound: there is no such job, or it is not the caller's.
        InvalidInput: it began with no picture.
    """
    sha256 = original_of(service.store.jobs.get(job_id, owner=identity.visible_owner))
    return _kept(service, read_upload(service.store.files.read(sha256),
                                      UploadLimits.of(service.settings)))  # fmt: skip


def original_of(job: Job) -> str:
    """The sha256 of the picture that a job began with.

    Raises:
        InvalidInput: it began with none.
    """
    if ORIGINAL not in job.inputs:
        raise InvalidInput("That job did not begin with a picture.")
    return job.inputs[ORIGINAL]


def submit(
    service: Service,
    identity: Identity,
    request: GenerationRequest,
    begun: Beginning,
    mask: bytes = b"",
    *,
    idempotency_key: str | None = None,
) -> Job:
    """The job that repaints `begun`; with a `mask`, a picture's file, only where that is white.

    Raises:
        NotFound, InvalidInput, Conflict, QueueFull, StorageError: as `orders.submit`; the model
            cannot begin with a picture, or the mask is not of the picture's size.
        UnusablePicture: the mask cannot be read.
    """
    service.catalogue.card(request.model).require_editing()
    if request.towards:
        raise InvalidInput("A strip cannot begin with a picture: leave out towards.")
    inputs: Mapping[str, str] = {ORIGINAL: begun.sha256}
    if mask:
        limits = UploadLimits.of(service.settings)
        clean = read_upload(mask, limits, as_mask=True)
        if (clean.width, clean.height) != (begun.width, begun.height):
            raise InvalidInput(
                f"The mask is {clean.width} x {clean.height} and the picture {begun.width} x "
                f"{begun.height} pixels: paint it on the same picture."
            )
        inputs |= {MASK: service.store.files.write(clean.png)}
    return orders.submit(
        service, identity, request, task=EDIT, inputs=inputs, idempotency_key=idempotency_key
    )


def _kept(service: Service, picture: CleanPicture) -> Beginning:
    return Beginning(service.store.files.write(picture.png), picture.width, picture.height)
