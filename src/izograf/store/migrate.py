"""Brings a database to the tables this program expects, whatever release wrote it.

One transaction does it all, under a lock: of several processes that start at once one migrates
and the others wait, and a process killed in the middle leaves the database as it was.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from izograf.schema.errors import StorageError
from izograf.store.database import Database
from izograf.store.files import storage_errors

WAIT = 60.0  # seconds to wait for another process that is migrating

_FOLDER = Path(__file__).parent / "migrations"
_MIGRATION = 0x1207_0005  # PostgreSQL's lock


def newest_revision() -> str:
    """The revision this program expects."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def current_revision(database: Database) -> str | None:
    """The revision the database is at; None if it is empty."""
    with database.reading() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str, *, wait: float = WAIT) -> str:
    """Creates or upgrades the tables of the database at `url`; returns its revision.

    Raises:
        StorageError: a newer program wrote the database, or its place cannot be written.
        StoreUnavailable: it is locked or unreachable.
    """
    # SQLite carries a table over by dropping the old one, which must not delete what refers to it
    database = Database(url, lock_timeout=wait, foreign_keys=False)
    if database.is_sqlite:
        _make_private_file(Path(str(database.engine.url.database)))
    try:
        if current_revision(database) != newest_revision():
            database.write(lambda connection: _upgrade(database, connection))
        return newest_revision()
    except CommandError as error:
        raise StorageError(
            "The database was written by a newer izograf: update this program, or restore a "
            "backup of its own release."
        ) from error
    finally:
        database.close()


def _upgrade(database: Database, connection: Connection) -> None:
    database.advisory_lock(connection, _MIGRATION)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if database.is_sqlite and connection.execute(text("PRAGMA foreign_key_check")).first():
        raise StorageError("The migration would lose references between rows: nothing was changed.")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _make_private_file(path: Path) -> None:
    """Creates a new SQLite file readable by its owner alone: it will hold password hashes."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
