"""Pages of a list: newest first, continued by a cursor that stays right while rows come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Row, Select, Table

from izograf.schema.errors import InvalidInput
from izograf.store import ids

MAX_LIMIT = 200

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items, and the cursor that continues the list; None at its end."""

    items: tuple[Item, ...]
    next_cursor: str | None


def fetch_page(
    connection: Connection,
    query: Select[Any],
    table: Table,
    kind: str,
    cursor: str | None,
    limit: int,
    build: Callable[[Row[Any]], Item],
) -> Page[Item]:
    """One page of `query`, ordered by the `id` column of `table`, newest first.

    Raises:
        InvalidInput: `limit` is not from 1 to 200, or `cursor` is none that a page gave.
    """
    check_limit(limit)
    if cursor is not None:
        if not ids.is_id(kind, cursor):
            raise InvalidInput("The cursor is none that this list gave: start without one.")
        query = query.where(table.c.id < cursor)
    rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit + 1)).all()
    items = tuple(build(row) for row in rows[:limit])
    return Page(items, rows[limit - 1].id if len(rows) > limit else None)


def check_limit(limit: int) -> None:
    """
    Raises:
        InvalidInput: `limit` is not from 1 to 200.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(f"limit must be from 1 to {MAX_LIMIT}, got {limit}.")
