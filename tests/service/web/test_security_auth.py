"""Log-ins, sessions, keys: what lets somebody in, and how soon it no longer does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from security_support import (
    BASE,
    CHEAP,
    OPEN_SETTINGS,
    PASSWORD,
    add_people,
    add_person,
    client_of,
    log_in,
)

from izograf.schema.errors import InvalidInput
from izograf.service import auth_secrets
from izograf.service.app import create_app
from izograf.service.auth import COOKIE, SEEN_SECONDS, refuse_unsafe_bind
from izograf.service.auth_secrets import check_password, digest, make_key, parse_key, password_fits
from izograf.service.context import Service
from izograf.service.settings import ServiceSettings
from izograf.store.accounts import Role


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_secrets, "_hasher", CHEAP)
    auth_secrets._hash_of_nobody.cache_clear()


@pytest.fixture
def service(make_service: Any) -> Service:
    made: Service = make_service(**OPEN_SETTINGS)
    return made


@pytest.fixture
def keys(service: Service) -> dict[str, str]:
    return add_people(service)


@pytest.fixture
def browser(service: Service, keys: dict[str, str]) -> TestClient:  # noqa: ARG001
    return browser_of(create_app(service))


def browser_of(app: FastAPI) -> TestClient:
    headers = {"sec-fetch-site": "same-origin", "accept": "text/html"}
    return TestClient(app, base_url=BASE, headers=headers, follow_redirects=False)


def token_of(client: TestClient) -> str:
    return client.cookies.get(COOKIE) or ""


def reads(client: TestClient) -> int:
    return int(client.get("/api/v1/jobs", headers={"accept": "application/json"}).status_code)


def audited(service: Service) -> list[tuple[str, str, str]]:
    return [(e.actor, e.action, e.subject) for e in service.store.audit.entries()]


def test_a_login_opens_a_session_and_a_logout_ends_it(
    browser: TestClient, service: Service
) -> None:
    answer = log_in(browser, "Anna", next="/gallery")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/gallery"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    assert reads(browser) == 200
    stolen = token_of(browser)
    assert browser.post("/logout").headers["location"] == "/login"
    assert reads(browser) == 401
    browser.cookies.set(COOKIE, stolen)
    assert reads(browser) == 401, "the session must end in the store, not in the browser alone"
    assert [action for _, action, _ in audited(service)] == ["login.ok"]


def test_cookies_are_secure_where_https_is_used(make_service: Any) -> None:
    service = make_service(secure_cookies=True, **OPEN_SETTINGS)
    add_people(service)
    cookie = log_in(browser_of(create_app(service)), "anna").headers["set-cookie"]
    assert "; Secure" in cookie


def test_the_store_holds_no_token_and_no_secret(
    browser: TestClient, service: Service, keys: dict[str, str]
) -> None:
    log_in(browser, "anna")
    files = [*service.settings.data_dir.glob("*.sqlite3*")]
    content = b"".join(path.read_bytes() for path in files)
    assert digest(token_of(browser)).encode() in content
    assert token_of(browser).encode() not in content
    assert keys["anna"].partition(".")[2].encode() not in content
    assert PASSWORD.encode() not in content


def test_every_login_gets_a_new_session_and_ends_the_one_before(browser: TestClient) -> None:
    log_in(browser, "anna")
    first = token_of(browser)
    log_in(browser, "anna")
    assert token_of(browser) != first
    assert reads(browser) == 200
    thief = browser_of(browser.app)  # type: ignore[arg-type]
    thief.cookies.set(COOKIE, first)
    assert reads(thief) == 401


def test_a_token_that_the_attacker_chose_is_never_a_session(browser: TestClient) -> None:
    browser.cookies.set(COOKIE, "A" * 43)
    log_in(browser, "anna")
    values = {cookie.value for cookie in browser.cookies.jar if cookie.name == COOKIE}
    assert "A" * 43 not in values or len(values) > 1
    fresh = browser_of(browser.app)  # type: ignore[arg-type]
    fresh.cookies.set(COOKIE, "A" * 43)
    assert reads(fresh) == 401


def test_a_wrong_password_and_an_unknown_name_are_answered_alike(browser: TestClient) -> None:
    wrong, unknown = log_in(browser, "anna", "not it at all"), log_in(browser, "nobody", "x" * 12)
    assert wrong.status_code == unknown.status_code == 401
    assert "set-cookie" not in wrong.headers
    assert wrong.text.replace("anna", "?") == unknown.text.replace("nobody", "?")
    assert "not it at all" not in wrong.text


def test_an_unknown_name_takes_as_long_as_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One hash is verified in both cases; timed besides, with a hash slow enough to be seen."""
    from argon2 import PasswordHasher

    slow = PasswordHasher(time_cost=2, memory_cost=8192, parallelism=1)
    monkeypatch.setattr(auth_secrets, "_hasher", slow)
    auth_secrets._hash_of_nobody.cache_clear()
    known = slow.hash(PASSWORD)
    password_fits(None, "warm up")

    def seconds(password_hash: str | None) -> float:
        began = time.perf_counter()
        assert not password_fits(password_hash, "a wrong password")
        return time.perf_counter() - began

    pairs = [(seconds(known), seconds(None)) for _ in range(7)]
    for_known, for_unknown = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert 0.3 < for_unknown / for_known < 3


