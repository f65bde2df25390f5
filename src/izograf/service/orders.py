"""What everybody who submits jobs shares: pages, the interface and the OpenAI dialect."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping

from izograf.engine.tasks import EDIT, MASK, ORIGINAL, PICTURE, VERIFY
from izograf.schema.errors import Conflict, InvalidInput, NotFound
from izograf.schema.job import Job, StoredImage
from izograf.schema.record import EDITED
from izograf.schema.request import GenerationRequest
from izograf.service.access import Identity
from izograf.service.context import Service
from izograf.service.space import require_space
from izograf.store.orders import QueueLimits

GENERATE = "generate"
SEEDS = 2**31  # what a person can read and type


def submit(
    service: Service,
    identity: Identity,
    request: GenerationRequest,
    *,
    task: str = GENERATE,
    inputs: Mapping[str, str] = {},
    idempotency_key: str | None = None,
) -> Job:
    """The accepted job: checked against the model's card, and on disk when this returns.

    Raises:
        NotFound, InvalidInput, Conflict, QueueFull: see `Catalogue.resolve`, `JobStore.submit`.
        StorageError: there is no room for more pictures.
    """
    settings = service.settings
    require_space(settings.data_dir)
    job = service.store.jobs.submit(
        identity.owner,
        task,
        check(service, request),
        idempotency_key=idempotency_key,
        limits=QueueLimits(settings.max_queued, settings.max_queued_per_owner),
        inputs=inputs,
    )
    service.dispatcher.wake()
    return job


def check(service: Service, request: GenerationRequest) -> GenerationRequest:
    """The request as the model's card has it, every option explicit.

    Raises:
        NotFound, InvalidInput: see `Catalogue.resolve`; more pictures than a job may have.
    """
    most = service.settings.max_images_per_job
    if request.num_images > most:
        raise InvalidInput(
            f"num_images must be from 1 to {most} here, got {request.num_images}: send several "
            "jobs."
        )
    return service.catalogue.resolve(request)


def choose_seed(idempotency_key: str | None = None) -> int:
    """A seed for an order without one: random, yet the same when the order is repeated."""
    if idempotency_key is None:
        return secrets.randbelow(SEEDS)
    digest = hashlib.sha256(idempotency_key.encode(errors="replace")).digest()
    return int.from_bytes(digest[:8]) % SEEDS


def retry(service: Service, identity: Identity, job_id: str) -> Job:
    """A new job that does what an ended one should have done.

    Raises:
        NotFound: there is none, or it is not the caller's. Conflict: it has not ended.
        InvalidInput, QueueFull: see `submit`.
    """
    job = service.store.jobs.get(job_id, owner=identity.visible_owner)
    if not job.status.final:
        raise Conflict(f"The job is still {job.status}: cancel it, or wait until it has ended.")
    return submit(service, identity, job.request, task=job.task, inputs=job.inputs)


def verify(service: Service, identity: Identity, image: StoredImage) -> Job:
    """A job that makes the picture again and says how closely.

    Raises:
        NotFound, InvalidInput: its model is gone, or takes something else now. QueueFull.
    """
    made_by = GenerationRequest.from_json(image.record["request"])
    request = made_by.single(image.seed)  # the engine reads the rest from the picture itself
    inputs = {PICTURE: image.sha256, **originals_of(service, image)}
    return submit(service, identity, request, task=VERIFY, inputs=inputs)


def vary(
    service: Service, identity: Identity, image: StoredImage, request: GenerationRequest
) -> Job:
    """A job of `request`, which begins with what the picture began with, if it was edited.

    Raises:
        InvalidInput: that is not kept any more. NotFound, QueueFull: see `submit`.
    """
    inputs = originals_of(service, image)
    if EDITED in image.record and not inputs:
        raise InvalidInput("What the picture was made from is no longer kept: edit that again.")
    return submit(service, identity, request, task=EDIT if inputs else GENERATE, inputs=inputs)


def originals_of(service: Service, image: StoredImage) -> Mapping[str, str]:
    """What an edited picture began with, as inputs; empty for others, or once that is forgotten."""
    if EDITED not in image.record:
        return {}
    try:
        inputs = service.store.jobs.get(image.job_id).inputs
    except NotFound:
        return {}
    begun = {name: inputs[name] for name in (ORIGINAL, MASK) if name in inputs}
    return begun if all(map(service.store.files.exists, begun.values())) else {}


def cancel(service: Service, identity: Identity, job_id: str) -> Job:
    """The job, cancelled if it had not ended.

    Raises:
        NotFound: there is none, or it is not the caller's.
    """
    cancelled = service.store.jobs.cancel(job_id, owner=identity.visible_owner)
    if cancelled:
        service.dispatcher.cancel(job_id)
    job = service.store.jobs.get(job_id, owner=identity.visible_owner)
    if cancelled and job.owner != identity.owner:
        service.store.audit.record(identity.name, "job.cancel", job_id)
    return job
