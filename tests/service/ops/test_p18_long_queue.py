"""P18 over HTTP: POST /jobs with ten thousand queued rows, as a ratio to an empty queue."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from ops_support import MakeService, order
from sqlalchemy import Connection, delete, insert

from izograf.engine.fake import FakeEngine
from izograf.schema.request import GenerationRequest
from izograf.service.context import Service
from izograf.store import lines
from izograf.store.ids import Ids
from izograf.store.open import Store
from izograf.store.tables import jobs, queue_lines

NUM_QUEUED, ROUNDS = 10_000, 60


def fill(store: Store, owners: list[str]) -> None:
    """Ten thousand queued rows of these owners, as submit writes them, but at once."""
    request = GenerationRequest("scenes", {"type": "class", "class": "mountain"})
    new = Ids()
    row = {
        "task": "generate", "model": "scenes", "request": request.to_json(), "inputs": {},
        "result": {}, "status": "queued", "priority": 0, "attempt": 0, "deaths": 0, "began": False,
        "last_event": 0, "created": 0.0, "reason": "",
    }  # fmt: skip
    rows = [
        row | {"id": new.new("job"), "owner": owners[n % len(owners)]} for n in range(NUM_QUEUED)
    ]
    opened = [
        {"owner": owner, "priority": 0, "waiting": 0, "served": 0, "opened": rows[n]["id"]}
        for n, owner in enumerate(owners)
    ]

    def work(connection: Connection) -> None:
        connection.execute(delete(queue_lines))
        connection.execute(insert(jobs), rows)
        connection.execute(insert(queue_lines), opened)
        lines.recount(connection)
        if not store.database.is_sqlite:  # what autovacuum does on a real server
            connection.exec_driver_sql("ANALYZE")

    store.database.write(work)


def seconds_of_post(client: TestClient, seed: int) -> float:
    body = order(seed)
    began = time.perf_counter()
    answer = client.post("/api/v1/jobs", json=body)
    taken = time.perf_counter() - began
    assert answer.status_code == 202, answer.text
    assert client.delete(f"/api/v1/jobs/{answer.json()['id']}").status_code == 200
    return taken


@pytest.mark.parametrize("num_owners", [1, 200])
def test_p18_submitting_stays_fast_with_ten_thousand_queued_rows(
    make_service: MakeService,
    connect: Callable[[Service], TestClient],
    kind: str,
    request: pytest.FixtureRequest,
    num_owners: int,
) -> None:
    clients = {}
    for name in ("empty", "full"):
        url = (
            None if kind == "sqlite" else request.getfixturevalue("postgres").create(f"ops_{name}")
        )
        service = make_service(engine=FakeEngine(step_seconds=3600), database_url=url)
        clients[name] = connect(service)
        if name == "full":
            fill(service.store, ["local", *(f"owner {n}" for n in range(1, num_owners))])
    for name in clients:
        seconds_of_post(clients[name], 0)
    ratios = [
        seconds_of_post(clients["full"], seed) / seconds_of_post(clients["empty"], seed)
        for seed in range(ROUNDS)
    ]
    assert statistics.median(ratios) <= 2, sorted(ratios)
    assert clients["full"].app.state.service.store.jobs.num_queued() > NUM_QUEUED - 10  # type: ignore[attr-defined]
