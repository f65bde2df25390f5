"""/metrics: everything an operator needs to be woken in time, and not too many labels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from ops_support import MakeService, order, wait_for
from prometheus_client.parser import text_string_to_metric_families

from izograf.engine.fake import WATTS, FakeEngine, Fault
from izograf.schema.errors import StoreUnavailable
from izograf.schema.job import Status
from izograf.service.context import Service

Connect = Callable[[Service], TestClient]


def figures(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) -> value."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_happened_is_counted(make_service: MakeService, connect: Connect) -> None:
    engine = FakeEngine(
        step_seconds=0.001, size=16,
        faults=lambda job, attempt: Fault("crash", 1) if job.request.seed == attempt == 1 else None,
    )  # fmt: skip
    client = connect(make_service(engine=engine))
    accepted = [
        client.post("/api/v1/jobs", json=order(seed, num_images=2)).json()["id"] for seed in (0, 1)
    ]
    client.get("/no/such/route")
    for job_id in accepted:
        wait_for(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["status"] == "done")  # noqa: B023
    found = figures(client)
    model = ("model", "scenes")
    assert found["izograf_images_total", (model,)] == 4
    assert found["izograf_jobs_ended_total", (model, ("status", "done"))] == 2
    assert found["izograf_jobs", (("status", "done"),)] == 2
    assert found["izograf_jobs", (("status", "dead"),)] == 0
    assert found["izograf_queue_length", ()] == 0
    assert found["izograf_queue_wait_seconds_count", ()] == 2, "not once more for a second attempt"
    assert found["izograf_generation_seconds_count", (model,)] == 2
    estimated = found["izograf_energy_joules_total", (("method", "estimated"), model)]
    assert estimated == pytest.approx(WATTS * found["izograf_generation_seconds_sum", (model,)])
    assert found["izograf_worker_deaths_total", ()] == 1
    assert found["izograf_worker_alive", (("device", "none"), ("worker", "fake-0"))] == 1
    assert found["izograf_sse_listeners", ()] == 0
    assert found["izograf_store_up", ()] == found["izograf_dispatcher_alive", ()] == 1
    assert found["izograf_disk_free_bytes", ()] > 0
    assert found["process_resident_memory_bytes", ()] > 1e6
    posted = (("method", "POST"), ("route", "/api/v1/jobs"), ("status", "202"))
    assert found["izograf_http_requests_total", posted] == 2
    nowhere = (("method", "GET"), ("route", "none"), ("status", "404"))
    assert found["izograf_http_requests_total", nowhere] == 1
    assert any(name == "izograf_build_info" for name, _ in found)


def test_clients_cannot_invent_labels(make_service: MakeService, connect: Connect) -> None:
    client = connect(make_service())
    for number in range(20):
        client.get(f"/api/v1/jobs/{number}")
        client.get(f"/{number}")
        client.request(f"M{number}", "/healthz")
    requests = [labels for name, labels in figures(client) if name == "izograf_http_requests_total"]
    assert len(requests) < 8, requests


def test_refusals_for_rate_are_counted(make_service: MakeService, connect: Connect) -> None:
    client = connect(make_service(jobs_per_minute=2, engine=FakeEngine(step_seconds=0.001, size=4)))
    statuses = [client.post("/api/v1/jobs", json=order()).status_code for _ in range(10)]
    assert statuses.count(429) >= 1
    limited = sum(
        v for (name, _), v in figures(client).items() if name == "izograf_rate_limited_total"
    )
    assert limited == statuses.count(429)


def test_metrics_answer_while_the_store_is_away(
    make_service: MakeService, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    client = connect(service)

    def away() -> dict[Status, int]:
        raise StoreUnavailable("away")

    monkeypatch.setattr(service.store.jobs, "count_by_status", away)
    found = figures(client)
    assert found["izograf_store_up", ()] == 0
    assert ("izograf_queue_length", ()) not in found


def test_metrics_need_a_role_where_people_log_in(
    make_service: MakeService, connect: Connect
) -> None:
    client = connect(make_service(login="always"))
    assert client.get("/metrics").status_code == 401
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
