"""What the tests of the programming interface share: orders, callers with a role, live servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi.testclient import TestClient
from web_support import wait_until_ended

from izograf.engine.fake import Fault, FaultKind, FaultPlan
from izograf.service.auth_secrets import digest, make_key
from izograf.service.context import Service
from izograf.service.server import Server, listen
from izograf.store.accounts import Role

MOUNTAIN = {"type": "class", "class": "mountain"}


def order(**changes: Any) -> dict[str, Any]:
    """The body of a small job."""
    return {"model": "scenes", "condition": MOUNTAIN, "num_images": 2, "seed": 7} | changes


def submit(client: TestClient, **changes: Any) -> dict[str, Any]:
    """The answer to a small job's submission."""
    response = client.post("/api/v1/jobs", json=order(**changes))
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


def made(client: TestClient, **changes: Any) -> list[dict[str, Any]]:
    """The pictures of a small job that was waited for, by seed."""
    job = wait_until_ended(client, submit(client, **changes)["id"])
    assert job["status"] == "done", job
    images: list[dict[str, Any]] = job["images"]
    return images


def always(kind: FaultKind, step: int = 0) -> FaultPlan:
    """A plan by which every job goes wrong after `step`."""
    return lambda _job, _attempt: Fault(kind, step)


def key_of(service: Service, name: str, role: Role = Role.USER) -> str:
    """The API key of a new user."""
    user = service.store.accounts.create_user(name, role, "unused")
    key = make_key()
    service.store.accounts.create_key(user.id, "test", key.prefix, digest(key.secret))
    return key.text


def assert_problem(response: Any, status: int, code: str) -> str:
    """Checks a problem document and returns its sentence."""
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) >= {"type", "title", "status", "code", "detail"}
    assert body["status"] == status
    assert "Traceback" not in response.text
    detail: str = body["detail"]
    return detail


@dataclass(frozen=True)
class Live:
    """A service behind a real socket; `stop` is what a signal does."""

    url: str
    port: int
    server: Server


@contextmanager
def live(service: Service) -> Iterator[Live]:
    """Serves on a free port of this machine, in a thread."""
    listener, started = listen("127.0.0.1", 0), threading.Event()
    server = Server(service, started.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        assert started.wait(20)
        port = listener.getsockname()[1]
        yield Live(f"http://127.0.0.1:{port}", port, server)
    finally:
        server.stop()
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"
