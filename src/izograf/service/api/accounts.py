"""`/api/v1/users`, `/api/v1/keys`, `/api/v1/audit`: who may use the service, and who did what."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
from fastapi import Query
from pydantic import BaseModel, Field

from izograf.schema.errors import Conflict
from izograf.service import accounts
from izograf.service.access import Admin, Viewer
from izograf.service.api.routing import interface_router
from izograf.service.api.shapes import Listing, Moment, Page, Sent
from izograf.service.api.views import moment, moment_or_none
from izograf.service.context import Running
from izograf.store import ids
from izograf.store.accounts import ApiKey, Role, User
from izograf.store.audit import AuditEntry

users = interface_router("/api/v1/users", "accounts")
keys = interface_router("/api/v1/keys", "accounts")
audit = interface_router("/api/v1/audit", "accounts")

Password = Annotated[str, Field(min_length=1, max_length=1000)]


class UserOrder(Sent):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    role: Annotated[Role, Field(strict=False)] = Role.USER
    password: Password


class UserChange(Sent):
    """What is left out stays as it is."""

    role: Annotated[Role | None, Field(strict=False)] = None
    disabled: bool | None = None
    password: Password | None = None


class KeyOrder(Sent):
    name: Annotated[str, Field(max_length=200)] = ""
    user_id: str | None = Field(None, description="whose rights it has; yours when left out")


class UserView(BaseModel):
    id: str
    name: str
    role: Role
    created: Moment
    disabled: Moment | None


class KeyView(BaseModel):
    id: str
    user_id: str
    user: str
    name: str
    prefix: str
    created: Moment
    seen: Moment | None = Field(description="when it was last used, to some minutes")
    revoked: Moment | None


class NewKeyView(KeyView):
    key: str = Field(description="the whole key, shown this once")


class AuditView(BaseModel):
    number: int
    at: Moment
    actor: str
    action: str
    subject: str
    facts: dict[str, Any]


@users.get("", summary="Everybody who may log in")
def list_users(service: Running, identity: Admin) -> Listing[UserView]:  # noqa: ARG001
    return Listing(items=[user_view(user) for user in service.store.accounts.list_users()])


@users.post("", status_code=201, summary="Add a user")
async def add_user(order: UserOrder, service: Running, identity: Admin) -> UserView:
    hashed = await accounts.new_password(order.password, order.name)
    user = await anyio.to_thread.run_sync(
        accounts.add_user, service, identity, order.name, order.role, hashed
    )
    return user_view(user)


@users.patch("/{user_id}", summary="Change a user's role or password, or close the account")
async def change_user(
    user_id: str, change: UserChange, service: Running, identity: Admin
) -> UserView:
    user = await anyio.to_thread.run_sync(service.store.accounts.get_user, user_id)
    hashed = None
    if change.password is not None:
        hashed = await accounts.new_password(change.password, user.name)

    def work() -> User:
        return accounts.change_user(
            service, identity, user, role=change.role, disabled=change.disabled,
            password_hash=hashed,
        )  # fmt: skip

    return user_view(await anyio.to_thread.run_sync(work))


@keys.get("", summary="Your API keys; everybody's for an administrator")
def list_keys(service: Running, identity: Viewer) -> Listing[KeyView]:
    found = service.store.accounts.list_keys(identity.visible_owner)
    return Listing(items=[KeyView(**key_facts(key)) for key in found])


@keys.post("", status_code=201, summary="Make an API key")
def create_key(order: KeyOrder, service: Running, identity: Viewer) -> NewKeyView:
    owner = order.user_id or identity.owner
    if not ids.is_id(ids.USER, owner):
        raise Conflict("A key belongs to a user: name one as user_id.")
    key, text = accounts.add_key(service, identity, owner, order.name)
    return NewKeyView(**key_facts(key), key=text)


@keys.delete("/{key_id}", status_code=204, summary="Make an API key invalid, for good")
def revoke_key(key_id: str, service: Running, identity: Viewer) -> None:
    accounts.revoke_key(service, identity, key_id)


@audit.get("", summary="Who did what, newest first")
def list_entries(
    service: Running,
    identity: Admin,  # noqa: ARG001
    actor: Annotated[str | None, Query(max_length=200)] = None,
    cursor: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Page[AuditView]:
    entries = service.store.audit.entries(actor=actor, before=cursor, limit=limit)
    following = str(entries[-1].number) if len(entries) == limit else None
    return Page(items=[audit_view(entry) for entry in entries], next_cursor=following)


def user_view(user: User) -> UserView:
    return UserView(
        id=user.id, name=user.name, role=user.role, created=moment(user.created),
        disabled=moment_or_none(user.disabled),
    )  # fmt: skip


def key_facts(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id, "user_id": key.user.id, "user": key.user.name, "name": key.name,
        "prefix": key.prefix, "created": moment(key.created), "seen": moment_or_none(key.seen),
        "revoked": moment_or_none(key.revoked),
    }  # fmt: skip


def audit_view(entry: AuditEntry) -> AuditView:
    return AuditView(
        number=entry.number, at=moment(entry.at), actor=entry.actor, action=entry.action,
        subject=entry.subject, facts=dict(entry.facts),
    )  # fmt: skip
