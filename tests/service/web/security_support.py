"""People with accounts, and clients that speak for them; passwords are hashed cheaply here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient

from izograf.service.access import declared_routes
from izograf.service.app import create_app
from izograf.service.auth_secrets import digest, make_key
from izograf.service.context import Service
from izograf.store.accounts import Role

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery staple"
BASE = "http://127.0.0.1:8000"
HTML = {"accept": "text/html"}
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
NOTHING = {
    "job_id": "job_" + "0" * 26,
    "image_id": "img_" + "0" * 26,
    "collection_id": "col_" + "0" * 26,
    "user_id": "usr_" + "0" * 26,
    "key_id": "key_" + "0" * 26,
}
"""Identifiers of the right form that name nothing."""

PEOPLE = {"vera": Role.VIEWER, "anna": Role.USER, "boris": Role.USER, "adam": Role.ADMIN}
OPEN_SETTINGS: dict[str, Any] = {
    "login": "always", "requests_per_minute": 1_000_000, "jobs_per_minute": 1_000_000,
}  # fmt: skip


def add_people(service: Service) -> dict[str, str]:
    """Name -> API key of everybody in `PEOPLE`."""
    return {name: add_person(service, name, role) for name, role in PEOPLE.items()}


def add_person(service: Service, name: str, role: Role) -> str:
    """The API key of a new user."""
    user = service.store.accounts.create_user(name, role, CHEAP.hash(PASSWORD))
    new = make_key()
    service.store.accounts.create_key(user.id, "test", new.prefix, digest(new.secret))
    return new.text


@contextmanager
def client_of(app: FastAPI, key: str | None = None, **options: Any) -> Iterator[TestClient]:
    """A program with that API key, or with nothing."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    yield TestClient(app, base_url=BASE, headers=headers, follow_redirects=False, **options)


def log_in(client: TestClient, name: str, password: str = PASSWORD, **form: str) -> Any:
    """The answer to a login form."""
    return client.post("/login", data={"name": name, "password": password, **form})


def paths_of(app: FastAPI) -> list[tuple[str, frozenset[str], Any]]:
    """Every route: its path template, its methods, its dependant (None where it has none)."""
    found = [
        (route.path, frozenset(route.methods or ()), route.dependant)
        for route in declared_routes(app.routes)
    ]
    plain = [
        (route.path, frozenset(getattr(route, "methods", None) or ()), None)
        for route in app.routes
        if getattr(route, "path", None) and route.path != "/static"
    ]
    return found + plain


def filled(template: str, ids: dict[str, str] = NOTHING) -> str:
    """A path with identifiers in the places of its parameters."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda m: ids.get(m[1], "x"), template)


__all__ = ["create_app"]
