"""Promise P9, the second layer by itself: what denies when the gate in front did not."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import APIRouter, Request
from starlette.types import Message

from izograf.service import app as app_module
from izograf.service.access import Forbidden, Identity, Needs, Unauthorised
from izograf.service.api import ROUTERS
from izograf.service.app import create_app
from izograf.service.context import Service
from izograf.service.gate import Body
from izograf.service.security import ContentTooLarge
from izograf.store.accounts import Role

MAY = {
    Role.VIEWER: {Role.VIEWER},
    Role.USER: {Role.VIEWER, Role.USER},
    Role.ENGINEER: {Role.VIEWER, Role.USER, Role.ENGINEER},
    Role.ADMIN: {Role.VIEWER, Role.USER, Role.ENGINEER, Role.ADMIN},
}
"""The role that one has -> the roles that a route may ask for."""


def ask(needed: Role, identity: Identity | None) -> Identity:
    request = Request({"type": "http", "headers": [], "identity": identity})
    return asyncio.run(Needs(needed)(request))


@pytest.mark.parametrize("own", Role)
@pytest.mark.parametrize("needed", Role)
def test_p9_a_role_may_what_those_before_it_may_and_no_more(own: Role, needed: Role) -> None:
    identity = Identity("usr_x", "ann", own, "key")
    assert own.may(needed) == (needed in MAY[own])
    if needed in MAY[own]:
        assert ask(needed, identity) is identity
    else:
        with pytest.raises(Forbidden, match=f"needs the role {needed}; yours is {own}"):
            ask(needed, identity)


@pytest.mark.parametrize("needed", Role)
def test_p9_a_route_denies_a_caller_whom_nobody_identified(needed: Role) -> None:
    with pytest.raises(Unauthorised, match="Log in"):
        ask(needed, None)
    with pytest.raises(Unauthorised, match="Log in"):
        asyncio.run(Needs(needed)(Request({"type": "http", "headers": []})))


def test_only_an_administrator_sees_what_is_everybodys() -> None:
    seen = {role: Identity("usr_x", "ann", role, "key").visible_owner for role in Role}
    assert seen == {role: None if role is Role.ADMIN else "usr_x" for role in Role}


def test_p9_the_application_itself_refuses_a_router_with_an_open_route(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    surprise = APIRouter()

    @surprise.get("/surprise")
    def tell() -> str:
        return "open"

    monkeypatch.setattr(app_module, "API", (*ROUTERS, surprise))
    with pytest.raises(RuntimeError, match="/surprise declares no role"):
        create_app(service)


def test_p8_a_body_is_refused_where_it_grows_too_large_and_not_at_its_end() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * 4, "more_body": True}

    async def read_on() -> None:
        body = Body(receive, limit=10)
        for _ in range(2):
            assert (await body())["body"] == b"xxxx"
        with pytest.raises(ContentTooLarge):
            await body()

    asyncio.run(read_on())
