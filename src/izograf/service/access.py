"""Who may do what: every request is somebody's, every route names the role it needs.

Denial is the default, in two layers. `Gate` (the outermost application) lets a request without
credentials reach only the paths in `OPEN`; and `create_app` refuses to build when a route outside
`OPEN` declares no role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from izograf.schema.errors import IzografError
from izograf.store.accounts import Role

LOCAL_OWNER = "local"
"""Whose jobs and pictures are while nobody needs to log in."""

OPEN = frozenset({"/healthz", "/readyz", "/login"})
"""Paths open to everybody; `/static/` is as well."""


class Unauthorised(IzografError):
    """No valid credentials came with the request."""

    http_status = 401


class Forbidden(IzografError):
    """The credentials are valid, but do not allow this."""

    http_status = 403


@dataclass(frozen=True)
class Identity:
    """Who asks. `owner` is what jobs and pictures carry; `via` how we know."""

    owner: str
    name: str
    role: Role
    via: str  # "loopback", "session" or "key"

    @property
    def visible_owner(self) -> str | None:
        """Whose things this one may see and change: their own; everybody's for an administrator."""
        return None if self.role is Role.ADMIN else self.owner


LOCAL = Identity(LOCAL_OWNER, LOCAL_OWNER, Role.ADMIN, "loopback")


def identity_of(request: Request) -> Identity | None:
    """Who the gate found this request to come from."""
    return cast(Identity | None, request.scope.get("identity"))


class Needs:
    """A dependency that yields the caller's identity, or denies."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Identity:
        identity = identity_of(request)
        if identity is None:
            raise Unauthorised("Log in, or send an API key: Authorization: Bearer <key>.")
        if not identity.role.may(self.role):
            raise Forbidden(f"This needs the role {self.role}; yours is {identity.role}.")
        return identity


Viewer = Annotated[Identity, Depends(Needs(Role.VIEWER))]
User = Annotated[Identity, Depends(Needs(Role.USER))]
Engineer = Annotated[Identity, Depends(Needs(Role.ENGINEER))]
Admin = Annotated[Identity, Depends(Needs(Role.ADMIN))]


def role_needed(dependant: Any) -> Role | None:
    """The role that a route's dependencies ask for; None if it asks for none."""
    for needed in dependant.dependencies:
        if isinstance(needed.call, Needs):
            return needed.call.role
        if (role := role_needed(needed)) is not None:
            return role
    return None


def declared_routes(routes: Sequence[BaseRoute]) -> Iterator[APIRoute]:
    """Every route with an endpoint of ours, those of included routers too."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from declared_routes(router.routes)


Endpoint = Callable[..., Any]
