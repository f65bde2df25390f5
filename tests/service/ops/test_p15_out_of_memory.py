"""P15 as a client sees it: a job too large for the machine fails alone, and says what to do."""

from __future__ import annotations

from collections.abc import Callable

from fastapi.testclient import TestClient
from ops_support import MakeService, order, wait_for

from izograf.engine.fake import FakeEngine, Fault
from izograf.schema.job import Job
from izograf.service.context import Service

TOO_LARGE = 3  # the seed of the job that does not fit


def faults(job: Job, attempt: int) -> Fault | None:  # noqa: ARG001
    return Fault("oom", step=1) if job.request.seed == TOO_LARGE else None


def test_p15_neighbours_of_a_job_that_runs_out_of_memory_are_done(
    make_service: MakeService, connect: Callable[[Service], TestClient], url: str | None
) -> None:
    engine = FakeEngine(step_seconds=0.005, num_workers=2, size=16, faults=faults)
    client = connect(make_service(engine=engine, database_url=url))
    accepted = [client.post("/api/v1/jobs", json=order(seed)).json()["id"] for seed in range(8)]

    def jobs() -> list[dict[str, object]]:
        return [client.get(f"/api/v1/jobs/{job_id}").json() for job_id in accepted]

    wait_for(lambda: all(job["status"] not in ("queued", "running") for job in jobs()))
    ended = jobs()
    failed = ended.pop(TOO_LARGE)
    assert {job["status"] for job in ended} == {"done"}
    assert {job["attempt"] for job in ended} == {1}
    assert (failed["status"], failed["attempt"]) == ("failed", 1)
    assert "memory" in str(failed["reason"])
    assert client.get("/readyz").status_code == 200
