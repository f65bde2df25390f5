"""P12: the migrations lead to the tables, from nothing and from every release."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.engine import make_url
from store_fixture import FOLDER, check
from store_postgres import Server

from izograf.schema.errors import StorageError
from izograf.store.database import Database
from izograf.store.migrate import current_revision, newest_revision, upgrade
from izograf.store.open import open_store
from izograf.store.tables import metadata

RELEASED = sorted(path.name.split(".")[0] for path in FOLDER.glob("*.sqlite.sql"))


def differences(url: str) -> list[object]:
    database = Database(url)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = list(compare_metadata(context, metadata))
    database.close()
    return found


def test_the_tables_are_what_the_migrations_make(empty_url: str) -> None:
    assert upgrade(empty_url) == newest_revision()
    assert differences(empty_url) == []


def test_every_revision_has_its_fixtures() -> None:
    assert RELEASED[-1] == f"revision_{newest_revision()}"


@pytest.mark.parametrize("revision", RELEASED)
def test_p12_an_upgrade_keeps_queue_and_gallery(
    revision: str, empty_url: str, kind: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    script = (FOLDER / f"{revision}.{kind}.sql").read_text()
    if kind == "sqlite":
        connection = sqlite3.connect(str(make_url(empty_url).database))
        connection.executescript(script)
        connection.close()
    else:
        server: Server = request.getfixturevalue("postgres")
        server.execute(script, "empty")
    assert upgrade(empty_url) == newest_revision()
    assert differences(empty_url) == []
    store = open_store(folder, empty_url)
    check(store, revision)
    store.close()


def test_a_database_of_a_newer_program_is_left_alone(empty_url: str) -> None:
    upgrade(empty_url)
    database = Database(empty_url)
    newer = text("UPDATE alembic_version SET version_num = '9999'")
    database.write(lambda connection: connection.execute(newer))
    with pytest.raises(StorageError, match="newer izograf"):
        upgrade(empty_url)
    assert current_revision(database) == "9999"
    database.close()
