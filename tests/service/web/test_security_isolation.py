"""Nobody but an administrator sees, changes or deletes what belongs to somebody else."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from security_support import NOTHING, OPEN_SETTINGS, add_people, client_of, filled, paths_of
from web_support import wait_until_ended

from izograf.service.app import create_app
from izograf.service.context import Service

ORDER = {"model": "scenes", "condition": {"type": "class", "class": "mountain"}, "seed": 7}


class House:
    """A service in which Anna made a picture and put it into a collection."""

    def __init__(self, app: FastAPI, service: Service, keys: dict[str, str]) -> None:
        self.app, self.service, self.keys = app, service, keys
        with client_of(app, keys["anna"]) as anna:
            job = anna.post("/api/v1/jobs", json=ORDER).json()["id"]
            wait_until_ended(anna, job)
            image = anna.get("/api/v1/images").json()["items"][0]["id"]
            made = anna.post("/api/v1/collections", json={"name": "Mine"})
            assert made.status_code == 201, made.text
            collection = made.json()["id"]
            anna.post(f"/api/v1/collections/{collection}/images", json={"ids": [image]})
        self.ids = {"job_id": job, "image_id": image, "collection_id": collection}

    def facts(self) -> list[Any]:
        """Everything of Anna's that somebody could have changed."""
        store, owner = self.service.store, self.service.store.accounts.find_user("anna").id
        jobs = store.jobs.list_jobs(owner=owner).items
        images = [store.images.get(image.id) for image in store.images.list_images().items]
        collections = store.collections.list_collections(owner).items
        return [*jobs, *images, *collections, len(store.accounts.list_keys(owner))]


@pytest.fixture
def house(make_service: Any) -> House:
    service = make_service(**OPEN_SETTINGS)
    return House(create_app(service), service, add_people(service))


def test_every_route_about_one_thing_answers_others_as_if_it_did_not_exist(house: House) -> None:
    before, checked = house.facts(), 0
    templates = [(p, m) for p, m, _ in paths_of(house.app) if any(f"{{{i}" in p for i in house.ids)]
    assert len(templates) >= 10
    with client_of(house.app, house.keys["boris"]) as boris:
        for template, methods in templates:
            for method in methods - {"HEAD", "OPTIONS"}:
                theirs = send(boris, method, filled(template, NOTHING | house.ids))
                nobodys = send(boris, method, filled(template))
                assert theirs.status_code == nobodys.status_code, (method, template)
                assert theirs.status_code in (404, 422), (method, template, theirs.status_code)
                checked += theirs.status_code == 404
    assert checked >= 10
    assert house.facts() == before


def send(client: TestClient, method: str, path: str) -> Any:
    """A request with a body that most routes accept."""
    if method in ("PATCH", "PUT"):
        body = {"favourite": True} if "/images/" in path else {"name": "Yours"}
        return client.request(method, path, json=body)
    if method == "POST" and path.startswith("/api/") and "/collections/" in path:
        return client.post(path, json={"ids": [NOTHING["image_id"]]})
    return client.request(method, path)


def test_the_owner_and_an_administrator_reach_the_same_things(house: House) -> None:
    for name in ("anna", "adam"):
        with client_of(house.app, house.keys[name]) as client:
            for path in ("/jobs/{job_id}", "/jobs/{job_id}/events", "/images/{image_id}",
                         "/images/{image_id}/file"):  # fmt: skip
                answer = client.get("/api/v1" + filled(path, house.ids))
                assert answer.status_code == 200, (name, path)


def test_lists_hold_ones_own_things_only(house: House) -> None:
    paths = ("/api/v1/jobs", "/api/v1/images", "/api/v1/collections")
    counts = {}
    for name in ("anna", "boris", "vera", "adam"):
        with client_of(house.app, house.keys[name]) as client:
            counts[name] = [len(client.get(path).json()["items"]) for path in paths]
    assert counts["anna"] == [1, 1, 1]
    assert counts["boris"] == counts["vera"] == [0, 0, 0]
    assert counts["adam"][:2] == [1, 1]


def test_filters_and_searches_do_not_lead_to_others_things(house: House) -> None:
    anna = house.service.store.accounts.find_user("anna").id
    with client_of(house.app, house.keys["boris"]) as boris:
        for query in (f"owner={anna}", "q=mountain", "label=mountain", "deleted=true",
                      f"job_id={house.ids['job_id']}",
                      f"collection={house.ids['collection_id']}"):  # fmt: skip
            answer = boris.get(f"/api/v1/images?{query}")
            assert answer.status_code in (403, 404, 422) or not answer.json()["items"], query
        answer = boris.get(f"/api/v1/jobs?owner={anna}")
        assert answer.status_code in (403, 404, 422) or not answer.json()["items"]


def test_many_at_once_are_not_a_way_around(house: House) -> None:
    before, image = house.facts(), house.ids["image_id"]
    with client_of(house.app, house.keys["boris"]) as boris:
        for path in ("/api/v1/images/delete", "/api/v1/images/restore"):
            answer = boris.post(path, json={"ids": [image]})
            assert answer.json().get("count", 0) == 0, path
        answer = boris.get(f"/api/v1/images/zip?id={image}")
        assert answer.status_code == 404, answer.status_code
        mine = boris.post("/api/v1/collections", json={"name": "Other"}).json()["id"]
        boris.post(f"/api/v1/collections/{mine}/images", json={"ids": [image]})
        assert not boris.get(f"/api/v1/images?collection={mine}").json()["items"]
        boris.post("/gallery/selection", data={"action": "delete", "id": image})
    assert house.facts() == before


def test_an_idempotency_key_is_ones_own(house: House) -> None:
    jobs = set()
    for name in ("anna", "boris"):
        with client_of(house.app, house.keys[name]) as client:
            answer = client.post("/api/v1/jobs", json=ORDER, headers={"idempotency-key": "same"})
            jobs.add(answer.json()["id"])
    assert len(jobs) == 2


def test_what_an_administrator_does_to_others_things_is_noted_without_their_words(
    house: House,
) -> None:
    with client_of(house.app, house.keys["anna"]) as anna:
        job = anna.post("/api/v1/jobs", json=ORDER | {"num_images": 60}).json()["id"]
    with client_of(house.app, house.keys["adam"]) as adam:
        if adam.delete(f"/api/v1/jobs/{job}").json()["status"] != "cancelled":
            pytest.skip("the job was quicker than its cancellation")
        log = adam.get("/api/v1/audit")
    assert ("adam", "job.cancel", job) in [
        (entry["actor"], entry["action"], entry["subject"]) for entry in log.json()["items"]
    ]
    assert "mountain" not in log.text


def test_what_an_administrator_deletes_of_others_is_noted_as_a_number(house: House) -> None:
    image = house.ids["image_id"]
    with client_of(house.app, house.keys["anna"]) as anna:
        assert anna.delete(f"/api/v1/images/{image}").status_code == 204
        anna.post("/api/v1/images/restore", json={"ids": [image]})
    with client_of(house.app, house.keys["adam"]) as adam:
        assert adam.get("/api/v1/audit").json()["items"] == [], "one's own need no note"
        assert adam.post("/api/v1/images/delete", json={"ids": [image]}).json()["count"] == 1
        (entry,) = adam.get("/api/v1/audit").json()["items"]
    owner = house.service.store.accounts.find_user("anna").id
    assert (entry["actor"], entry["action"], entry["subject"]) == ("adam", "image.delete", owner)
    assert entry["facts"] == {"count": 1}
