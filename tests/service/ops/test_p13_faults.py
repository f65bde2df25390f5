"""P13 as a client sees it: a full disk and a locked database are said, waited for, and got over."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from ops_support import MakeService, order, wait_for
from sqlalchemy import event

from izograf.service.context import Service

Connect = Callable[[Service], TestClient]
Usage = namedtuple("Usage", "total used free")


def status_of(client: TestClient, job_id: str) -> str:
    answer = client.get(f"/api/v1/jobs/{job_id}")
    return str(answer.json().get("status")) if answer.status_code == 200 else "unknown"


def check_problem(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"].endswith(".")
    assert "Traceback" not in answer.text
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0


@contextmanager
def locked(url: str | None, data: Path) -> Iterator[None]:
    """Another program holds what every change needs."""
    if url is None:
        with closing(sqlite3.connect(data / "izograf.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")
        return
    address = url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address) as other:
        other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        yield
        other.rollback()


def test_p13_a_locked_database_is_a_503_and_then_works(
    make_service: MakeService, connect: Connect, url: str | None
) -> None:
    short = url and f"{url}?options=-c%20lock_timeout%3D300"
    service = make_service(database_url=short)
    client = connect(service)
    with _short_waits(service), locked(url, service.settings.data_dir):
        check_problem(client.post("/api/v1/jobs", json=order()), 503, "store_unavailable")
        if url is None:  # there, everything is locked; on PostgreSQL only the jobs are
            ready = client.get("/readyz")
            assert ready.status_code == 503
            assert "locked" in " ".join(ready.json()["reasons"])
    accepted = client.post("/api/v1/jobs", json=order())
    assert accepted.status_code == 202, accepted.text
    wait_for(lambda: status_of(client, accepted.json()["id"]) == "done")
    wait_for(lambda: client.get("/readyz").status_code == 200)


@contextmanager
def _short_waits(service: Service) -> Iterator[None]:
    """SQLite gives up at once instead of after five seconds."""
    database = service.store.database
    if not database.is_sqlite:
        yield
        return

    def connected(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA busy_timeout=200")

    event.listen(database.engine, "checkout", connected)
    yield
    event.remove(database.engine, "checkout", connected)


def test_p13_a_full_disk_is_a_507_before_anything_is_accepted(
    make_service: MakeService, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    client = connect(service)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 10**6))
        check_problem(client.post("/api/v1/jobs", json=order()), 507, "storage_error")
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["space"] is False
        assert "full" in ready.json()["reasons"][0]
    assert client.get("/readyz").status_code == 200
    assert client.get("/api/v1/jobs").json()["items"] == []


def test_p13_the_disk_of_the_database_is_full(make_service: MakeService, connect: Connect) -> None:
    service = make_service()
    client = connect(service)
    pages: dict[str, int] = {"limit": 1}

    def connected(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages['limit']}")

    event.listen(service.store.database.engine, "checkout", connected)
    accepted: list[str] = []
    for seed in range(2000):
        answer = client.post("/api/v1/jobs", json=order(seed))
        if answer.status_code != 202:
            break
        accepted.append(answer.json()["id"])
    check_problem(answer, 507, "storage_error")
    assert "disk" in answer.json()["detail"]
    pages["limit"] = 1 << 30  # somebody freed some space
    later = client.post("/api/v1/jobs", json=order())
    assert later.status_code == 202, later.text
    for job_id in [*accepted, later.json()["id"]]:
        wait_for(lambda: status_of(client, job_id) == "done")  # noqa: B023
        assert len(service.store.images.of_job(job_id)) == 1


def test_p13_a_disk_that_fills_while_pictures_are_written_leaves_no_part_of_any(
    make_service: MakeService, connect: Connect, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(database_url=url)
    client = connect(service)
    sync, refused = os.fsync, []

    def full(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().suffix == ".tmp":
            refused.append(handle)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        job_id = client.post("/api/v1/jobs", json=order(num_images=3)).json()["id"]
        wait_for(lambda: len(refused) >= 2)
        assert status_of(client, job_id) == "running"
        assert service.store.images.of_job(job_id) == ()
        assert client.get("/readyz").json()["dispatcher"] is False
    wait_for(lambda: status_of(client, job_id) == "done")
    pictures = service.store.images.of_job(job_id)
    assert [picture.seed for picture in pictures] == [0, 1, 2]
    files = {path.stem for path in (service.settings.data_dir / "images").rglob("*.png")}
    assert files == {picture.sha256 for picture in pictures}
    assert not list((service.settings.data_dir / "images").rglob("*.tmp"))
    assert service.store.jobs.get(job_id).attempt == 1


def test_p13_an_unexpected_error_says_nothing_of_the_inside(
    make_service: MakeService, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    client = connect(service)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the operator's")

    monkeypatch.setattr(service.store.jobs, "submit", broken)
    answer = client.post("/api/v1/jobs", json=order())
    check_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