def test_a_name_typed_into_the_log_is_only_one_that_exists(
    browser: TestClient, service: Service
) -> None:
    log_in(browser, "my secret passphrase", "x")
    log_in(browser, "ANNA", "x")
    assert audited(service) == [("", "login.failed", "anna"), ("", "login.failed", "")]


def test_guessing_is_slowed_and_says_how_long(browser: TestClient) -> None:
    codes = [log_in(browser, "anna", "wrong").status_code for _ in range(6)]
    assert codes == [401] * 5 + [429]
    answer = log_in(browser, "anna")
    assert answer.status_code == 429, "even the right password has to wait"
    assert int(answer.headers["retry-after"]) >= 1
    assert log_in(browser, "boris").status_code == 303


def test_a_very_long_password_is_refused_quickly(browser: TestClient) -> None:
    assert log_in(browser, "anna", "x" * 100_000).status_code == 422


def test_disabling_a_user_ends_sessions_and_keys_at_once(
    browser: TestClient, service: Service, keys: dict[str, str]
) -> None:
    log_in(browser, "anna")
    program = TestClient(browser.app, base_url=BASE, headers=bearer(keys["anna"]))
    assert reads(browser) == reads(program) == 200
    anna = service.store.accounts.find_user("anna").id
    service.store.accounts.disable_user(anna)
    assert reads(browser) == reads(program) == 401
    assert log_in(browser, "anna").status_code == 401
    service.store.accounts.enable_user(anna)
    assert reads(browser) == 401, "an ended session stays ended"
    assert reads(program) == 200


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_revoked_key_is_refused_at_once(service: Service, keys: dict[str, str]) -> None:
    with client_of(create_app(service), keys["anna"]) as client:
        assert reads(client) == 200
        (mine,) = client.get("/api/v1/keys").json()["items"]
        assert client.delete(f"/api/v1/keys/{mine['id']}").status_code == 204
        assert reads(client) == 401


def test_a_key_with_another_secret_is_refused(service: Service, keys: dict[str, str]) -> None:
    prefix, _, secret = keys["anna"].partition(".")
    app = create_app(service)
    other = make_key().secret
    for wrong in (f"{prefix}.{other}", f"{prefix}.{secret[:-1]}", prefix, f"{prefix}.",
                  f"{prefix}.{secret} ", f" {prefix}.{secret}x"):  # fmt: skip
        with client_of(app, wrong) as client:
            assert reads(client) == (200 if wrong.strip() == keys["anna"] else 401), wrong


def test_a_wrong_key_is_not_helped_by_a_good_cookie(browser: TestClient) -> None:
    log_in(browser, "anna")
    headers = bearer(make_key().text) | {"accept": "application/json"}
    assert browser.get("/api/v1/jobs", headers=headers).status_code == 401


def test_a_change_of_role_counts_at_once(service: Service, keys: dict[str, str]) -> None:
    order = {"model": "scenes", "seed": 1}
    with client_of(create_app(service), keys["anna"]) as client:
        assert client.post("/api/v1/jobs", json=order).status_code == 202
        anna = service.store.accounts.find_user("anna").id
        service.store.accounts.set_role(anna, Role.VIEWER)
        assert client.post("/api/v1/jobs", json=order).status_code == 403


def moved_clock(service: Service) -> tuple[Service, Callable[[float], None]]:
    """The same service at other times, in its own eyes and in those of its accounts."""
    from dataclasses import replace

    offset = [0.0]

    def clock() -> float:
        return time.time() + offset[0]

    service.store.accounts._clock = clock

    def move(seconds: float) -> None:
        offset[0] += seconds

    return replace(service, clock=clock), move


def test_a_session_slides_while_it_is_used_and_ends_when_it_is_not(
    service: Service,
    keys: dict[str, str],  # noqa: ARG001
) -> None:
    later, move = moved_clock(service)
    browser = browser_of(create_app(later))
    log_in(browser, "anna")
    token, hours = token_of(browser), service.settings.session_hours
    assert "set-cookie" not in browser.get("/api/v1/jobs").headers, "not written at every request"
    for _ in range(3):
        move(hours * 3600 - 60)
        browser.cookies.set(COOKIE, token, domain="127.0.0.1", path="/")
        answer = browser.get("/api/v1/jobs")
        assert answer.status_code == 200
        assert f"{COOKIE}={token}" in answer.headers["set-cookie"]
    move(hours * 3600 + 1)
    browser.cookies.set(COOKIE, token, domain="127.0.0.1", path="/")
    assert reads(browser) == 401


