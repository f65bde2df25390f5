"""What the log says: which request, which job, how it went; and what it must never say."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient
from ops_support import MakeService, order, wait_for

from izograf.engine.fake import FakeEngine, Fault
from izograf.service.context import Service
from izograf.service.logs import configure_logs

SECRET = "secret-word"  # by name below: a traceback quotes the lines of this file
Connect = Callable[[Service], TestClient]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the log goes. pytest puts its own handlers back with each phase of a test."""
    root = logging.getLogger()
    level, target = root.level, io.StringIO()
    for name in ("httpx", "httpx2"):  # the clients of these tests live in the same process
        logging.getLogger(name).setLevel(logging.WARNING)
    yield target
    for handler in root.handlers[:]:
        if isinstance(handler, logging.StreamHandler) and handler.stream is target:
            root.removeHandler(handler)
    root.setLevel(level)
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def done(client: TestClient, job_id: str) -> bool:
    return client.get(f"/api/v1/jobs/{job_id}").json()["status"] not in ("queued", "running")


def test_every_line_is_json_and_names_request_and_job(
    make_service: MakeService, connect: Connect, stream: io.StringIO
) -> None:
    configure_logs("json", stream=stream)
    client = connect(make_service())
    answer = client.post("/api/v1/jobs", json=order(num_images=2))
    job_id = answer.json()["id"]
    wait_for(lambda: done(client, job_id))
    found = lines(stream)
    posted = next(line for line in found if line.get("method") == "POST")
    assert posted["job_id"] == job_id
    assert posted["request_id"] == answer.headers["x-request-id"]
    assert (posted["status"], posted["route"]) == (202, "/api/v1/jobs")
    asked = [line for line in found if line.get("route") == "/api/v1/jobs/{job_id}"]
    assert asked
    assert {line["job_id"] for line in asked} == {job_id}
    assert len({line["request_id"] for line in asked}) == len(asked)
    events = [line["event"] for line in found if line.get("job_id") == job_id]
    assert "job started" in events
    ended = next(line for line in found if line["event"] == "job ended")
    assert (ended["job_id"], ended["status"], ended["images"]) == (job_id, "done", 2)
    assert "request_id" not in ended, "the dispatcher works for no request"


def test_checks_by_machines_are_not_logged(
    make_service: MakeService, connect: Connect, stream: io.StringIO
) -> None:
    configure_logs("json", stream=stream)
    client = connect(make_service())
    for path in ("/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    assert [line for line in lines(stream) if line["event"] == "request"] == []


def test_the_log_quotes_no_request(
    make_service: MakeService,
    connect: Connect,
    stream: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_logs("json", stream=stream)
    engine = FakeEngine(
        step_seconds=0.001, size=16,
        faults=lambda job, _: Fault("crash" if job.request.seed == 1 else "error", 1),
    )  # fmt: skip
    service = make_service(engine=engine)
    client = connect(service)
    client.get("/api/v1/images", params={"q": SECRET})
    client.get("/api/v1/jobs/secret%0aword%1b[31m")
    client.post("/api/v1/jobs", json=order() | {"model": SECRET})
    client.post("/api/v1/jobs", json=order(condition={"type": "class", "class": SECRET}))
    failing = [client.post("/api/v1/jobs", json=order(seed)).json()["id"] for seed in (1, 2)]
    for job_id in failing:
        wait_for(lambda: done(client, job_id))  # noqa: B023

    def broken(*_: object, **__: object) -> None:
        with service.store.database.reading() as connection:
            connection.exec_driver_sql("SELECT no_such_column, ?", (SECRET,))

    monkeypatch.setattr(service.store.jobs, "submit", broken)
    assert client.post("/api/v1/jobs", json=order()).status_code == 500
    text = stream.getvalue()
    assert SECRET not in text
    assert "\x1b" not in text
    assert "no_such_column" in text, "the error itself is there, with its traceback"
    assert "Traceback" in text
    assert len(lines(stream)) > 5


def test_the_console_shows_plain_tracebacks(stream: io.StringIO) -> None:
    configure_logs("console", stream=stream)
    password = "hunter2"
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("izograf.test").exception("it failed", extra={"job_id": "job_1"})
    assert password not in stream.getvalue()
    assert "RuntimeError: broken" in stream.getvalue()
    assert "job_id=job_1" in stream.getvalue()


def test_libraries_are_quiet(stream: io.StringIO) -> None:
    configure_logs("json", stream=stream)
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("alembic.runtime.migration").info("Context impl SQLiteImpl.")
    assert stream.getvalue() == ""
