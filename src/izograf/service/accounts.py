"""Users and keys, changed from the interface and the pages alike; every change is noted."""

from __future__ import annotations

import anyio
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

from izograf.schema.errors import InvalidInput
from izograf.service.access import Forbidden, Identity
from izograf.service.auth_secrets import check_password, digest, hash_password, make_key
from izograf.service.context import Service
from izograf.store.accounts import ApiKey, Role, User

HASHING_AT_ONCE = 2
"""Each takes 64 MiB."""

_hashing: RunVar[CapacityLimiter] = RunVar("izograf-hashing")


def hashing_places() -> CapacityLimiter:
    """How many passwords this process hashes at once."""
    try:
        return _hashing.get()
    except LookupError:
        places = CapacityLimiter(HASHING_AT_ONCE)
        _hashing.set(places)
        return places


async def new_password(password: str, user_name: str) -> str:
    """The password as it is kept.

    Raises:
        InvalidInput: it is guessed too easily.
    """
    check_password(password, user_name)
    return await anyio.to_thread.run_sync(hash_password, password, limiter=hashing_places())


def add_user(
    service: Service, identity: Identity, name: str, role: Role, password_hash: str
) -> User:
    """A new user.

    Raises:
        Conflict: the name is taken. InvalidInput: it cannot be stored.
    """
    user = service.store.accounts.create_user(name, role, password_hash)
    _note(service, identity, "user.create", user, role=role)
    return user


def change_user(
    service: Service,
    identity: Identity,
    user: User,
    *,
    role: Role | None = None,
    disabled: bool | None = None,
    password_hash: str | None = None,
) -> User:
    """The user, with what is not None changed.

    Raises:
        Conflict: nobody would administer the service any more.
    """
    store = service.store.accounts
    if role is not None and role is not user.role:
        store.set_role(user.id, role)
        _note(service, identity, "user.role", user, role=role)
    if disabled is not None and disabled is not (user.disabled is not None):
        (store.disable_user if disabled else store.enable_user)(user.id)
        _note(service, identity, "user.disable" if disabled else "user.enable", user)
    if password_hash is not None:
        store.set_password(user.id, password_hash)
        _note(service, identity, "user.password", user)
    return store.get_user(user.id)


def add_key(service: Service, identity: Identity, user_id: str, name: str) -> tuple[ApiKey, str]:
    """A new key with the rights of a user, and its text, which is kept nowhere.

    Raises:
        Forbidden: for somebody else, or asked for with a key, which could outlive its revocation.
        NotFound: no such user. InvalidInput: the account is closed.
    """
    if identity.via == "key":
        raise Forbidden("An API key cannot make keys: log in, or use izograf key create.")
    if identity.visible_owner not in (None, user_id):
        raise Forbidden("You can make keys for yourself only.")
    user = service.store.accounts.get_user(user_id)
    if user.disabled is not None:
        raise InvalidInput(f"{user.name} is disabled: enable the account first.")
    new = make_key()
    key = service.store.accounts.create_key(user.id, name, new.prefix, digest(new.secret))
    _note(service, identity, "key.create", user, prefix=new.prefix)
    return key, new.text


def revoke_key(service: Service, identity: Identity, key_id: str) -> None:
    """Makes one of the caller's keys invalid; any for an administrator.

    Raises:
        NotFound: there is none, or it is revoked already.
    """
    service.store.accounts.revoke_key(key_id, user_id=identity.visible_owner)
    service.store.audit.record(identity.name, "key.revoke", key_id)


def _note(
    service: Service, identity: Identity, action: str, user: User, **facts: str | None
) -> None:
    service.store.audit.record(identity.name, action, user.id, name=user.name, **facts)