def test_the_last_use_of_a_key_is_noted_but_rarely(
    service: Service, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    later, move = moved_clock(service)
    touched = []
    real = service.store.accounts.touch_key
    monkeypatch.setattr(
        service.store.accounts, "touch_key", lambda key: (touched.append(key), real(key))
    )
    with client_of(create_app(later), keys["anna"]) as client:
        for _ in range(5):
            client.get("/api/v1/jobs")
        assert len(touched) == 1
        move(SEEN_SECONDS + 1)
        client.get("/api/v1/jobs")
    assert len(touched) == 2


def test_changing_a_password_ends_the_other_sessions_and_keeps_this_one(
    browser: TestClient, service: Service
) -> None:
    other = browser_of(browser.app)  # type: ignore[arg-type]
    log_in(browser, "anna")
    log_in(other, "anna")
    new = "another long sentence of words"
    form = {"password": PASSWORD, "new_password": new}
    assert browser.post("/account/password", data=form | {"password": "no"}).status_code == 422
    assert browser.post("/account/password", data=form).status_code == 303
    assert reads(browser) == 200
    assert reads(other) == 401
    assert log_in(other, "anna").status_code == 401
    assert log_in(other, "anna", new).status_code == 303
    assert ("anna", "user.password") in {(a, b) for a, b, _ in audited(service)}


def test_a_key_cannot_make_keys_nor_change_passwords(
    service: Service, keys: dict[str, str]
) -> None:
    with client_of(create_app(service), keys["adam"]) as client:
        assert client.post("/api/v1/keys", json={"name": "x"}).status_code == 403
        form = {"password": PASSWORD, "new_password": "another long sentence"}
        assert client.post("/account/password", data=form).status_code == 422


def test_a_user_makes_and_sees_keys_of_their_own_only(
    browser: TestClient,
    service: Service,
    keys: dict[str, str],  # noqa: ARG001
) -> None:
    log_in(browser, "anna")
    made = browser.post("/api/v1/keys", json={"name": "script"})
    assert made.status_code == 201
    parsed = parse_key(made.json()["key"])
    assert parsed is not None
    assert "key" not in browser.get("/api/v1/keys").json()["items"][0]
    assert {item["user"] for item in browser.get("/api/v1/keys").json()["items"]} == {"anna"}
    boris = service.store.accounts.find_user("boris")
    theirs = service.store.accounts.list_keys(boris.id)[0]
    assert browser.post("/api/v1/keys", json={"user_id": boris.id}).status_code == 403
    assert browser.delete(f"/api/v1/keys/{theirs.id}").status_code == 404
    answer = browser.post(f"/account/keys/{theirs.id}/revoke", headers={"accept": "*/*"})
    assert answer.status_code == 404
    log_in(browser, "adam")
    assert len(browser.get("/api/v1/keys").json()["items"]) == 5
    assert browser.delete(f"/api/v1/keys/{theirs.id}").status_code == 204


def test_users_are_managed_by_the_interface(service: Service, keys: dict[str, str]) -> None:
    with client_of(create_app(service), keys["adam"]) as client:
        order = {"name": "Clara", "role": "user", "password": "nine lives of a cat"}
        made = client.post("/api/v1/users", json=order)
        assert made.status_code == 201, made.text
        assert "password" not in made.text
        user = made.json()
        assert client.post("/api/v1/users", json=order).status_code == 409
        weak = order | {"name": "dora", "password": "dora123456"}
        assert client.post("/api/v1/users", json=weak).status_code == 422
        path = f"/api/v1/users/{user['id']}"
        assert client.patch(path, json={"role": "engineer"}).json()["role"] == "engineer"
        assert client.patch(path, json={"disabled": True}).json()["disabled"]
        adam = service.store.accounts.find_user("adam").id
        assert client.patch(f"/api/v1/users/{adam}", json={"role": "user"}).status_code == 409
        assert client.patch(f"/api/v1/users/{adam}", json={"disabled": True}).status_code == 409
        names = [item["name"] for item in client.get("/api/v1/users").json()["items"]]
        assert names == ["adam", "anna", "boris", "clara", "vera"]
        log = client.get("/api/v1/audit?limit=2").json()
        assert [entry["action"] for entry in log["items"]] == ["user.disable", "user.role"]
        rest = client.get(f"/api/v1/audit?cursor={log['next_cursor']}").json()
        assert [entry["action"] for entry in rest["items"]] == ["user.create"]
        assert rest["next_cursor"] is None
        assert "nine lives" not in client.get("/api/v1/audit").text


def test_users_and_keys_are_managed_by_pages(browser: TestClient, service: Service) -> None:
    log_in(browser, "adam")
    form = {"name": "clara", "role": "viewer", "password": "nine lives of a cat"}
    assert browser.post("/admin/users", data=form).status_code == 303
    again = browser.post("/admin/users", data=form)
    assert again.status_code == 422
    assert 'value="clara"' in again.text
    clara = service.store.accounts.find_user("clara")
    page = f"/admin/users/{clara.id}"
    assert browser.post(page, data={"role": "user"}).status_code == 303
    assert browser.post(page, data={"action": "disable"}).status_code == 303
    assert browser.post(page, data={"role": "emperor"}).status_code == 422
    assert browser.post(f"{page}/password", data={"password": "short"}).status_code == 422
    changed = service.store.accounts.find_user("clara")
    assert changed.role is Role.USER
    assert changed.disabled is not None
    adam = service.store.accounts.find_user("adam").id
    made = browser.post("/admin/keys", data={"user": adam, "name": "<b>bold</b>"})
    assert made.status_code == 200
    assert "<b>bold" not in made.text
    key = service.store.accounts.list_keys(adam)[0]
    assert browser.post(f"/admin/keys/{key.id}/revoke").status_code == 303
    for path in ("/admin", "/admin/users", "/admin/keys", "/admin/audit", "/account"):
        for language in ("en", "ru"):
            answer = browser.get(f"{path}?lang={language}")
            assert answer.status_code == 200, path
            assert f'lang="{language}"' in answer.text


def test_the_pages_of_people_are_there_without_a_login_too(make_service: Any) -> None:
    local = browser_of(create_app(make_service()))
    for path in ("/admin", "/admin/users", "/admin/keys", "/admin/audit", "/account"):
        assert local.get(path).status_code == 200, path
    assert local.get("/login").headers["location"] == "/"


@pytest.mark.parametrize(
    "settings", [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "192.0.2.1"}, {"login": "always"}]
)
def test_others_may_reach_the_service_only_once_there_is_an_administrator(
    make_service: Any, settings: dict[str, Any]
) -> None:
    service = make_service()
    wanted = ServiceSettings(**settings)
    refuse_unsafe_bind(ServiceSettings(), service.store)
    with pytest.raises(InvalidInput, match="izograf user add NAME --role admin"):
        refuse_unsafe_bind(wanted, service.store)
    add_person(service, "anna", Role.USER)
    with pytest.raises(InvalidInput, match="no administrator yet"):
        refuse_unsafe_bind(wanted, service.store)
    add_person(service, "adam", Role.ADMIN)
    refuse_unsafe_bind(wanted, service.store)


