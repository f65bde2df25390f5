"""What tests of the web application share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

from izograf.service.context import Service

MakeService = Callable[..., Service]


def wait_until_ended(client: TestClient, job_id: str, *, seconds: float = 30.0) -> dict[str, Any]:
    """The job once it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job: dict[str, Any] = client.get(f"/api/v1/jobs/{job_id}").json()
        if job["status"] not in ("queued", "running"):
            return job
        time.sleep(0.01)
    raise AssertionError(f"{job_id} did not end in {seconds} s")
