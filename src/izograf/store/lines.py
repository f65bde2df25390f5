"""The fair queue (promise P5): who is served next, and how long that takes.

The jobs of one owner at one priority wait in a line, oldest first. A claim serves the highest
priority that has anyone waiting, and within it the line that was served longest ago; lines never
served come first, in the order in which they opened. Between two services of a waiting line every
other line of its priority is therefore served at most once, which is the promise.

Each line's row counts its waiting jobs, so that neither a claim nor a queue position ever looks
at all queued jobs. Whoever changes a job's row and a line's row changes the job's first: one order
of locking, no deadlock.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, groupby, zip_longest

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)

from izograf.schema.job import Status
from izograf.store.database import upsert
from izograf.store.tables import jobs, queue_lines

# literals, because a partial index is used only where its condition is visible to the planner
IS_QUEUED = jobs.c.status == literal_column(f"'{Status.QUEUED}'")
_IS_WAITING = queue_lines.c.waiting > literal_column("0")


def join(connection: Connection, job_id: str, owner: str, priority: int) -> None:
    """One more job waits; the first of its owner and priority opens the line."""
    statement = upsert(connection, queue_lines).values(
        owner=owner, priority=priority, waiting=1, served=0, opened=job_id
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["owner", "priority"], set_={"waiting": queue_lines.c.waiting + 1}
        )
    )


def leave(connection: Connection, owner: str, priority: int) -> None:
    """One job fewer waits, without having been served."""
    connection.execute(
        update(queue_lines).where(*_line(owner, priority)).values(waiting=queue_lines.c.waiting - 1)
    )


def serve(connection: Connection, owner: str, priority: int) -> None:
    """The first job of the line is claimed, and the line goes to the end of the round."""
    turn = select(func.max(queue_lines.c.served) + 1).scalar_subquery()
    connection.execute(
        update(queue_lines)
        .where(*_line(owner, priority))
        .values(waiting=queue_lines.c.waiting - 1, served=turn)
    )


def in_turn(connection: Connection) -> Iterator[tuple[str, int]]:
    """(owner, priority) of every line with someone waiting, in the order of service."""
    priority = None
    while (priority := _highest_priority(connection, below=priority)) is not None:
        for place in count():
            owner = connection.scalar(
                select(queue_lines.c.owner)
                .where(_IS_WAITING, queue_lines.c.priority == priority)
                .order_by(queue_lines.c.served, queue_lines.c.opened)
                .limit(1)
                .offset(place)
            )
            if owner is None:
                break
            yield owner, priority


def upcoming(connection: Connection, limit: int, owner: str | None = None) -> list[str]:
    """The queued jobs that are claimed next if nobody joins, in that order; of one owner or all."""
    line = queue_lines.c
    query = select(line.owner, line.priority).where(_IS_WAITING)
    if owner is not None:
        query = query.where(line.owner == owner)
    order = (line.priority.desc(), line.served, line.opened)
    found: list[str] = []
    rows = connection.execute(query.order_by(*order).limit(limit))
    for _, same in groupby(rows.all(), key=lambda row: row.priority):
        waiting = [_first_in_line(connection, row.owner, row.priority, limit) for row in same]
        rounds = zip_longest(*waiting)  # every line is served once before any is served again
        found += [job_id for turn in rounds for job_id in turn if job_id is not None]
        if len(found) >= limit:
            break
    return found[:limit]


def _first_in_line(connection: Connection, owner: str, priority: int, limit: int) -> list[str]:
    query = select(jobs.c.id).where(IS_QUEUED, jobs.c.priority == priority, jobs.c.owner == owner)
    return list(connection.scalars(query.order_by(jobs.c.id).limit(limit)))


def _highest_priority(connection: Connection, *, below: int | None) -> int | None:
    query = select(func.max(queue_lines.c.priority)).where(_IS_WAITING)
    if below is not None:
        query = query.where(queue_lines.c.priority < below)
    highest: int | None = connection.scalar(query)
    return highest


def position(connection: Connection, job_id: str, owner: str, priority: int) -> int:
    """When the queued job will be claimed if nobody joins: 1 is next."""
    own = (jobs.c.priority == priority, jobs.c.owner == owner, jobs.c.id < job_id)
    ahead = connection.scalar(select(func.count()).where(IS_QUEUED, *own)) or 0
    own_line = connection.execute(select(queue_lines).where(*_line(owner, priority))).one()
    line = queue_lines.c
    goes_first = or_(
        line.served < own_line.served,
        and_(line.served == own_line.served, line.opened < own_line.opened),
    )
    rounds = ahead + case((goes_first, 1), else_=0)
    served_before = case(
        (line.priority > priority, line.waiting),
        (line.owner == owner, 0),
        (line.waiting < rounds, line.waiting),
        else_=rounds,
    )
    of_others = connection.scalar(
        select(func.sum(served_before)).where(_IS_WAITING, line.priority >= priority)
    )
    return 1 + int(ahead) + int(of_others or 0)


def num_waiting(connection: Connection, owner: str | None = None) -> int:
    """How many jobs are queued, of one owner or of all."""
    total = select(func.coalesce(func.sum(queue_lines.c.waiting), 0)).where(_IS_WAITING)
    if owner is not None:
        total = total.where(queue_lines.c.owner == owner)
    return int(connection.scalar(total) or 0)


def recount(connection: Connection) -> None:
    """Counts every line anew; others' changes to lines wait until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE queue_lines IN EXCLUSIVE MODE"))
    waiting = select(func.count()).where(
        IS_QUEUED, jobs.c.priority == queue_lines.c.priority, jobs.c.owner == queue_lines.c.owner
    )
    connection.execute(
        update(queue_lines).values(waiting=waiting.correlate(queue_lines).scalar_subquery())
    )


def _line(owner: str, priority: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (queue_lines.c.owner == owner, queue_lines.c.priority == priority)