@pytest.mark.parametrize(
    "password",
    ["", "short", "aaaaaaaaaaaa", "annaannaanna", "anna123456", "1234567890", "password123!",
     "qwertyuiop12", "abababababab", "x" * 1001, "йцукенгшщз1"],
)  # fmt: skip
def test_passwords_that_are_guessed_at_once_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput):
        check_password(password, "Anna")


@pytest.mark.parametrize("password", [PASSWORD, "тихое утро над рекой", "vK9#xQ2!mzP4"])
def test_other_passwords_are_accepted_and_fit(password: str) -> None:
    check_password(password, "Anna")
    hashed = auth_secrets.hash_password(password)
    assert hashed.startswith("$argon2id$")
    assert password_fits(hashed, password)
    assert not password_fits(hashed, password + "x")
    assert not password_fits("not a hash", password)


def test_passwords_are_kept_as_the_standard_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    hashed = auth_secrets.hash_password(PASSWORD)
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_hashing_leaves_the_event_loop_free(
    service: Service,
    keys: dict[str, str],  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a password is being looked at, other requests are answered."""
    import asyncio
    import threading

    import httpx

    started, go_on = threading.Event(), threading.Event()

    def slow(password_hash: str | None, password: str) -> bool:  # noqa: ARG001
        started.set()
        assert go_on.wait(20)
        return False

    monkeypatch.setattr("izograf.service.auth.password_fits", slow)
    transport = httpx.ASGITransport(app=create_app(service))

    async def scenario() -> tuple[int, int]:
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            form = {"name": "anna", "password": "x"}
            login = asyncio.create_task(client.post("/login", data=form))
            while not started.is_set():
                await asyncio.sleep(0.01)
            meanwhile = await client.get("/api/v1/jobs")
            go_on.set()
            return meanwhile.status_code, (await login).status_code

    assert asyncio.run(scenario()) == (401, 401)
