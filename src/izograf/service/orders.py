"""What everybody who submits jobs shares: pages, the interface and the OpenAI dialect."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping

from izograf.engine.tasks import MASK, ORIGINAL, PICTURE, VERIFY
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
    if request.num_images > settings.max_images_per_job:
        raise InvalidInput(
            f"num_images must be from 1 to {settings.max_images_per_job} here, "
            f"got {request.num_images}: send several jobs."
        )
    job = service.store.jobs.submit(
        identity.owner,
        task,
        service.catalogue.resolve(request),
        idempotency_key=idempotency_key,
        limits=QueueLimits(settings.max_queued, settings.max_queued_per_owner),
        inputs=inputs,
    )
    service.dispatcher.wake()
    return job


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
    inputs = {PICTURE: image.sha256} | originals_of(service, image)
    return submit(service, identity, request, task=VERIFY, inputs=inputs)


def originals_of(service: Service, image: StoredImage) -> Mapping[str, str]:
    """What an edited picture began with, as inputs; empty for others, or once that is forgotten."""
    if EDITED not in image.record:
        return {}
    try:
        inputs = service.store.jobs.get(image.job_id).inputs
    except NotFound:
        return {}
    return {name: inputs[name] for name in (ORIGINAL, MASK) if name in inputs}


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
