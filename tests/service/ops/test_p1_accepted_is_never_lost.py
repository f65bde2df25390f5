"""P1 and P2 with the real program: killed after an answer, killed in the middle of twenty jobs."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from ops_support import Process, wait_for

from izograf.schema.job import EventKind, Status
from izograf.store.open import open_store

ROUNDS, JOBS = 4, 20


def test_p1_a_job_answered_with_202_survives_a_kill(tmp_path: Path, url: str | None) -> None:
    accepted: list[str] = []
    for turn in range(ROUNDS):
        with Process(tmp_path, engine="fake", database_url=url) as service:
            accepted += [service.submit(10 * turn + n)["id"] for n in range(1 + turn)]
            service.kill()
    store = open_store(tmp_path / "data", url)
    found = {job.id: job for job in store.jobs.list_jobs(limit=200).items}
    store.close()
    assert set(found) == set(accepted)
    assert not [job for job in found.values() if job.status in (Status.FAILED, Status.DEAD)]


def test_p2_twenty_jobs_survive_a_kill_of_the_service_and_finish_once(
    tmp_path: Path, url: str | None
) -> None:
    step = {"OPS_STEP": "0.02"}
    with Process(tmp_path, database_url=url, environment=step) as service:
        accepted = [service.submit(n, num_images=2, steps=5)["id"] for n in range(JOBS)]
        wait_for(lambda: service.job(accepted[4])["status"] == "done")
        service.kill()
    _check_midst(tmp_path, url, accepted)
    with Process(tmp_path, database_url=url, environment=step) as service:
        assert Counter(service.wait(accepted)) == {"done": JOBS}
        assert service.stop() == 0
    _check_once(tmp_path, url, accepted, num_images=2)


@pytest.mark.slow
def test_p2_twenty_real_jobs_survive_kills_of_workers_and_of_the_service(tmp_path: Path) -> None:
    with Process(tmp_path, engine="local") as service:
        accepted = [service.submit(n, steps=4)["id"] for n in range(JOBS)]
        for number in (2, 5):
            wait_for(lambda: service.job(accepted[number])["status"] == "done", seconds=240)  # noqa: B023
            assert "torch" not in service.maps(), "a worker's message brought it along"
            for child in service.children():
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        wait_for(lambda: service.job(accepted[8])["status"] == "done", seconds=240)
        service.kill()
    _check_midst(tmp_path, None, accepted)
    with Process(tmp_path, engine="local") as service:
        assert Counter(service.wait(accepted)) == {"done": JOBS}
        assert service.stop() == 0
    _check_once(tmp_path, None, accepted, num_images=1)


def _check_midst(folder: Path, url: str | None, accepted: Sequence[str]) -> None:
    """The kill came neither before nor after the jobs, or the test shows nothing."""
    store = open_store(folder / "data", url)
    counted = store.jobs.count_by_status()
    store.close()
    assert sum(counted.values()) == len(accepted)
    assert counted[Status.DONE] >= 5
    assert counted[Status.QUEUED] + counted[Status.RUNNING] >= 5


def _check_once(folder: Path, url: str | None, accepted: Sequence[str], *, num_images: int) -> None:
    store = open_store(folder / "data", url)
    try:
        for job_id in accepted:
            events = store.jobs.events_after(job_id)
            assert [event.number for event in events] == list(range(1, len(events) + 1))
            assert [event.kind for event in events].count(EventKind.DONE) == 1
            pictures = store.images.of_job(job_id)
            assert len({picture.seed for picture in pictures}) == len(pictures) == num_images
            for picture in pictures:
                assert store.images.read_png(picture.id).startswith(b"\x89PNG")
    finally:
        store.close()
