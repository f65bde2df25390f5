"""P4 through the interface: a cancel reaches what computes, and only its owner's."""

from __future__ import annotations

import time
from typing import Any

from api_support import assert_problem, key_of, order, submit
from fastapi.testclient import TestClient
from web_support import MakeService

from izograf.engine.fake import FakeEngine
from izograf.service.app import create_app
from izograf.store.accounts import Role

BASE = "http://127.0.0.1:8000"


def wait_until_busy(engine: FakeEngine) -> None:
    deadline = time.monotonic() + 30
    while not engine.health()[0].busy:
        assert time.monotonic() < deadline, "the job never began"
        time.sleep(0.005)


def test_p4_a_cancel_stops_the_engine_before_it_is_answered(
    make_service: MakeService, monkeypatch: Any
) -> None:
    engine = FakeEngine(step_seconds=60)
    service = make_service(engine=engine)
    # nothing but the order itself may tell the engine
    monkeypatch.setattr(service.dispatcher, "_look_for_cancelled", lambda: None)
    with TestClient(create_app(service), base_url=BASE) as client:
        job = submit(client)
        wait_until_busy(engine)
        answer = client.delete(job["links"]["self"])
        assert answer.json()["status"] == "cancelled"
        assert not engine.health()[0].busy


def test_p4_nobody_cancels_what_is_anothers(make_service: MakeService) -> None:
    service = make_service(login="always", engine=FakeEngine(step_seconds=60))
    with TestClient(create_app(service), base_url=BASE) as client:
        keys = {"ann": key_of(service, "ann"), "ben": key_of(service, "ben"),
                "eve": key_of(service, "eve", Role.ENGINEER)}  # fmt: skip

        def ask(name: str, method: str, url: str, **more: Any) -> Any:
            headers = {"Authorization": f"Bearer {keys[name]}"}
            return client.request(method, url, headers=headers, **more)

        url = ask("ann", "POST", "/api/v1/jobs", json=order()).json()["links"]["self"]
        for stranger in ("ben", "eve"):
            assert_problem(ask(stranger, "DELETE", url), 404, "not_found")
            assert ask("ann", "GET", url).json()["status"] in ("queued", "running")
        assert ask("ann", "DELETE", url).json()["status"] == "cancelled"
