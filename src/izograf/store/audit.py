"""The audit log: who did what to what, and when. It holds no prompts and no pictures.

Facts are limited to names on a list, so that no caller can write somebody's request into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from izograf.store.database import Database
from izograf.store.pages import check_limit
from izograf.store.tables import audit
from izograf.store.text import cleaned_text

FACTS = frozenset(
    {"address", "count", "model", "name", "prefix", "priority", "result", "role", "task", "version"}
)
Fact = str | int | float | bool | None


@dataclass(frozen=True)
class AuditEntry:
    """One action: `actor` did `action` (`user.create`, `job.cancel`) to `subject`."""

    number: int
    at: float
    actor: str
    action: str
    subject: str
    facts: Mapping[str, Fact]


class AuditLog:
    """The audit log of one database; entries are added, never changed."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def record(self, actor: str, action: str, subject: str = "", **facts: Fact) -> None:
        """Adds an entry. `facts` other than those in `FACTS` are a mistake of the caller."""
        if unknown := set(facts) - FACTS:
            raise ValueError(f"the audit log does not hold {', '.join(sorted(unknown))}")
        values = {
            "at": self._clock(),
            "actor": cleaned_text(actor, longest=200),
            "action": cleaned_text(action, longest=60),
            "subject": cleaned_text(subject, longest=200),
            "facts": {k: v[:200] if isinstance(v, str) else v for k, v in facts.items()},
        }
        self._database.write(lambda c: c.execute(insert(audit).values(values)))

    def entries(
        self, *, actor: str | None = None, before: int | None = None, limit: int = 50
    ) -> tuple[AuditEntry, ...]:
        """Entries, newest first, of one actor or all, with numbers below `before`."""
        check_limit(limit)
        query = select(audit).order_by(audit.c.number.desc()).limit(limit)
        if actor is not None:
            query = query.where(audit.c.actor == cleaned_text(actor, longest=200))
        if before is not None:
            query = query.where(audit.c.number < min(max(before, 0), 2**63 - 1))
        with self._database.reading() as connection:
            return tuple(AuditEntry(*row) for row in connection.execute(query))

    def purge(self, before: float) -> int:
        """Forgets entries older than a moment; how many."""
        old = audit.c.at < before
        return self._database.write(lambda c: c.execute(delete(audit).where(old)).rowcount)
