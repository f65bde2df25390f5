"""`/api/v1/events`: several jobs in one stream, and why pages need it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from api_support import assert_problem, key_of, submit
from fastapi.testclient import TestClient
from pages_support import browser, chromium
from web_support import MakeService, wait_until_ended

from izograf.engine.fake import FakeEngine
from izograf.service.app import create_app
from izograf.store.accounts import Role

UNKNOWN = "job_" + "0" * 26


def follow(client: TestClient, *positions: str) -> list[tuple[str, str, int]]:
    """(job, kind, number) of everything in the stream; number 0 where there is none."""
    response = client.get("/api/v1/events", params={"job": list(positions)})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "data" in fields:
            job = json.loads(fields["data"])["job"]
            found.append((job, fields["event"], int(fields.get("id", 0))))
    return found


def test_each_event_of_each_job_comes_once_and_in_order(client: TestClient) -> None:
    jobs = [submit(client, seed=seed)["id"] for seed in range(3)]
    found = follow(client, *jobs)
    for job_id in jobs:
        own = [(kind, number) for job, kind, number in found if job == job_id]
        assert [number for _, number in own] == list(range(1, len(own) + 1))
        assert (own[0][0], own[-1][0]) == ("queued", "done")


def test_each_job_goes_on_after_its_own_number_and_unknown_ones_are_gone(
    client: TestClient,
) -> None:
    jobs = [submit(client, seed=seed)["id"] for seed in range(2)]
    for job_id in jobs:
        wait_until_ended(client, job_id)
    everything = follow(client, *jobs)
    assert follow(client, f"{jobs[0]}:2", UNKNOWN, f"{jobs[1]}:999999999") == [
        (UNKNOWN, "gone", 0),
        *[event for event in everything if event[0] == jobs[0] and event[2] > 2],
    ]


def test_the_jobs_of_others_are_not_to_be_followed(make_service: MakeService) -> None:
    service = make_service(login="always")
    ann, bob = key_of(service, "ann"), key_of(service, "bob")
    admin = key_of(service, "root", Role.ADMIN)
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        client.headers["authorization"] = f"Bearer {ann}"
        job_id = submit(client)["id"]
        wait_until_ended(client, job_id)
        seen = follow(client, job_id)
        client.headers["authorization"] = f"Bearer {bob}"
        assert follow(client, job_id) == [(job_id, "gone", 0)]
        client.headers["authorization"] = f"Bearer {admin}"
        assert follow(client, job_id) == seen


@pytest.mark.parametrize("jobs", [["x"], ["job_a:"], ["job_a:1:2"], ["job_/.."], []])
def test_what_is_no_position_is_refused(client: TestClient, jobs: list[str]) -> None:
    response = client.get("/api/v1/events", params={"job": jobs})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


def test_too_many_jobs_are_refused(client: TestClient) -> None:
    response = client.get("/api/v1/events", params={"job": [UNKNOWN] * 51})
    assert_problem(response, 422, "invalid_input")


def test_a_page_with_many_waiting_jobs_leaves_the_browser_free(make_service: MakeService) -> None:
    """A browser opens six connections to a host; a stream for each of ten jobs would take all."""
    service = make_service(engine=FakeEngine(num_workers=1, step_seconds=0.2))
    with browser(service) as page:
        for seed in range(10):
            submit(page, seed=seed, options={"num_inference_steps": 200})
    with chromium(service) as page:
        page.goto("/")
        page.wait_for_selector("iz-job [data-film] li")  # it is followed
        streams: list[Any] = []
        page.on("request", lambda request: streams.append(request.url))
        page.goto("/queue", wait_until="load")
        page.goto("/", wait_until="load")
        page.wait_for_selector("iz-job progress")
        page.wait_for_timeout(300)
    assert sum("/api/v1/events" in url for url in streams) == 1
