"""Settings an operator changes while the service runs: limits, retention, banners."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, delete, select

from izograf.store.database import Database, upsert
from izograf.store.tables import settings
from izograf.store.text import checked_text


class SettingsStore:
    """Named JSON values of one database."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> Mapping[str, Any]:
        """Every setting that was changed from its default."""
        with self._database.reading() as connection:
            query = select(settings.c.name, settings.c.value)
            return {row.name: row.value for row in connection.execute(query)}

    def set(self, name: str, value: Any) -> None:
        """Changes one setting; `value` is anything JSON can say."""
        checked_text("The name of a setting", name, shortest=1, longest=200)
        values = {"value": value, "changed": self._clock()}

        def work(connection: Connection) -> None:
            statement = upsert(connection, settings).values(name=name, **values)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["name"], set_=values)
            )

        self._database.write(work)

    def reset(self, name: str) -> None:
        """Brings one setting back to its default."""
        gone = settings.c.name == checked_text("The name of a setting", name, longest=200)
        self._database.write(lambda c: c.execute(delete(settings).where(gone)))
