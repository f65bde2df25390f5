"""Who may use the service: users with a role, their sessions and API keys.

Nothing here is a secret: passwords arrive hashed, tokens and key secrets as their sha256. A key is
found by its prefix, and the caller compares the secret's hash in constant time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, exc, func, insert, select, update

from izograf.schema.errors import Conflict, NotFound
from izograf.store import ids
from izograf.store.database import Database
from izograf.store.files import PATTERN as DIGEST
from izograf.store.tables import api_keys, sessions, users
from izograf.store.text import checked_text, folded

_ACCOUNTS = 0x1207_0003  # PostgreSQL's lock: the last administrator is counted by one at a time


class Role(StrEnum):
    """What a user may do; each role may do what those before it may."""

    VIEWER = "viewer"
    USER = "user"
    ENGINEER = "engineer"
    ADMIN = "admin"

    def may(self, needed: Role) -> bool:
        """Whether this role is at least `needed`."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class User:
    """One account; `disabled` is when it was closed, None while it is open."""

    id: str
    name: str
    role: Role
    password_hash: str
    created: float
    disabled: float | None


@dataclass(frozen=True)
class Session:
    """A browser that has logged in."""

    token_hash: str
    user: User
    created: float
    seen: float
    expires: float


@dataclass(frozen=True)
class ApiKey:
    """A program's credential `prefix.secret`; `revoked` is None while it is valid."""

    id: str
    user: User
    name: str
    prefix: str
    secret_hash: str
    created: float
    seen: float | None
    revoked: float | None


