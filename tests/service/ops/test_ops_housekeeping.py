"""Retention: what is old goes, what is wanted stays, and no error ends the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from ops_support import MakeService, order, wait_for

from izograf.schema.errors import NotFound, StoreUnavailable
from izograf.service import housekeeping
from izograf.service.context import Service
from izograf.service.housekeeping import DAY, Housekeeper
from izograf.store.accounts import Role

Connect = Callable[[Service], TestClient]


def housekeeper(service: Service, *, days_later: float) -> Housekeeper:
    return Housekeeper(
        service.store, service.settings, service.metrics,
        clock=lambda: service.clock() + days_later * DAY,
    )  # fmt: skip


def make_jobs(client: TestClient, count: int) -> list[str]:
    accepted = [client.post("/api/v1/jobs", json=order(n)).json()["id"] for n in range(count)]
    for job_id in accepted:
        wait_for(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["status"] == "done")  # noqa: B023
    return accepted


def test_deleted_pictures_their_jobs_and_files_go_in_turn(
    make_service: MakeService, connect: Connect, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(database_url=url, keep_jobs_days=90, keep_deleted_days=7)
    deleted, kept = make_jobs(connect(service), 2)
    (picture,) = service.store.images.of_job(deleted)
    service.store.images.delete([picture.id])
    assert housekeeper(service, days_later=6).tidy()["pictures"] == 0
    assert housekeeper(service, days_later=8).tidy() == {
        "pictures": 1, "jobs": 0, "sessions": 0, "files": 0,
    }  # fmt: skip
    assert service.store.files.exists(picture.sha256), "its grace time has not passed"
    monkeypatch.setattr(housekeeping, "SWEEP_GRACE", -1.0)
    assert housekeeper(service, days_later=8).tidy()["files"] == 1
    assert housekeeper(service, days_later=91).tidy()["jobs"] == 1
    with pytest.raises(NotFound):
        service.store.jobs.get(deleted)
    (still,) = service.store.images.of_job(kept)
    assert service.store.images.read_png(still.id)


def test_old_jobs_go_in_bites_and_all_of_them(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "BITE", 3)
    monkeypatch.setattr(housekeeping, "BREATH_SECONDS", 0.0)
    service = make_service()
    catalogue = service.catalogue.generators()
    assert catalogue
    from izograf.schema.request import GenerationRequest

    request = GenerationRequest("scenes", {"type": "class", "class": "sea"})
    for _ in range(10):
        job = service.store.jobs.submit("ann", "generate", request)
        service.store.jobs.cancel(job.id)
    assert housekeeper(service, days_later=91).tidy()["jobs"] == 10


def test_expired_sessions_and_old_keys_go(make_service: MakeService, connect: Connect) -> None:
    service = make_service()
    accounts = service.store.accounts
    user = accounts.create_user("ann", Role.USER, "hash")
    accounts.create_session(user.id, "0" * 64, expires=service.clock() - 1)
    accounts.create_session(user.id, "1" * 64, expires=service.clock() + 1000)
    client = connect(service)
    first = client.post("/api/v1/jobs", json=order(), headers={"Idempotency-Key": "k"}).json()
    again = client.post("/api/v1/jobs", json=order(), headers={"Idempotency-Key": "k"}).json()
    assert first["id"] == again["id"]
    assert housekeeper(service, days_later=2).tidy()["sessions"] == 1
    later = client.post("/api/v1/jobs", json=order(), headers={"Idempotency-Key": "k"}).json()
    assert later["id"] != first["id"]


def test_a_repeated_order_is_the_same_job_for_a_day(
    make_service: MakeService, connect: Connect
) -> None:
    service = make_service()
    client, headers = connect(service), {"Idempotency-Key": "k"}
    first = client.post("/api/v1/jobs", json=order(), headers=headers).json()
    for days_later, same in ((0.95, True), (1.05, False)):
        housekeeper(service, days_later=days_later).tidy()
        again = client.post("/api/v1/jobs", json=order(), headers=headers).json()
        assert (again["id"] == first["id"]) == same


def test_what_nobody_deleted_stays_however_old(
    make_service: MakeService, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "SWEEP_GRACE", -1.0)
    service = make_service()
    accepted = make_jobs(connect(service), 2)
    pictures = [service.store.images.of_job(job_id)[0] for job_id in accepted]
    service.store.images.set_favourite(pictures[0].id, True)
    done = housekeeper(service, days_later=10_000).tidy()
    assert (done["pictures"], done["jobs"], done["files"]) == (0, 0, 0)
    for job_id, picture in zip(accepted, pictures, strict=True):
        assert service.store.jobs.get(job_id).status == "done"
        assert service.store.images.read_png(picture.id)


def test_one_task_that_fails_stops_no_other(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service()

    def broken(**_: object) -> int:
        raise RuntimeError("a bug")

    def away(*_: object) -> int:
        raise StoreUnavailable("The database is locked by another program.")

    monkeypatch.setattr(service.store.jobs, "purge", broken)
    monkeypatch.setattr(service.store.images, "purge_deleted", away)
    assert set(housekeeper(service, days_later=0).tidy()) == {"sessions", "files"}
    assert "Housekeeping of jobs failed" in caplog.text
    assert "Housekeeping of pictures has to wait" in caplog.text
    assert b'outcome="incomplete"} 1.0' in service.metrics.text()


def test_the_thread_goes_on_after_an_error_and_stops_at_once(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tmp_path
    service = make_service()
    rounds: list[int] = []
    keeper = housekeeper(service, days_later=0)

    def tidy() -> None:
        rounds.append(1)
        raise RuntimeError("a bug")

    monkeypatch.setattr(housekeeping, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(housekeeping, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(keeper, "tidy", tidy)
    keeper.start()
    wait_for(lambda: len(rounds) > 2)
    keeper.stop()
    count = len(rounds)
    assert keeper._thread is None
    assert len(rounds) == count
