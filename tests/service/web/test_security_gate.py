"""What every request is held to: headers, host, origin, size, how often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from security_support import BASE, HTML, OPEN_SETTINGS, add_people, client_of
from starlette.websockets import WebSocketDisconnect

from izograf.service.app import create_app
from izograf.service.gate import is_submission, request_id
from izograf.service.limits import (
    ATTEMPTS_PER_MINUTE,
    FREE_ATTEMPTS,
    LoginAttempts,
    RateLimit,
    Recent,
    TooManyRequests,
    client_address,
)
from izograf.service.security import host_name, safe_next

FOREIGN = {"sec-fetch-site": "cross-site"}


def app_of(make_service: Any, **settings: Any) -> FastAPI:
    return create_app(make_service(**settings))


@pytest.fixture
def local(make_service: Any) -> Iterator[TestClient]:
    with client_of(app_of(make_service, max_body_bytes=2000, max_upload_bytes=50_000)) as client:
        yield client


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/nothing", "/healthz", "/static/none.js"])
def test_every_answer_carries_the_security_headers(local: TestClient, path: str) -> None:
    headers = local.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert "strict-transport-security" not in headers
    assert headers["x-request-id"]


def test_a_failure_inside_is_told_in_one_sentence_with_the_headers(
    make_service: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service()

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the secret of the house")

    monkeypatch.setattr(type(service.store.jobs), "list_jobs", broken)
    with client_of(create_app(service), raise_server_exceptions=False) as client:
        answer = client.get("/api/v1/jobs")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "content-security-policy" in answer.headers
    assert "the secret of the house" in caplog.text


def test_https_is_insisted_on_only_where_it_is_used(make_service: Any) -> None:
    with client_of(app_of(make_service, secure_cookies=True)) as client:
        assert "max-age" in client.get("/healthz").headers["strict-transport-security"]


def test_a_request_id_is_taken_over_only_if_it_looks_like_one(local: TestClient) -> None:
    given_id = "abc-123._Z"
    assert local.get("/healthz", headers={"x-request-id": given_id}).headers[
        "x-request-id"
    ] == given_id  # fmt: skip
    for bad in ("", "a" * 65, "a b", 'x"y', "<script>"):
        made = local.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"]
        assert made != bad
        assert len(made) == 16


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8000", "LOCALHOST:80"])
def test_this_machine_is_known_by_its_names(local: TestClient, host: str) -> None:
    assert local.get("/api/v1/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "", "a/b",
             "[::1", "127.0.0.1@evil.example", "0.0.0.0", "127.0.0.2"],
)  # fmt: skip
def test_dns_rebinding_is_refused(local: TestClient, host: str) -> None:
    answer = local.get("/api/v1/jobs", headers={"host": host})
    assert answer.status_code == 421, host
    assert local.get("/healthz", headers={"host": host}).status_code == 200


def test_a_name_that_the_operator_allows_is_known(make_service: Any) -> None:
    app = app_of(make_service, allowed_hosts=("Art.Example",), **OPEN_SETTINGS)
    with client_of(app) as client:
        assert client.get("/login", headers={"host": "art.example"}).status_code == 200
        assert client.get("/login", headers={"host": "other.example"}).status_code == 421


def test_bound_to_all_addresses_any_name_will_do_unless_names_are_given(make_service: Any) -> None:
    with client_of(app_of(make_service, host="0.0.0.0")) as client:
        assert client.get("/login", headers={"host": "anything.example"}).status_code == 200


@pytest.mark.parametrize(
    "header", ["x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip"]
)
def test_a_proxy_in_front_of_a_service_without_login_is_refused(
    local: TestClient, header: str
) -> None:
    answer = local.get("/api/v1/jobs", headers={header: "203.0.113.7"})
    assert answer.status_code == 403
    assert "--login always" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": BASE}, False),
        ({"sec-fetch-site": "surprise"}, False),
        ({"origin": BASE}, True),
        ({"origin": "http://127.0.0.1:8001"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "file://"}, False),
        ({"cookie": "a=b"}, False),
        ({"cookie": "a=b", "origin": BASE}, True),
        ({"authorization": "Bearer x", "sec-fetch-site": "cross-site"}, False),
    ],
)
def test_other_sites_cannot_make_a_browser_change_anything(
    local: TestClient, headers: dict[str, str], passes: bool
) -> None:
    answer = local.post("/api/v1/jobs", json={"model": "scenes"}, headers=headers)
    assert answer.status_code == (202 if passes else 403), answer.text
    assert local.get("/api/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_every_unsafe_method_is_held_to_its_origin(local: TestClient, method: str) -> None:
    for path in ("/api/v1/jobs/x", "/nothing", "/login", "/logout"):
        assert local.request(method, path, headers=FOREIGN).status_code == 403


def test_a_body_that_says_it_is_too_large_is_refused_unread(local: TestClient) -> None:
    answer = local.post("/api/v1/jobs", content=b"x" * 2001)
    assert answer.status_code == 413
    assert answer.json()["code"] == "content_too_large"
    image = {"content-type": "image/png"}
    assert local.post("/api/v1/infotext", content=b"x" * 2001, headers=image).status_code == 422
    assert local.post("/api/v1/infotext", content=b"x" * 50_001, headers=image).status_code == 413


def test_a_body_that_does_not_say_is_counted_as_it_comes(local: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b"x" * 100

    for path in ("/api/v1/jobs", "/login", "/api/v1/infotext"):
        kind = {"content-type": "application/x-www-form-urlencoded"}
        answer = local.post(path, content=endless(), headers=kind)
        assert answer.status_code == 413, path
        assert "content-security-policy" in answer.headers


def test_a_stranger_may_not_send_as_much_as_somebody_known(make_service: Any) -> None:
    service = make_service(max_body_bytes=2000, max_upload_bytes=50_000, **OPEN_SETTINGS)
    add_people(service)
    with client_of(create_app(service)) as client:
        files = {"name": b"x" * 3000}
        assert client.post("/login", files=files).status_code == 413


def test_streams_pass_untouched(make_service: Any) -> None:
    """The gate must not wait for the end of an answer before it sends the beginning."""
    from starlette.responses import StreamingResponse

    from izograf.service.gate import Gate

    service, seen = make_service(), []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            seen.append(f"made {number}")
            yield b"x"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(pieces())(scope, receive, send)

    async def send(message: Any) -> None:
        if message.get("body"):
            seen.append("sent")

    async def receive() -> Any:
        await asyncio.sleep(3600)

    scope = {
        "type": "http", "method": "GET", "path": "/api/v1/x", "query_string": b"",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "asgi": {},
        "http_version": "1.1",
    }  # fmt: skip
    gate = Gate(app, service, lambda *_: None)  # type: ignore[arg-type, return-value]
    asyncio.run(asyncio.wait_for(gate(scope, receive, send), 10))
    assert seen == [f"{word}" for n in range(3) for word in (f"made {n}", "sent")]


def test_websockets_are_closed(local: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), local.websocket_connect("/api/v1/jobs"):
        pass


def test_too_many_requests_are_told_when_to_come_again(make_service: Any) -> None:
    with client_of(app_of(make_service, requests_per_minute=5)) as client:
        codes = [client.get("/api/v1/jobs").status_code for _ in range(7)]
        assert codes == [200] * 5 + [429] * 2
        answer = client.get("/api/v1/jobs")
        assert answer.json()["code"] == "too_many_requests"
        assert 1 <= int(answer.headers["retry-after"]) <= 12
        assert client.get("/static/none.css").status_code == 404
        assert client.get("/healthz").status_code == 200
        assert client.get("/gallery", headers=HTML).status_code == 429


def test_jobs_have_a_limit_of_their_own(make_service: Any) -> None:
    with client_of(app_of(make_service, jobs_per_minute=3)) as client:
        order = {"model": "scenes", "seed": 1}
        codes = [client.post("/api/v1/jobs", json=order).status_code for _ in range(4)]
        assert codes == [202, 202, 202, 429]
        assert client.get("/api/v1/jobs").status_code == 200


def test_one_client_does_not_use_up_anothers_requests(make_service: Any) -> None:
    service = make_service(**(OPEN_SETTINGS | {"requests_per_minute": 3}))
    keys = add_people(service)
    app = create_app(service)
    with client_of(app, keys["anna"]) as anna, client_of(app, keys["boris"]) as boris:
        assert [anna.get("/api/v1/jobs").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert boris.get("/api/v1/jobs").status_code == 200


def test_the_default_limits_admit_a_hundred_jobs_a_minute() -> None:
    from izograf.service.settings import ServiceSettings

    limit = RateLimit(ServiceSettings().jobs_per_minute, clock=lambda: 0.0)
    for _ in range(100):
        limit.take("somebody")


def test_a_bucket_fills_up_again() -> None:
    now = [0.0]
    limit = RateLimit(60, clock=lambda: now[0])
    for _ in range(60):
        limit.take("a")
    with pytest.raises(TooManyRequests) as caught:
        limit.take("a")
    assert caught.value.retry_after == 1
    now[0] += 2
    limit.take("a")
    limit.take("a")
    with pytest.raises(TooManyRequests):
        limit.take("a")


def test_the_memory_of_limits_is_bounded() -> None:
    recent: Recent[list[int]] = Recent(list, size=100)
    for number in range(1000):
        recent.get("kept").append(number)
        recent.get(str(number))
    assert len(recent) == 100
    assert len(recent.get("kept")) == 1000


def test_guessing_passwords_gets_slower_and_slower() -> None:
    now = [0.0]
    attempts = LoginAttempts(clock=lambda: now[0])
    for _ in range(FREE_ATTEMPTS):
        attempts.begin("anna", "10.0.0.1")
    waits = []
    for _ in range(5):
        with pytest.raises(TooManyRequests) as caught:
            attempts.begin(" ANNA", "10.0.0.1")
        waits.append(caught.value.retry_after)
        now[0] += caught.value.retry_after
        attempts.begin("anna", "10.0.0.1")
    assert waits == [1, 2, 4, 8, 16]
    attempts.begin("anna", "10.0.0.2")
    attempts.begin("boris", "10.0.0.1")
    attempts.succeeded("anna", "10.0.0.1")
    attempts.begin("anna", "10.0.0.1")


def test_one_address_cannot_try_many_names() -> None:
    attempts = LoginAttempts(clock=lambda: 0.0)
    for number in range(ATTEMPTS_PER_MINUTE):
        attempts.begin(f"user {number}", "10.0.0.1")
    with pytest.raises(TooManyRequests):
        attempts.begin("one more", "10.0.0.1")


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::2", "2001:db8::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("unix:", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_client_is_its_address_or_its_network(host: str | None, client: str) -> None:
    assert client_address(host) == client


def test_the_request_id_is_known_to_what_is_logged(
    local: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    local.get("/api/v1/jobs", headers={"x-request-id": "seen-by-all"})
    assert request_id.get() == ""


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil", "javascript:alert(1)",
     "", "login", "/\t/evil.example", "/\n", "/" + "a" * 2000, "///evil.example"],
)  # fmt: skip
def test_the_login_leads_nowhere_else(target: str) -> None:
    assert safe_next(target) == "/"


@given(st.text(max_size=40))
def test_where_the_login_leads_to_is_always_a_path_here(text: str) -> None:
    target = safe_next(text)
    assert target.startswith("/")
    assert not target.startswith("//")
    assert "\\" not in target
    assert target.isprintable()


@given(st.text(max_size=60))
def test_no_host_makes_the_gate_fail(text: str) -> None:
    name = host_name(text)
    assert name is None or name == name.casefold()


def test_submissions_are_recognised() -> None:
    job = "job_" + "0" * 26
    assert is_submission("POST", "/api/v1/jobs")
    assert is_submission("POST", f"/api/v1/jobs/{job}/retry")
    assert is_submission("POST", "/v1/images/generations")
    assert not is_submission("GET", "/api/v1/jobs")
    assert not is_submission("POST", "/api/v1/collections")
