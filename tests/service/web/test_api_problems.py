"""P8: whatever is sent, the answer is a problem document with a stable code, never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_support import assert_problem, order
from fastapi.testclient import TestClient
from web_support import MakeService

from izograf.schema.errors import QueueFull, StoreUnavailable
from izograf.service import problems
from izograf.service.app import create_app
from izograf.service.context import Service
from izograf.service.limits import TooManyRequests

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def frail_client(service: Service) -> Iterator[TestClient]:
    """Shows the answer to an unexpected error instead of raising it."""
    app = create_app(service)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    "content",
    [
        b"{", b"", b"null", b"[]", b"7", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"NaN",
        b'{"model": NaN}', b"[" * 100_000, b'{"model":' * 50_000, b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"model": "scenes", "seed": 1e999}', b'{"model": "scenes", "seed": ' + b"9" * 400 + b"}",
        b'{"model": "\\u0000"}', b'{"model": "\\ud800"}', b'{"model": "scenes", "\\ud800": 1}',
        b'{"model": "scenes", "options": {"\\ud800": 1}}',
        b'{"model": "scenes", "options": {"\\u0000": "\\ud800"}}',
        b'{"model": "scenes", "options": {"guidance_scale": NaN}}',
        b'{"model": "scenes", "options": {"guidance_scale": -Infinity}}',
        b'{"model": "scenes", "options": {"num_inference_steps": ' + b"9" * 400 + b"}}",
        b'{"model": "scenes", "options": {"sampler": null}}',
        b'{"model": "scenes", "condition": {"type": "class", "class": "\\ud800"}}',
        b'{"model": "scenes", "condition": {"type": "class", "class": "' + b"x" * 900_000 + b'"}}',
        b'{"model": "scenes", "condition": null}', b'{"model": "scenes", "towards": {"class": 7}}',
        b'{"model": "scenes", "num_images": -0}', b'{"model": "' + b"a" * 900_000 + b'"}',
    ],
    ids=lambda content: content[:40].decode("latin-1").encode("unicode_escape").decode(),
)  # fmt: skip
def test_p8_a_bad_body_is_a_problem(client: TestClient, content: bytes) -> None:
    response = client.post("/api/v1/jobs", content=content, headers=JSON)
    assert response.status_code in (400, 404, 422), response.text
    assert_problem(response, response.status_code, response.json()["code"])
    assert len(response.text) < 5000
    assert client.get("/api/v1/jobs").json()["items"] == []


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", ""])
def test_a_body_of_another_kind_is_refused(client: TestClient, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = client.post("/api/v1/jobs", content=b'{"model": "scenes"}', headers=headers)
    assert "application/json" in assert_problem(response, 415, "unsupported_media_type")
    also_json = {"Content-Type": "application/vnd.api+json; charset=utf-8"}
    accepted = client.post("/api/v1/jobs", content=b'{"model": "scenes"}', headers=also_json)
    assert accepted.status_code == 202


def test_a_large_body_is_refused(client: TestClient) -> None:
    response = client.post("/api/v1/jobs", content=b" " * (2 << 20), headers=JSON)
    assert_problem(response, 413, "content_too_large")


def test_what_is_not_there_is_said_so(client: TestClient) -> None:
    for path in ("/api/v1/nothing", "/api/v2/jobs", "/api/", "/api/v1/jobs/x/y/z", "/nothing"):
        assert_problem(client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/jobs", "GET, POST"), ("POST", "/api/v1/status", "GET"),
        ("PUT", "/api/v1/images/img_x", "DELETE, GET, PATCH"),
        ("PATCH", "/api/v1/models/scenes", "GET"),
    ],
)  # fmt: skip
def test_a_method_that_is_not_possible_names_those_that_are(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    assert method in assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed


def test_an_error_of_ours_shows_no_traceback(
    frail_client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> Any:
        raise RuntimeError("a secret path: /srv/izograf")

    monkeypatch.setattr(service.store.jobs, "list_jobs", broken)
    response = frail_client.get("/api/v1/jobs")
    assert "secret" not in assert_problem(response, 500, "internal_error")
    assert "RuntimeError" not in response.text


def test_p13_a_store_that_is_away_is_said_so(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("The database is locked by another program.")

    monkeypatch.setattr(service.store.jobs, "submit", away)
    response = client.post("/api/v1/jobs", json=order())
    assert "locked" in assert_problem(response, 503, "store_unavailable")
    assert response.headers["retry-after"] == "10"


def test_too_many_jobs_are_told_when_to_come_again(make_service: MakeService) -> None:
    service = make_service(jobs_per_minute=2)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        answers = [client.post("/api/v1/jobs", json=order()) for _ in range(4)]
        assert [answer.status_code for answer in answers[:2]] == [202, 202]
        assert answers[-1].headers["content-type"] == "application/problem+json"
        assert (answers[-1].status_code, int(answers[-1].headers["retry-after"]) > 0) == (429, True)
        theirs = client.post("/v1/images/generations", json={"prompt": "sea"})
        assert theirs.json()["error"]["type"] == "rate_limit_error"


def test_a_hundred_jobs_a_minute_are_admitted(client: TestClient) -> None:
    statuses = {client.post("/api/v1/jobs", json=order(seed=n)).status_code for n in range(100)}
    assert statuses == {202}


def test_the_wait_is_what_the_limit_says() -> None:
    assert problems.problem_of(TooManyRequests("Slowly.", 31.2)).headers["retry-after"] == "32"
    assert problems.problem_of(QueueFull("Full.")).headers["retry-after"] == "10"


def test_texts_that_nothing_can_encode_are_cleaned() -> None:
    for form in (problems.problem, problems.openai_error):
        body = form(422, "invalid_input", "\ud800\0" + "x" * 5000).body
        assert len(body) < 1500
        assert "\N{REPLACEMENT CHARACTER}" in bytes(body).decode()


def test_codes_are_the_errors_names() -> None:
    assert problems.code_of(QueueFull("")) == "queue_full"
    assert [problems.http_code(s) for s in (405, 413, 415, 422, 503)] == [
        "method_not_allowed", "content_too_large", "unsupported_media_type", "invalid_input",
        "service_unavailable",
    ]  # fmt: skip
