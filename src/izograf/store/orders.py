"""From an order to a queued job: what is checked, what is written, and the same order twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from izograf.schema.errors import Conflict, InvalidInput, QueueFull
from izograf.schema.job import EventKind, Job, Status
from izograf.schema.request import GenerationRequest
from izograf.store import events, files, lines
from izograf.store.tables import idempotency_keys, jobs
from izograf.store.text import checked_text

MAX_PRIORITY = 100
MAX_INPUTS = 16

CheckFiles = Callable[[Connection, Mapping[str, str]], None]
"""Raises `InvalidInput` unless every input is a file in the store."""


@dataclass(frozen=True)
class QueueLimits:
    """How many jobs may wait, of one owner and altogether."""

    total: int
    per_owner: int


@dataclass(frozen=True)
class Order:
    """A checked order; `body_sha256` is what a repeated idempotency key must agree with."""

    owner: str
    task: str
    request: GenerationRequest
    priority: int
    idempotency_key: str | None
    body_sha256: str
    inputs: Mapping[str, str]


def checked_order(
    owner: str,
    task: str,
    request: GenerationRequest,
    priority: int,
    idempotency_key: str | None,
    inputs: Mapping[str, str],
) -> Order:
    """The order, if it can be stored.

    Raises:
        InvalidInput: a text or number that cannot.
    """
    checked_text("The owner", owner, shortest=1, longest=200)
    checked_text("The task", task, shortest=1, longest=40)
    checked_text("The model", request.model, shortest=1, longest=500)
    if idempotency_key is not None:
        checked_text("The idempotency key", idempotency_key, shortest=1, longest=255)
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise InvalidInput(
            f"priority must be from {-MAX_PRIORITY} to {MAX_PRIORITY}, got {priority}."
        )
    _check_inputs(inputs)
    body: dict[str, Any] = {"task": task, "request": request.to_json(), "priority": priority}
    if inputs:
        body["inputs"] = dict(inputs)
    try:
        text = json.dumps(body, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The request cannot be stored as JSON: {error}.") from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Order(owner, task, request, priority, idempotency_key, digest, dict(inputs))


def _check_inputs(inputs: Mapping[str, str]) -> None:
    if len(inputs) > MAX_INPUTS:
        raise InvalidInput(f"At most {MAX_INPUTS} inputs can be given, got {len(inputs)}.")
    for name, sha256 in inputs.items():
        checked_text("The name of an input", name, shortest=1, longest=40)
        if files.PATTERN.fullmatch(sha256) is None:
            raise InvalidInput(f"The input {name} is not named by a sha256 of 64 digits.")


def accept(
    connection: Connection,
    order: Order,
    job_id: str,
    now: float,
    limits: QueueLimits | None,
    check_files: CheckFiles,
) -> Job:
    """The queued job of an order; the earlier one if its idempotency key was seen before.

    Raises:
        InvalidInput: an input is not in the store.
        Conflict: the owner used the key for another body.
        QueueFull: `limits` are reached.
    """
    if (known := _known_job(connection, order)) is not None:
        return known
    if limits is not None:
        _check_limits(connection, order.owner, limits)
    check_files(connection, order.inputs)
    values = {
        "id": job_id, "owner": order.owner, "task": order.task, "model": order.request.model,
        "request": order.request.to_json(), "inputs": order.inputs, "result": {},
        "status": Status.QUEUED, "priority": order.priority, "attempt": 0, "deaths": 0,
        "began": False, "last_event": 1, "created": now, "reason": "",
    }  # fmt: skip
    row = connection.execute(insert(jobs).values(values).returning(jobs)).one()
    if order.idempotency_key is not None:
        entry = {
            "owner": order.owner, "key": order.idempotency_key,
            "body_sha256": order.body_sha256, "job_id": job_id, "created": now,
        }  # fmt: skip
        connection.execute(insert(idempotency_keys).values(entry))
    events.record(connection, job_id, 1, EventKind.QUEUED, now, {})
    lines.join(connection, job_id, order.owner, order.priority)
    return build_job(row)


def _known_job(connection: Connection, order: Order) -> Job | None:
    if order.idempotency_key is None:
        return None
    keys = idempotency_keys
    row = connection.execute(
        select(jobs, keys.c.body_sha256)
        .join(keys, keys.c.job_id == jobs.c.id)
        .where(keys.c.owner == order.owner, keys.c.key == order.idempotency_key)
    ).one_or_none()
    if row is None:
        return None
    if row.body_sha256 != order.body_sha256:
        raise Conflict(
            "This idempotency key was used for another request: send the same body, or a new key."
        )
    return build_job(row)


def _check_limits(connection: Connection, owner: str, limits: QueueLimits) -> None:
    if lines.num_waiting(connection) >= limits.total:
        raise QueueFull(f"The queue is full ({limits.total} jobs wait): try again later.")
    if lines.num_waiting(connection, owner) >= limits.per_owner:
        raise QueueFull(
            f"You have {limits.per_owner} jobs waiting, as many as allowed: wait for one to end."
        )


def build_job(row: Row[Any]) -> Job:
    """The job of a row of `jobs`."""
    return Job(
        id=row.id,
        owner=row.owner,
        task=row.task,
        request=GenerationRequest.from_json(row.request),
        status=Status(row.status),
        created=row.created,
        priority=row.priority,
        attempt=row.attempt,
        started=row.started,
        finished=row.finished,
        reason=row.reason,
        inputs=row.inputs,
        result=row.result,
        seconds=row.seconds,
        joules=row.joules,
        energy_method=row.energy_method or "",
    )
