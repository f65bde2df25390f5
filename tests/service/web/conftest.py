"""A whole service in this process: real store and dispatcher, the deterministic fake engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from izograf.engine.fake import FakeEngine
from izograf.service.app import create_app
from izograf.service.context import Service
from izograf.service.run import running_service
from izograf.service.settings import ServiceSettings

MakeService = Callable[..., Service]


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[MakeService]:
    """Builds running services with any settings; `engine=` replaces the quick fake one."""
    with ExitStack() as stack:

        def make(*, engine: FakeEngine | None = None, **settings: Any) -> Service:
            chosen = ServiceSettings(**({"data_dir": tmp_path / "data", "grace_seconds": 1} | settings))
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


def wait_until_ended(client: TestClient, job_id: str, *, seconds: float = 30.0) -> dict[str, Any]:
    """The job once it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job: dict[str, Any] = client.get(f"/api/v1/jobs/{job_id}").json()
        if job["status"] not in ("queued", "running"):
            return job
        time.sleep(0.01)
    raise AssertionError(f"{job_id} did not end in {seconds} s")
