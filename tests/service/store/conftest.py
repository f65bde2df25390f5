"""Both databases for every test that asks for `store` or `url`, fresh each time and fast."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_postgres import Server, reason_to_skip, running_server
from store_support import KINDS, Clock, seeded_ids

from izograf.schema.request import GenerationRequest
from izograf.store.database import Database, sqlite_url
from izograf.store.migrate import upgrade
from izograf.store.open import Store, open_store
from izograf.store.tables import metadata

Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    if (reason := reason_to_skip()) is not None:
        pytest.skip(reason)
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: Server) -> str:
    """A PostgreSQL database with every table, which tests share one after the other."""
    url = postgres.create("izograf")
    upgrade(url)
    return url


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_url(kind: str, folder: Path, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Gives a database with tables and without rows; the one before is gone."""

    def make() -> str:
        if kind == "sqlite":
            template = request.getfixturevalue("sqlite_template")
            for old in folder.glob("izograf.sqlite3*"):
                old.unlink()
            return sqlite_url(Path(shutil.copy(template, folder / "izograf.sqlite3")))
        url = str(request.getfixturevalue("postgres_url"))
        names = [table.name for table in reversed(metadata.sorted_tables)]
        server: Server = request.getfixturevalue("postgres")
        # on small tables many times faster than TRUNCATE
        server.execute("; ".join(f"DELETE FROM {name}" for name in names), "izograf")
        return url

    return make


@pytest.fixture
def url(make_url: Callable[[], str]) -> str:
    return make_url()


@pytest.fixture
def empty_url(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """A database without any table."""
    if kind == "sqlite":
        return sqlite_url(folder / "empty.sqlite3")
    server: Server = request.getfixturevalue("postgres")
    return server.create("empty")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(url: str, folder: Path, clock: Clock) -> Iterator[Store]:
    opened = open_store(folder, url, clock=clock, make_ids=seeded_ids(clock))
    yield opened
    opened.close()


@pytest.fixture
def impatient(url: str) -> Iterator[Database]:
    """A second way into the store's database, which waits for nobody."""
    database = Database(url, lock_timeout=0.05)
    yield database
    database.close()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Call]:
    """zygote(action, **arguments): see store_zygote.py."""
    script = Path(__file__).parent / "store_zygote.py"
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sending, receiving = process.stdin, process.stdout

        def call(action: str, **arguments: Any) -> dict[str, Any]:
            sending.write(json.dumps({"action": action, **arguments}) + "\n")
            sending.flush()
            answer: dict[str, Any] = json.loads(receiving.readline())
            return answer

        yield call
        sending.close()


@pytest.fixture
def request_for() -> Callable[..., GenerationRequest]:
    """request_for(model="scenes", name="mountain", **rest) -> a request for one class."""

    def make(model: str = "scenes", name: str = "mountain", **rest: Any) -> GenerationRequest:
        return GenerationRequest(model, {"type": "class", "class": name}, **rest)

    return make
