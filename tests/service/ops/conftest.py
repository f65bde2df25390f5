"""Services to break: on SQLite and on PostgreSQL, in this process and in their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

sys.path.append(str(Path(__file__).parents[1] / "store"))
from ops_support import MakeService
from store_postgres import Server, reason_to_skip, running_server

from izograf.engine.fake import FakeEngine
from izograf.engine.protocol import Engine
from izograf.service.app import create_app
from izograf.service.context import Service
from izograf.service.run import running_service
from izograf.service.settings import ServiceSettings

KINDS = ("sqlite", "postgresql")
NO_LIMITS = {
    "requests_per_minute": 10**6, "jobs_per_minute": 10**6,
    "max_queued": 10**6, "max_queued_per_owner": 10**6,
}  # fmt: skip


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    if (reason := reason_to_skip()) is not None:
        pytest.skip(reason)
    with running_server() as server:
        yield server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str | None:
    """An empty database; None for the one that the service makes by itself."""
    if kind == "sqlite":
        return None
    server: Server = request.getfixturevalue("postgres")
    return server.create("ops")


@pytest.fixture
def make_service(folder: Path, prepare: Callable[[Path], Path]) -> Iterator[MakeService]:
    """Builds running services in this process, each in a folder of its own."""
    with ExitStack() as stack:
        made: list[Service] = []

        def make(*, engine: Engine | None = None, **settings: Any) -> Service:
            data_dir = folder / f"data-{len(made)}"
            if settings.get("database_url") is None:
                prepare(data_dir)
            chosen = {"data_dir": data_dir, "grace_seconds": 1} | NO_LIMITS | settings
            quick = engine or FakeEngine(step_seconds=0.001, preview_seconds=0.005, size=16)
            service = stack.enter_context(running_service(ServiceSettings(**chosen), engine=quick))
            made.append(service)
            return service

        yield make


@pytest.fixture
def connect() -> Iterator[Callable[[Service], TestClient]]:
    """connect(service) -> a client on this machine."""
    with ExitStack() as stack:

        def make(service: Service) -> TestClient:
            client = TestClient(
                create_app(service), base_url="http://127.0.0.1:8000", raise_server_exceptions=False
            )
            return stack.enter_context(client)

        yield make
