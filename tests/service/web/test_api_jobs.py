"""`/api/v1/jobs`: the contract of every route, and what it refuses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from api_support import MOUNTAIN, always, assert_problem, key_of, made, order, submit
from fastapi.testclient import TestClient
from web_support import MakeService, wait_until_ended

from izograf.engine.fake import FakeEngine
from izograf.service.app import create_app
from izograf.service.context import Service
from izograf.store.accounts import Role

SLOW = {"step_seconds": 0.2, "preview_seconds": 0.1}


@pytest.fixture
def slow_client(make_service: MakeService) -> Any:
    """A service whose jobs take a second, one after another."""
    service = make_service(engine=FakeEngine(**SLOW))
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000") as client:
        yield client


def test_a_job_is_accepted_and_its_pictures_come(client: TestClient) -> None:
    response = client.post(
        "/api/v1/jobs",
        json={
            "task": "generate", "model": "scenes", "condition": MOUNTAIN, "num_images": 4,
            "seed": 7, "options": {"num_inference_steps": 18},
        },
    )  # fmt: skip
    job = response.json()
    assert (response.status_code, job["status"]) == (202, "queued")
    assert response.headers["location"] == f"/api/v1/jobs/{job['id']}" == job["links"]["self"]
    assert job["options"]["sampler"], "every option is explicit"
    done = wait_until_ended(client, job["id"])
    assert (done["status"], done["attempt"], done["reason"]) == ("done", 1, None)
    assert [image["seed"] for image in done["images"]] == [7, 8, 9, 10]
    assert client.get(done["images"][0]["url"]).headers["content-type"] == "image/png"
    assert len(client.get(done["links"]["images"]).json()["items"]) == 4


def test_a_class_is_found_by_its_russian_name(client: TestClient) -> None:
    job = submit(client, condition={"type": "class", "class": "горы"})
    assert job["condition"] == MOUNTAIN


def test_without_a_seed_one_is_chosen(client: TestClient) -> None:
    body = {"model": "scenes"}
    seeds = {client.post("/api/v1/jobs", json=body).json()["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_a_strip_leads_to_another_seed_and_class(client: TestClient) -> None:
    towards = {"seed": 99, "class": "море"}
    job = submit(client, num_images=3, towards=towards)
    assert job["towards"] == {"seed": 99, "class": "sea"}
    done = wait_until_ended(client, job["id"])
    assert [image["seed"] for image in done["images"]] == [7, 7, 7]
    assert len({image["sha256"] for image in done["images"]}) == 3


@pytest.mark.parametrize(
    ("changes", "status", "names"),
    [
        ({"model": "nothing"}, 404, "nothing"),
        ({"model": "../../etc/passwd"}, 404, "Unknown model"),
        ({"model": "scenes-judge"}, 422, "makes no pictures"),
        ({"condition": {"type": "class", "class": "dog"}}, 404, "dog"),
        ({"condition": {"type": "text", "text": "a dog"}}, 422, "condition"),
        ({"condition": {"type": "class"}}, 422, "class"),
        ({"num_images": 0}, 422, "num_images"),
        ({"num_images": 65}, 422, "64"),
        ({"num_images": "2"}, 422, "num_images"),
        ({"num_images": True}, 422, "num_images"),
        ({"seed": -1}, 422, "seed"),
        ({"seed": 2**63}, 422, "seed"),
        ({"seed": 2**63 - 1}, 422, "seed"),
        ({"options": {"sampler": "magic"}}, 422, "sampler"),
        ({"options": {"num_inference_steps": 0}}, 422, "num_inference_steps"),
        ({"options": {"wings": 2}}, 422, "wings"),
        ({"options": {"sampler": ["heun"]}}, 422, "options"),
        ({"towards": {}}, 422, "towards"),
        ({"towards": {"seed": 8}, "num_images": 1}, 422, "strip"),
        ({"towards": {"wings": 8}}, 422, "towards"),
        ({"task": "verify"}, 422, "task"),
        ({"priority": 100}, 422, "priority"),
    ],
)  # fmt: skip
def test_a_wrong_order_is_refused_with_a_sentence(
    client: TestClient, changes: dict[str, Any], status: int, names: str
) -> None:
    code = "not_found" if status == 404 else "invalid_input"
    detail = assert_problem(client.post("/api/v1/jobs", json=order(**changes)), status, code)
    assert names in detail
    assert client.get("/api/v1/jobs").json()["items"] == []


def test_the_same_key_and_body_give_the_same_job(client: TestClient) -> None:
    def post(key: str, **changes: Any) -> Any:
        body = order(**changes)
        return client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": key})

    first, again = post("a"), post("a")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"] != post("b").json()["id"]
    assert "another request" in assert_problem(post("a", seed=8), 409, "conflict")
    assert_problem(post("x" * 256), 422, "invalid_input")


def test_a_repeated_order_without_a_seed_is_the_same_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    jobs = [client.post("/api/v1/jobs", json={"model": "scenes"}, headers=headers) for _ in "12"]
    assert jobs[0].json()["id"] == jobs[1].json()["id"]


def test_the_list_goes_back_page_by_page(client: TestClient) -> None:
    made_ids = [submit(client, seed=seed)["id"] for seed in range(5)]
    found, cursor = [], None
    while True:
        parameters = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/api/v1/jobs", params=parameters).json()
        found += [job["id"] for job in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == made_ids[::-1]


def test_the_list_is_filtered(client: TestClient) -> None:
    done = wait_until_ended(client, submit(client)["id"])
    for parameters, number in (
        ({"status": "done"}, 1), ({"status": "queued"}, 0), ({"model": "scenes"}, 1),
        ({"model": "other"}, 0), ({"owner": done["owner"]}, 1), ({"owner": "nobody"}, 0),
    ):  # fmt: skip
        assert len(client.get("/api/v1/jobs", params=parameters).json()["items"]) == number


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "cursor=x", "status=lost", "model=%00", "owner=%00"],
)
def test_a_wrong_list_is_refused(client: TestClient, query: str) -> None:
    assert_problem(client.get(f"/api/v1/jobs?{query}"), 422, "invalid_input")


@pytest.mark.parametrize(
    "job_id",
    ["x", "job_0", "img_" + "0" * 26, "job_" + "0" * 26, "job_" + "Ж" * 26, "%00", "..%2f.."],
)
def test_what_is_no_job_is_not_found(client: TestClient, job_id: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/retry"), ("GET", "/events")):
        assert_problem(client.request(method, f"/api/v1/jobs/{job_id}{path}"), 404, "not_found")


def test_a_waiting_job_knows_its_place(slow_client: TestClient) -> None:
    jobs = [submit(slow_client, seed=seed)["id"] for seed in range(6)]
    waiting = [slow_client.get(f"/api/v1/jobs/{job_id}").json() for job_id in jobs]
    places = [job["queue_position"] for job in waiting if job["status"] == "queued"]
    assert len(places) >= 3
    # while we ask one after the other, those before may begin
    assert places[0] == 1
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(places))
    assert all(job["images"] is None for job in waiting if job["status"] == "queued")


def test_p4_a_cancelled_job_stays_cancelled(slow_client: TestClient) -> None:
    job = submit(slow_client)
    cancelled = slow_client.delete(f"/api/v1/jobs/{job['id']}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert slow_client.delete(f"/api/v1/jobs/{job['id']}").json() == cancelled.json()
    assert slow_client.get(job["links"]["images"]).json()["items"] == []


def test_an_ended_job_is_done_again_as_a_new_one(client: TestClient) -> None:
    first = wait_until_ended(client, submit(client, options={"guidance_scale": 3})["id"])
    response = client.post(f"/api/v1/jobs/{first['id']}/retry")
    second = wait_until_ended(client, response.json()["id"])
    assert response.status_code == 202
    assert response.headers["location"].endswith(second["id"])
    assert second["id"] != first["id"]
    same = ("task", "model", "condition", "num_images", "seed", "options")
    assert [second[key] for key in same] == [first[key] for key in same]
    assert [i["sha256"] for i in second["images"]] == [i["sha256"] for i in first["images"]]


def test_a_job_that_goes_on_is_not_retried(slow_client: TestClient) -> None:
    job = submit(slow_client)
    detail = assert_problem(slow_client.post(f"/api/v1/jobs/{job['id']}/retry"), 409, "conflict")
    assert "still" in detail


def test_a_failed_job_says_why(make_service: MakeService) -> None:
    engine = FakeEngine(step_seconds=0.001, faults=always("oom", 2))
    with TestClient(create_app(make_service(engine=engine)), base_url="http://localhost") as client:
        job = wait_until_ended(client, submit(client)["id"])
        assert job["status"] == "failed"
        assert "memory" in job["reason"]
        assert client.post(f"/api/v1/jobs/{job['id']}/retry").status_code == 202


def test_p2_a_job_that_kills_its_workers_is_dead(make_service: MakeService) -> None:
    engine = FakeEngine(step_seconds=0.001, faults=always("crash"))
    with TestClient(create_app(make_service(engine=engine)), base_url="http://localhost") as client:
        job = wait_until_ended(client, submit(client)["id"])
        assert (job["status"], job["attempt"]) == ("dead", 3)
        events = client.get(job["links"]["events"]).text
        assert events.count("event: retried") == 2
        assert events.rstrip().splitlines()[-2] == "event: dead"


def test_a_full_queue_says_when_to_come_again(make_service: MakeService) -> None:
    service = make_service(engine=FakeEngine(step_seconds=60), max_queued_per_owner=2)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        first = client.post("/api/v1/jobs", json=order())
        assert first.status_code == 202
        for _ in range(50):  # the engine takes up some, as fast as it gets round to it
            answer = client.post("/api/v1/jobs", json=order())
            if answer.status_code != 202:
                break
        assert_problem(answer, 429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0


def test_others_see_nothing_of_a_job(make_service: MakeService) -> None:
    service = make_service(login="always")
    with TestClient(create_app(service), base_url="http://localhost") as client:
        keys = {name: key_of(service, name) for name in ("ann", "ben")}
        keys["root"] = key_of(service, "root", Role.ADMIN)
        keys["guest"] = key_of(service, "guest", Role.VIEWER)

        def ask(name: str, method: str, url: str, **more: Any) -> Any:
            headers = {"Authorization": f"Bearer {keys[name]}"}
            return client.request(method, url, headers=headers, **more)

        job = ask("ann", "POST", "/api/v1/jobs", json=order()).json()
        url = job["links"]["self"]
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/retry"), ("GET", "/events")):
            assert_problem(ask("ben", method, url + path), 404, "not_found")
        assert ask("ben", "GET", "/api/v1/jobs").json()["items"] == []
        assert_problem(ask("ben", "GET", f"/api/v1/jobs?owner={job['owner']}"), 403, "forbidden")
        assert ask("ann", "GET", f"/api/v1/jobs?owner={job['owner']}").json()["items"]
        assert ask("root", "GET", f"/api/v1/jobs?owner={job['owner']}").json()["items"]
        assert ask("root", "GET", url).status_code == 200
        assert_problem(ask("guest", "POST", "/api/v1/jobs", json=order()), 403, "forbidden")
        assert_problem(client.get("/api/v1/jobs"), 401, "unauthorised")


def test_cancelling_what_is_another_s_is_on_record(make_service: MakeService) -> None:
    service: Service = make_service(login="always", engine=FakeEngine(**SLOW))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        ann, root = key_of(service, "ann"), key_of(service, "root", Role.ADMIN)
        headers = {"Authorization": f"Bearer {ann}"}
        job = client.post("/api/v1/jobs", json=order(), headers=headers).json()
        client.delete(job["links"]["self"], headers={"Authorization": f"Bearer {root}"})
        found = [
            (entry.actor, entry.action, entry.subject) for entry in service.store.audit.entries()
        ]
        assert ("root", "job.cancel", job["id"]) in found


def test_pictures_of_a_job_come_by_seed(client: TestClient) -> None:
    assert [image["seed"] for image in made(client, num_images=5, seed=100)] == [*range(100, 105)]