class AccountStore:
    """The accounts of one database; safe to share between threads."""

    def __init__(
        self,
        database: Database,
        *,
        make_ids: ids.Ids | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._ids = make_ids or ids.Ids(clock)
        self._clock = clock

    def create_user(self, name: str, role: Role, password_hash: str) -> User:
        """A new user. Names are compared case-folded.

        Raises:
            Conflict: the name is taken.
        """
        values = {
            "id": self._ids.new(ids.USER), "name": _user_name(name), "role": role,
            "password_hash": checked_text("The password hash", password_hash, longest=1000),
            "created": self._clock(), "disabled": None,
        }  # fmt: skip
        with _taken(f"There is a user named {name!r} already."):
            self._database.write(lambda c: c.execute(insert(users).values(values)))
        return self.get_user(str(values["id"]))

    def get_user(self, user_id: str) -> User:
        """The user.

        Raises:
            NotFound: there is none.
        """
        query = select(users).where(users.c.id == ids.require_id(ids.USER, user_id))
        if (row := self._one(query)) is None:
            raise ids.not_found(ids.USER, user_id)
        return _user(row)

    def find_user(self, name: str) -> User:
        """The user called `name`, disabled or not.

        Raises:
            NotFound: there is none.
        """
        row = self._one(select(users).where(users.c.name == _user_name(name)))
        if row is None:
            raise NotFound(f"There is no user {name[:40]!r}.")
        return _user(row)

    def list_users(self) -> tuple[User, ...]:
        """Every user, by name."""
        with self._database.reading() as connection:
            return tuple(_user(row) for row in connection.execute(select(users).order_by("name")))

    def set_password(self, user_id: str, password_hash: str) -> None:
        """Changes the password and ends every session of the user."""
        self.get_user(user_id)

        def work(connection: Connection) -> None:
            change = update(users).where(users.c.id == user_id)
            connection.execute(change.values(password_hash=password_hash))
            connection.execute(delete(sessions).where(sessions.c.user_id == user_id))

        self._database.write(work)

    def set_role(self, user_id: str, role: Role) -> None:
        """Changes the role.

        Raises:
            Conflict: the last administrator would lose the role.
        """
        self._change_user(user_id, role=role)

    def disable_user(self, user_id: str) -> None:
        """Closes the account: its sessions end, and its keys are refused until it is enabled.

        Raises:
            Conflict: it is the last administrator's.
        """
        self._change_user(user_id, disabled=self._clock())

    def enable_user(self, user_id: str) -> None:
        """Opens the account again."""
        self._change_user(user_id, disabled=None)

    def create_session(self, user_id: str, token_hash: str, *, expires: float) -> Session:
        """A session that is found by the sha256 of its token until `expires`."""
        now = self._clock()
        values = {
            "token_hash": _digest(token_hash), "user_id": self.get_user(user_id).id,
            "created": now, "seen": now, "expires": expires,
        }  # fmt: skip
        self._database.write(lambda c: c.execute(insert(sessions).values(values)))
        return Session(token_hash, self.get_user(user_id), now, now, expires)

    def find_session(self, token_hash: str) -> Session | None:
        """The session, if it is neither expired nor revoked and its user not disabled."""
        query = (
            select(sessions, *_labelled_user())
            .join(users, users.c.id == sessions.c.user_id)
            .where(
                sessions.c.token_hash == _digest(token_hash),
                sessions.c.expires > self._clock(),
                users.c.disabled.is_(None),
            )
        )
        if (row := self._one(query)) is None:
            return None
        return Session(row.token_hash, _joined_user(row), row.created, row.seen, row.expires)

    def extend_session(self, token_hash: str, *, expires: float) -> None:
        """Notes that the session was used, and until when it now lasts."""
        change = update(sessions).where(sessions.c.token_hash == _digest(token_hash))
        change = change.values(seen=self._clock(), expires=expires)
        self._database.write(lambda c: c.execute(change))

    def revoke_session(self, token_hash: str) -> None:
        """Ends one session, at once; unknown ones are passed over."""
        gone = sessions.c.token_hash == _digest(token_hash)
        self._database.write(lambda c: c.execute(delete(sessions).where(gone)))

    def revoke_sessions(self, user_id: str) -> int:
        """Ends every session of a user; how many."""
        gone = sessions.c.user_id == user_id
        return self._database.write(lambda c: c.execute(delete(sessions).where(gone)).rowcount)

    def purge_sessions(self) -> int:
        """Forgets expired sessions; how many."""
        gone = sessions.c.expires <= self._clock()
        return self._database.write(lambda c: c.execute(delete(sessions).where(gone)).rowcount)

    def create_key(self, user_id: str, name: str, prefix: str, secret_hash: str) -> ApiKey:
        """A new API key.

        Raises:
            Conflict: the prefix is taken: draw another.
        """
        values = {
            "id": self._ids.new(ids.KEY), "user_id": self.get_user(user_id).id,
            "name": checked_text("The name of a key", name, longest=200),
            "prefix": checked_text("The prefix of a key", prefix, shortest=4, longest=40),
            "secret_hash": _digest(secret_hash), "created": self._clock(),
        }  # fmt: skip
        with _taken("An API key with this prefix exists already."):
            self._database.write(lambda c: c.execute(insert(api_keys).values(values)))
        return self._keys(api_keys.c.id == values["id"])[0]

    def find_key(self, prefix: str) -> ApiKey | None:
        """The valid key of an open account with this prefix; its secret is yet to be compared."""
        if len(prefix) > 40 or not prefix.isascii() or not prefix.isprintable():
            return None
        conditions = (api_keys.c.revoked.is_(None), users.c.disabled.is_(None))
        return next(iter(self._keys(api_keys.c.prefix == prefix, *conditions)), None)

    def list_keys(self, user_id: str | None = None) -> tuple[ApiKey, ...]:
        """The keys of a user or of all, revoked ones too, newest first."""
        return self._keys(*(() if user_id is None else (api_keys.c.user_id == user_id,)))

    def touch_key(self, key_id: str) -> None:
        """Notes that the key was used."""
        change = update(api_keys).where(api_keys.c.id == ids.require_id(ids.KEY, key_id))
        self._database.write(lambda c: c.execute(change.values(seen=self._clock())))

    def revoke_key(self, key_id: str, *, user_id: str | None = None) -> None:
        """Makes the key invalid at once, and for good.

        Raises:
            NotFound: there is no such key (of the user), or it is revoked already.
        """
        ids.require_id(ids.KEY, key_id)
        change = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked.is_(None))
        if user_id is not None:
            change = change.where(api_keys.c.user_id == user_id)
        change = change.values(revoked=self._clock())
        if self._database.write(lambda c: c.execute(change).rowcount) == 0:
            raise ids.not_found(ids.KEY, key_id)

    def _change_user(self, user_id: str, **values: Any) -> None:
        self.get_user(user_id)

        admins = select(func.count()).where(users.c.role == Role.ADMIN, users.c.disabled.is_(None))

        def work(connection: Connection) -> None:
            self._database.advisory_lock(connection, _ACCOUNTS)
            before = connection.scalar(admins)
            connection.execute(update(users).where(users.c.id == user_id).values(**values))
            if values.get("disabled") is not None:
                connection.execute(delete(sessions).where(sessions.c.user_id == user_id))
            if before and connection.scalar(admins) == 0:
                raise Conflict("This is the last administrator: appoint another one first.")

        self._database.write(work)

    def _keys(self, *conditions: Any) -> tuple[ApiKey, ...]:
        query = select(api_keys, *_labelled_user()).join(users, users.c.id == api_keys.c.user_id)
        with self._database.reading() as connection:
            rows = connection.execute(query.where(*conditions).order_by(api_keys.c.id.desc()))
            return tuple(
                ApiKey(
                    row.id, _joined_user(row), row.name, row.prefix, row.secret_hash,
                    row.created, row.seen, row.revoked,
                )
                for row in rows
            )  # fmt: skip

    def _one(self, query: Any) -> Row[Any] | None:
        with self._database.reading() as connection:
            row: Row[Any] | None = connection.execute(query).one_or_none()
            return row


def _user_name(name: str) -> str:
    return checked_text("The user name", folded(name.strip()), shortest=1, longest=200)


def _digest(text: str) -> str:
    if DIGEST.fullmatch(text) is None:
        raise ValueError("tokens and secrets are stored as 64 hexadecimal digits")
    return text


@contextmanager
def _taken(sentence: str) -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError as error:
        raise Conflict(sentence) from error


def _labelled_user() -> list[Any]:
    return [column.label(f"user_{column.name}_") for column in users.c]


def _joined_user(row: Row[Any]) -> User:
    return User(
        row.user_id_, row.user_name_, Role(row.user_role_), row.user_password_hash_,
        row.user_created_, row.user_disabled_,
    )  # fmt: skip


def _user(row: Row[Any]) -> User:
    return User(row.id, row.name, Role(row.role), row.password_hash, row.created, row.disabled)
