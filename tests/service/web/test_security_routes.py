"""Promise P9: every route denies without credentials unless it is on an explicit list."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, Request
from security_support import (
    HTML,
    METHODS,
    OPEN_SETTINGS,
    PEOPLE,
    add_people,
    client_of,
    filled,
    paths_of,
)

from izograf.service import orders
from izograf.service.access import OPEN, declared_routes, role_needed
from izograf.service.app import create_app, refuse_open_routes
from izograf.service.context import Service
from izograf.service.gate import is_submission
from izograf.store.accounts import Role

UNKNOWN = ("/nothing", "/api/v1/nothing", "/v1/nothing", "/admin/nothing", "/api/v1/jobs/../x",
           "//login", "/login/", "/LOGIN", "/healthz/x", "/login%3Fx", "/staticx/app.js",
           "/static")  # fmt: skip


@pytest.fixture
def closed(make_service: Any) -> tuple[FastAPI, Service, dict[str, str]]:
    """A service that everybody must log in to, and the keys of its users."""
    service = make_service(**OPEN_SETTINGS)
    return create_app(service), service, add_people(service)


Closed = tuple[FastAPI, Service, dict[str, str]]


def test_p9_the_list_of_open_paths_is_this_one() -> None:
    assert {"/healthz", "/readyz", "/login"} == OPEN


def test_p9_every_route_denies_without_credentials(closed: Closed) -> None:
    app, _, _ = closed
    paths = {path for path, _, _ in paths_of(app)}
    assert len(paths) > 40, "the routes were not found"
    with client_of(app) as client:
        for path in sorted(paths - OPEN):
            for method in METHODS:
                answer = client.request(method, filled(path))
                assert answer.status_code == 401, (method, path, answer.status_code)
                assert answer.headers["www-authenticate"].startswith("Bearer")


def test_p9_unknown_paths_deny_like_known_ones(closed: Closed) -> None:
    with client_of(closed[0]) as client:
        for path in UNKNOWN:
            for method in METHODS:
                answer = client.request(method, f"http://127.0.0.1:8000{path}")
                assert answer.status_code == 401, (method, path, answer.status_code)


@pytest.mark.parametrize(
    "credentials",
    [
        {"authorization": "Bearer izo_000000000000." + "A" * 43},
        {"authorization": "Bearer "},
        {"authorization": "Basic YWRhbTphZGFt"},
        {"authorization": "Bearer \xff\xfe"},
        {"cookie": "izograf_session=" + "A" * 43},
        {"cookie": "izograf_session="},
        {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1"},
    ],
)
def test_p9_invalid_credentials_are_none(closed: Closed, credentials: dict[str, str]) -> None:
    app, _, _ = closed
    raw = {name: value.encode("latin-1") for name, value in credentials.items()}
    with client_of(app) as client:
        for path in ("/api/v1/jobs", "/metrics", "/", "/api/v1/openapi.json", "/nothing"):
            assert client.get(path, headers=raw).status_code == 401


def test_p9_a_browser_is_led_to_the_login_and_back(closed: Closed) -> None:
    with client_of(closed[0]) as client:
        answer = client.get("/gallery?q=sea%20side", headers=HTML)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/login?next=/gallery%3Fq%3Dsea%2520side"
        assert client.get("/", headers=HTML).headers["location"] == "/login"
        assert client.post("/gallery/selection", headers=HTML).status_code == 401
        assert client.get("/api/v1/jobs", headers=HTML).status_code == 401


def test_p9_each_role_reaches_what_its_routes_ask_for_and_no_more(closed: Closed) -> None:
    app, _, keys = closed
    checked = 0
    for name, role in PEOPLE.items():
        with client_of(app, keys[name]) as client:
            for path, methods, dependant in paths_of(app):
                needed = None if dependant is None else role_needed(dependant)
                if needed is None or role.may(needed):
                    continue
                for method in methods - {"HEAD"}:
                    answer = client.request(method, filled(path))
                    # a body that is wrong may be told first; what it would do is not done
                    assert answer.status_code in (403, 422), (name, method, path, answer.text)
                    checked += answer.status_code == 403
    assert checked > 20


def test_p9_a_viewer_cannot_make_jobs(closed: Closed) -> None:
    app, service, keys = closed
    order = {"model": "scenes", "num_images": 1, "seed": 1}
    with client_of(app, keys["vera"]) as client:
        assert client.post("/api/v1/jobs", json=order).status_code == 403
        openai = {"model": "scenes", "prompt": "a mountain"}
        assert client.post("/v1/images/generations", json=openai).status_code == 403
    assert service.store.jobs.num_queued() == 0
    assert sum(service.store.jobs.count_by_status().values()) == 0


def test_p9_a_route_without_a_role_keeps_the_application_from_being_made(service: Service) -> None:
    app = create_app(service)

    @app.get("/surprise")
    def surprise(request: Request) -> str:  # noqa: ARG001
        return "open"

    with pytest.raises(RuntimeError, match="/surprise declares no role"):
        refuse_open_routes(app)


def test_p9_reading_changes_nothing_and_changing_needs_more_than_a_viewer(closed: Closed) -> None:
    """Every route that changes something asks for a user, except of one's own session and keys."""
    app, _, _ = closed
    own = ("/logout", "/account/", "/api/v1/keys", "/login")
    for path, methods, dependant in paths_of(app):
        if dependant is None or path.startswith(own) or not methods & set(METHODS[3:]):
            continue
        needed = role_needed(dependant)
        assert needed is not None, path
        assert needed.may(Role.USER), path


def test_the_limit_of_jobs_knows_every_route_that_submits_some(closed: Closed) -> None:
    """A route whose module submits orders in a POST must be counted as a submission."""
    app, _, _ = closed
    makers = {"submit", "retry", "verify"}
    assert makers <= set(vars(orders))
    found = 0
    for route in declared_routes(app.routes):
        code = route.endpoint.__code__
        submits = "orders" in code.co_names and makers & set(code.co_names)
        if submits and "POST" in (route.methods or ()):
            found += 1
            assert is_submission("POST", filled(route.path)), route.path
    assert found >= 2
