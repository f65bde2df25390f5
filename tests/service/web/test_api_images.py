"""`/api/v1/images` and `/api/v1/collections`: the gallery as programs see it."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import zipfile
from typing import Any

import pytest
from api_support import assert_problem, key_of, made
from fastapi.testclient import TestClient
from web_support import MakeService, wait_until_ended

from izograf.engine.fake import ENERGY_METHOD, WATTS
from izograf.schema.job import StoredImage
from izograf.service.api.archive import file_stem, zipped
from izograf.service.api.images import disposition, matches
from izograf.service.app import create_app
from izograf.service.context import Service

NOWHERE = "img_" + "0" * 26
WRONG_IDS = ["x", NOWHERE, "job_" + "0" * 26, "%00", "..%2f..%2fetc%2fpasswd"]


def picture(label: str = "mountain", seed: int = 7) -> StoredImage:
    return StoredImage(
        NOWHERE, "job_" + "0" * 26, "ann", "scenes", label, seed, 64, 64, "ab" * 32, 0.0, {}
    )


def listed(client: TestClient, **parameters: Any) -> list[str]:
    response = client.get("/api/v1/images", params=parameters)
    assert response.status_code == 200, response.text
    return [image["id"] for image in response.json()["items"]]


def test_a_picture_tells_how_it_was_made(client: TestClient) -> None:
    image = client.get(f"/api/v1/images/{made(client)[1]['id']}").json()
    assert (image["model"], image["label"], image["seed"]) == ("scenes", "mountain", 8)
    assert image["record"]["request"]["seed"] == 7
    assert image["record"]["seed"] == 8
    assert image["seconds"] > 0
    assert image["joules"] == pytest.approx(WATTS * image["seconds"])
    assert image["energy_method"] == ENERGY_METHOD
    job = client.get(f"/api/v1/jobs/{image['job_id']}").json()
    assert job["joules"] == pytest.approx(image["joules"] * job["num_images"])
    assert job["energy_method"] == ENERGY_METHOD


def test_a_picture_s_file_is_what_its_hash_says(client: TestClient) -> None:
    image = made(client)[0]
    response = client.get(image["url"])
    assert hashlib.sha256(response.content).hexdigest() == image["sha256"]
    assert response.headers["content-type"] == "image/png"
    assert response.headers["etag"] == f'"{image["sha256"]}"'
    assert "immutable" in response.headers["cache-control"]
    assert "private" in response.headers["cache-control"]
    assert response.headers["content-disposition"].startswith("inline")
    saved = client.get(image["url"], params={"download": 1}).headers["content-disposition"]
    assert saved == 'attachment; filename="mountain-7.png"'


def test_a_picture_is_sent_once(client: TestClient) -> None:
    image = made(client)[0]
    for tag in (f'"{image["sha256"]}"', f'W/"{image["sha256"]}"', f'"x", "{image["sha256"]}"', "*"):
        again = client.get(image["url"], headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b""), tag
        assert again.headers["etag"] == f'"{image["sha256"]}"'
    assert not matches("ab" * 32, '"cd"')


@pytest.mark.parametrize(
    ("label", "stem"),
    [
        ("mountain", "mountain-7"), ("../../etc/passwd", "______etc_passwd-7"), ("", "image-7"),
        ('a"b\r\nc', "a_b__c-7"), ("горы", "горы-7"), ("x" * 500, "x" * 80 + "-7"),
    ],
)  # fmt: skip
def test_p10_a_file_name_is_only_a_name(label: str, stem: str) -> None:
    assert file_stem(picture(label)) == stem
    header = disposition(picture(label), download=True)
    header.encode("ascii")
    assert not set(header) & set("\r\n/\\")


@pytest.mark.parametrize("query", ["горы", "mountains", "Гора", "SCENES mountain", "7", "горах 7"])
def test_a_search_finds_a_class_in_either_language(client: TestClient, query: str) -> None:
    wanted = [image["id"] for image in made(client)]
    made(client, condition={"type": "class", "class": "sea"}, seed=500)
    found = listed(client, q=query)
    assert found
    assert set(found) <= set(wanted)


def test_the_gallery_is_filtered(client: TestClient) -> None:
    mountains = [image["id"] for image in made(client)]
    seas = [i["id"] for i in made(client, condition={"type": "class", "class": "sea"}, seed=500)]
    client.patch(f"/api/v1/images/{seas[0]}", json={"favourite": True})
    job = client.get(f"/api/v1/images/{seas[0]}").json()["job_id"]
    assert listed(client) == [*seas[::-1], *mountains[::-1]]
    assert listed(client, label="sea") == seas[::-1]
    assert listed(client, model="other") == []
    assert listed(client, favourite=True) == [seas[0]]
    assert len(listed(client, favourite=False)) == 3
    assert listed(client, job=job) == seas[::-1]
    assert listed(client, created_from="2020-01-01") == listed(client)
    assert listed(client, created_from="2120-01-01T00:00:00Z") == []
    assert listed(client, created_before="2020-01-01T00:00:00+03:00") == []
    assert listed(client, q="dog") == []
    first = client.get("/api/v1/images", params={"limit": 3}).json()
    assert listed(client, limit=3, cursor=first["next_cursor"]) == [mountains[0]]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1000", "cursor=x", "created_from=yesterday", "created_from=1e400", "q=%00",
     "favourite=maybe", "model=%00", "q=" + "x" * 300],
)  # fmt: skip
def test_a_wrong_filter_is_refused(client: TestClient, query: str) -> None:
    assert_problem(client.get(f"/api/v1/images?{query}"), 422, "invalid_input")


@pytest.mark.parametrize("image_id", WRONG_IDS)
def test_what_is_no_picture_is_not_found(client: TestClient, image_id: str) -> None:
    url = f"/api/v1/images/{image_id}"
    for method, path in (("GET", ""), ("GET", "/file"), ("DELETE", ""), ("POST", "/restore"),
                         ("POST", "/verify")):  # fmt: skip
        assert_problem(client.request(method, url + path), 404, "not_found")
    assert_problem(client.patch(url, json={"favourite": True}), 404, "not_found")


def test_a_favourite_is_marked_and_not_more(client: TestClient) -> None:
    url = f"/api/v1/images/{made(client)[0]['id']}"
    assert client.patch(url, json={"favourite": True}).json()["favourite"] is True
    assert client.get(url).json()["favourite"] is True
    assert client.patch(url, json={"favourite": False}).json()["favourite"] is False
    assert_problem(client.patch(url, json={"favourite": 1}), 422, "invalid_input")
    assert_problem(client.patch(url, json={"label": "sea"}), 422, "invalid_input")


def test_a_deleted_picture_can_be_restored(client: TestClient) -> None:
    image = made(client)[0]
    url = f"/api/v1/images/{image['id']}"
    for _ in range(2):
        assert client.delete(url).status_code == 204
    assert image["id"] not in listed(client)
    assert listed(client, deleted=True) == [image["id"]]
    assert client.post(f"{url}/restore").json()["id"] == image["id"]
    assert image["id"] in listed(client)


def test_many_are_deleted_and_restored_at_once(client: TestClient) -> None:
    ids = [image["id"] for image in made(client, num_images=4)]
    body = {"ids": [*ids[:3], NOWHERE, "x"]}
    assert client.post("/api/v1/images/delete", json=body).json() == {"count": 3}
    assert client.post("/api/v1/images/delete", json=body).json() == {"count": 0}
    assert listed(client) == [ids[3]]
    assert client.post("/api/v1/images/restore", json=body).json() == {"count": 3}
    for wrong in ({"ids": []}, {"ids": ids[:1] * 201}, {"ids": [1]}, {}, []):
        response = client.post("/api/v1/images/delete", json=wrong)
        assert_problem(response, 422, "invalid_input")


def test_p7_a_picture_is_verified(client: TestClient) -> None:
    for changes in ({"num_images": 3}, {"num_images": 3, "towards": {"seed": 9}}):
        image = made(client, **changes)[1]
        response = client.post(f"/api/v1/images/{image['id']}/verify")
        assert response.status_code == 202, response.text
        job = wait_until_ended(client, response.json()["id"])
        assert response.headers["location"] == job["links"]["self"]
        assert (job["task"], job["status"]) == ("verify", "done")
        assert job["result"]["verdict"] == "bit-exact"
        again = client.post(f"/api/v1/jobs/{job['id']}/retry").json()
        assert wait_until_ended(client, again["id"])["result"]["verdict"] == "bit-exact"


def test_a_zip_holds_the_files(client: TestClient) -> None:
    images = [*made(client), *made(client)]
    parameters = {"id": [image["id"] for image in images]}
    response = client.get("/api/v1/images/zip", params=parameters)
    assert response.headers["content-type"] == "application/zip"
    assert "attachment" in response.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "mountain-7.png", "mountain-8.png", "mountain-7-2.png", "mountain-8-2.png",
        ]  # fmt: skip
        for image, name in zip(images, archive.namelist(), strict=True):
            assert hashlib.sha256(archive.read(name)).hexdigest() == image["sha256"]


def test_a_zip_of_what_is_not_there_is_refused(client: TestClient, service: Service) -> None:
    image = made(client)[0]
    url = "/api/v1/images/zip"
    assert_problem(client.get(url), 422, "invalid_input")
    assert_problem(client.get(url, params={"id": ["x"]}), 404, "not_found")
    assert_problem(client.get(url, params={"id": [image["id"]] * 201}), 422, "invalid_input")
    service.store.files.path(image["sha256"]).unlink()
    assert_problem(client.get(url, params={"id": [image["id"]]}), 507, "storage_error")
    assert_problem(client.get(image["url"]), 507, "storage_error")


def test_a_large_zip_needs_little_memory() -> None:
    file, images = bytes(500_000), [picture(seed=seed) for seed in range(200)]
    tracemalloc.start()
    size = sum(len(chunk) for chunk in zipped(images, lambda _: file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 100_000_000
    assert peak < 3_000_000


def test_others_see_nothing_of_a_picture(make_service: MakeService) -> None:
    service = make_service(login="always")
    with TestClient(create_app(service), base_url="http://localhost") as client:
        ann, ben = ({"Authorization": f"Bearer {key_of(service, n)}"} for n in ("ann", "ben"))
        client.headers.update(ann)
        image, collection = made(client)[0], client.post(
            "/api/v1/collections", json={"name": "mine"}
        ).json()  # fmt: skip
        url = f"/api/v1/images/{image['id']}"
        body = {"ids": [image["id"]]}
        client.headers.update(ben)
        for method, path in (("GET", ""), ("GET", "/file"), ("DELETE", ""), ("POST", "/verify")):
            assert_problem(client.request(method, url + path), 404, "not_found")
        assert_problem(client.get(f"/api/v1/images/zip?id={image['id']}"), 404, "not_found")
        assert client.post("/api/v1/images/delete", json=body).json() == {"count": 0}
        assert listed(client) == listed(client, q="mountain") == []
        its = f"/api/v1/collections/{collection['id']}"
        assert_problem(client.get(its), 404, "not_found")
        assert_problem(client.post(f"{its}/images", json=body), 404, "not_found")
        own = client.post("/api/v1/collections", json={"name": "mine"}).json()
        added = client.post(f"/api/v1/collections/{own['id']}/images", json=body).json()
        assert added["num_images"] == 0
        client.headers.update(ann)
        assert client.get(url).status_code == 200


def test_a_collection_from_beginning_to_end(client: TestClient) -> None:
    ids = [image["id"] for image in made(client, num_images=3)]
    response = client.post("/api/v1/collections", json={"name": " Зима "})
    collection = response.json()
    url = response.headers["location"]
    assert (response.status_code, collection["name"], collection["num_images"]) == (201, "Зима", 0)
    assert client.get(url).json() == collection
    assert client.post(f"{url}/images", json={"ids": ids[:2]}).json()["num_images"] == 2
    assert client.post(f"{url}/images", json={"ids": ids[:2]}).json()["num_images"] == 2
    assert sorted(listed(client, collection=collection["id"])) == sorted(ids[:2])
    assert client.get(collection["images_url"]).json()["items"]
    removed = client.post(f"{url}/images/remove", json={"ids": ids[:1]}).json()
    assert removed["num_images"] == 1
    assert client.patch(url, json={"name": "Winter"}).json()["name"] == "Winter"
    assert [c["name"] for c in client.get("/api/v1/collections").json()["items"]] == ["Winter"]
    assert client.delete(url).status_code == 204
    assert_problem(client.get(url), 404, "not_found")
    assert sorted(listed(client)) == sorted(ids)


def test_a_wrong_collection_is_refused(client: TestClient) -> None:
    one = client.post("/api/v1/collections", json={"name": "one"}).headers["location"]
    client.post("/api/v1/collections", json={"name": "two"})
    taken = client.post("/api/v1/collections", json={"name": "one"})
    assert "one" in assert_problem(taken, 409, "conflict")
    assert_problem(client.patch(one, json={"name": "two"}), 409, "conflict")
    for name in ("", " ", "x" * 201, "a\0b", None, 7):
        response = client.post("/api/v1/collections", json={"name": name})
        assert_problem(response, 422, "invalid_input")
    for wrong in ("x", "col_" + "0" * 26, NOWHERE):
        url = f"/api/v1/collections/{wrong}"
        assert_problem(client.get(url), 404, "not_found")
        assert_problem(client.delete(url), 404, "not_found")
        assert_problem(client.patch(url, json={"name": "three"}), 404, "not_found")
        assert_problem(client.post(f"{url}/images", json={"ids": [NOWHERE]}), 404, "not_found")
