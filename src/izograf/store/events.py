"""What happened to each job (promise P6): numbered from 1 without gaps, written with the change.

Every change of a job's row goes through `change`, which counts the job's events in that row. The
row's lock thereby orders the events of a job, whoever writes them.
"""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    bindparam,
    column,
    func,
    insert,
    select,
    update,
)

from izograf.schema.job import EventKind, JobEvent
from izograf.store.tables import events, jobs

Position = tuple[str, int]
"""A job's identifier, and the number of its event up to which somebody knows them; 0 for none."""


def change(
    connection: Connection,
    job_id: str,
    conditions: tuple[ColumnElement[bool], ...],
    kind: EventKind,
    at: float,
    data: Mapping[str, Any],
    *,
    preview: bytes | None = None,
    **values: Any,
) -> Row[Any] | None:
    """Sets `values` in the row of a job that meets `conditions`, and records the event.

    Returns the changed row, or None (and nothing is recorded) if the job does not meet them.
    """
    row = connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, *conditions)
        .values(last_event=jobs.c.last_event + 1, **values)
        .returning(jobs)
    ).one_or_none()
    if row is not None:
        record(connection, job_id, row.last_event, kind, at, data, preview=preview)
    return row


def record(
    connection: Connection,
    job_id: str,
    number: int,
    kind: EventKind,
    at: float,
    data: Mapping[str, Any],
    *,
    preview: bytes | None = None,
) -> None:
    """Writes the event whose number the job's row already counts."""
    values = {"number": number, "kind": kind, "at": at, "data": dict(data), "preview": preview}
    connection.execute(insert(events).values(job_id=job_id, **values))


def forget_previews(connection: Connection, job_id: str) -> None:
    """Drops the pictures of preview events, which nobody needs once the job has ended."""
    connection.execute(
        update(events)
        .where(events.c.job_id == job_id, events.c.preview.is_not(None))
        .values(preview=None)
    )


def since(
    connection: Connection, positions: Collection[Position], limit: int
) -> dict[Position, tuple[JobEvent, ...]]:
    """The events that follow each position, oldest first, at most `limit` of each.

    Positions that nothing follows are left out. One statement, however many there are.
    """
    query = _following(connection.dialect.name)
    rows = connection.execute(query, {"positions": [*positions], "limit": limit})
    found: dict[Position, list[JobEvent]] = defaultdict(list)
    for row in rows:
        found[row.job_id, row.after].append(_event(row))
    return {position: tuple(following) for position, following in found.items()}


@cache  # making it takes as long as asking it
def _following(dialect: str) -> Select[Any]:
    unpack = func.json_each if dialect == "sqlite" else func.json_array_elements
    positions = unpack(bindparam("positions", type_=JSON)).table_valued(column("value", JSON))
    job_id, after = positions.c.value[0].as_string(), positions.c.value[1].as_integer()
    number = events.c.number  # without gaps, so a range of numbers is a limit
    last = after + bindparam("limit", type_=Integer)
    return (
        select(events, after.label("after"))
        .where(events.c.job_id == job_id, number > after, number <= last)
        .order_by(number)
    )


def _event(row: Row[Any]) -> JobEvent:
    data = dict(row.data)
    if row.preview is not None:
        data["png"] = b64encode(row.preview).decode("ascii")
    return JobEvent(row.job_id, row.number, EventKind(row.kind), row.at, data)
