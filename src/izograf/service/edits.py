"""Pictures that begin with another one: what pages, the interface and OpenAI's dialect share."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from izograf.engine.tasks import EDIT, MASK, ORIGINAL
from izograf.schema.errors import InvalidInput
from izograf.schema.job import Job
from izograf.schema.request import GenerationRequest
from izograf.service import orders
from izograf.service.access import Identity
from izograf.service.context import Service
from izograf.service.space import require_space
from izograf.service.uploads import UploadLimits, read_upload


@dataclass(frozen=True)
class Beginning:
    """What to begin with, exactly one of these.

    Attributes:
        upload: the bytes of somebody's file.
        image_id: a picture of the gallery.
        job_id: an earlier job, for what that began with.
    """

    upload: bytes = b""
    image_id: str = ""
    job_id: str = ""


@dataclass(frozen=True)
class _Clean:
    """A picture to begin with: where it lies in the store, or what is still to be written."""

    width: int
    height: int
    sha256: str = ""
    png: bytes = b""

    def kept(self, service: Service) -> str:
        return self.sha256 or service.store.files.write(self.png)


def edit_job(service: Service, identity: Identity, job_id: str) -> Job:
    """The job, which is one that repainted a picture.

    Raises:
        NotFound: there is none, or it is not the caller's. InvalidInput: it is of another kind.
    """
    job = service.store.jobs.get(job_id, owner=identity.visible_owner)
    if job.task != EDIT:
        raise InvalidInput("That job did not begin with a picture.")
    return job


def submit(
    service: Service,
    identity: Identity,
    request: GenerationRequest,
    begin: Beginning,
    mask: bytes = b"",
    *,
    same_mask: bool = False,
    idempotency_key: str | None = None,
) -> Job:
    """The job that repaints a picture; with a `mask`, a picture's file, only where that is white.

    Everything is looked at before anything is written. `same_mask` takes the mask of the job that
    `begin` names, if it had one and no other is given.

    Raises:
        NotFound, InvalidInput, Conflict, QueueFull, StorageError: as `orders.submit`; the model
            cannot begin with a picture, none or several are given, or the mask is of another size.
        UnusablePicture: the picture or the mask cannot be read.
    """
    if sum(map(bool, (begin.upload, begin.image_id, begin.job_id))) != 1:
        raise InvalidInput("Give the picture to begin with, a file or one of the gallery, once.")
    service.catalogue.card(request.model).require_editing()
    if request.towards:
        raise InvalidInput("A strip cannot begin with a picture: leave out towards.")
    orders.check(service, request)
    require_space(service.settings.data_dir)
    begun = _clean(service, identity, begin)
    inputs: Mapping[str, str] = {}
    if mask:
        painted = _read(service, mask, as_mask=True)
        if (painted.width, painted.height) != (begun.width, begun.height):
            raise InvalidInput(
                f"The mask is {painted.width} x {painted.height} and the picture {begun.width} x "
                f"{begun.height} pixels: paint it on the same picture."
            )
        inputs = {MASK: painted.kept(service)}
    elif same_mask and begin.job_id:
        before = edit_job(service, identity, begin.job_id).inputs
        inputs = {MASK: before[MASK]} if MASK in before else {}
    inputs = {ORIGINAL: begun.kept(service), **inputs}
    return orders.submit(
        service, identity, request, task=EDIT, inputs=inputs, idempotency_key=idempotency_key
    )


def _clean(service: Service, identity: Identity, begin: Beginning) -> _Clean:
    if begin.upload:
        return _read(service, begin.upload)
    if begin.image_id:
        image = service.store.images.get(begin.image_id, owner=identity.visible_owner)
        return _Clean(image.width, image.height, image.sha256)
    sha256 = edit_job(service, identity, begin.job_id).inputs[ORIGINAL]
    if not service.store.files.exists(sha256):
        raise InvalidInput("What that job began with is no longer kept: choose the picture again.")
    png = service.store.files.read(sha256)  # written here, so its header can be believed
    width, height = struct.unpack(">II", png[16:24])
    return _Clean(width, height, sha256)


def _read(service: Service, content: bytes, *, as_mask: bool = False) -> _Clean:
    clean = read_upload(content, UploadLimits.of(service.settings), as_mask=as_mask)
    return _Clean(clean.width, clean.height, png=clean.png)
