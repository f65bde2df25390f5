"""A whole service in this process: real store and dispatcher, the deterministic fake engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from web_support import MakeService

from izograf.engine.fake import FakeEngine
from izograf.service.app import create_app
from izograf.service.context import Service
from izograf.service.run import running_service
from izograf.service.settings import ServiceSettings


@pytest.fixture
def make_service(folder: Path, prepare: Callable[[Path], Path]) -> Iterator[MakeService]:
    """Builds running services with any settings; `engine=` replaces the quick fake one."""
    with ExitStack() as stack:

        def make(*, engine: FakeEngine | None = None, **settings: Any) -> Service:
            chosen = ServiceSettings(
                **({"data_dir": prepare(folder / "data"), "grace_seconds": 1} | settings)
            )
            quick = engine or FakeEngine(step_seconds=0.001, preview_seconds=0.005)
            return stack.enter_context(running_service(chosen, engine=quick))

        yield make


@pytest.fixture
def service(make_service: MakeService) -> Service:
    return make_service()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    """A program that talks to the service from this machine."""
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000") as client:
        yield client
