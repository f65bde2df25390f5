"""Who a request comes from: a browser's session, a program's key, or this machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from izograf.schema.errors import InvalidInput, NotFound, StorageError
from izograf.service.access import Identity, Unauthorised
from izograf.service.auth_secrets import digest, make_token, parse_key, password_fits, secret_fits
from izograf.service.context import Service
from izograf.service.settings import ServiceSettings
from izograf.store.accounts import Role, Session, User
from izograf.store.open import Store

COOKIE = "izograf_session"
SEEN_SECONDS = 300.0
"""How old a note of the last use may become before it is written anew."""

WRONG = "The name or the password is wrong."
NO_KEY = "This API key is not valid: it was revoked, or never was one."


@dataclass(frozen=True)
class Caller:
    """Who asks; `renewed` is the session's token when its cookie should be sent again."""

    identity: Identity
    renewed: str | None = None


def find_caller(service: Service, headers: Headers) -> Caller | None:
    """The caller that the request's credentials name; None without any. Reads the store.

    Raises:
        Unauthorised: it came with an `Authorization` that is not valid. A cookie that is not is
            as good as none.
    """
    if (authorization := headers.get("authorization")) is not None:
        return Caller(_identity_of_key(service, authorization))
    token = session_token(headers)
    return None if token is None else _caller_of_session(service, token)


def session_token(headers: Headers) -> str | None:
    """The token in the request's cookie."""
    cookies = cookie_parser("; ".join(headers.getlist("cookie")))
    token = cookies.get(COOKIE, "")
    return token if 0 < len(token) <= 100 else None


def identity_of_user(user: User, via: str) -> Identity:
    """Who a user is; their things carry the user's identifier."""
    return Identity(user.id, user.name, user.role, via)


def _identity_of_key(service: Service, authorization: str) -> Identity:
    scheme, _, text = authorization.partition(" ")
    given = parse_key(text.strip()) if scheme.casefold() == "bearer" else None
    key = None if given is None else service.store.accounts.find_key(given.prefix)
    if given is None or key is None or not secret_fits(key.secret_hash, given.secret):
        raise Unauthorised(NO_KEY)
    if key.seen is None or service.clock() - key.seen > SEEN_SECONDS:
        with suppress(StorageError):  # a busy database must not lock anybody out
            service.store.accounts.touch_key(key.id)
    return identity_of_user(key.user, "key")


def _caller_of_session(service: Service, token: str) -> Caller | None:
    session = service.store.accounts.find_session(digest(token))
    if session is None:
        return None
    renewed = _extend(service, session)
    return Caller(identity_of_user(session.user, "session"), token if renewed else None)


def _extend(service: Service, session: Session) -> bool:
    now = service.clock()
    if now - session.seen <= SEEN_SECONDS:
        return False
    with suppress(StorageError):
        expires = now + session_seconds(service.settings)
        service.store.accounts.extend_session(session.token_hash, expires=expires)
        return True
    return False


def log_in(service: Service, name: str, password: str, *, before: str | None = None) -> str:
    """A new session's token; the session `before`, whose token the browser still has, ends.

    Takes as long for a name that nobody has as for a wrong password.

    Raises:
        Unauthorised: name and password do not belong to an open account.
    """
    user = _find_user(service.store, name)
    open_hash = None if user is None or user.disabled is not None else user.password_hash
    fits = password_fits(open_hash, password)
    if user is None or not fits:
        raise Unauthorised(WRONG)
    if before is not None:
        service.store.accounts.revoke_session(digest(before))
    return begin_session(service, user)


def begin_session(service: Service, user: User) -> str:
    """The token of a new session of the user."""
    token = make_token()
    expires = service.clock() + session_seconds(service.settings)
    service.store.accounts.create_session(user.id, digest(token), expires=expires)
    return token


def log_out(service: Service, token: str | None) -> None:
    """Ends the session of that token."""
    if token is not None:
        service.store.accounts.revoke_session(digest(token))


def known_name(store: Store, name: str) -> str:
    """The name if a user has it, else nothing: people type passwords into the wrong field."""
    user = _find_user(store, name)
    return "" if user is None else user.name


def _find_user(store: Store, name: str) -> User | None:
    with suppress(NotFound, InvalidInput):
        return store.accounts.find_user(name)
    return None


def session_seconds(settings: ServiceSettings) -> int:
    """How long a session lasts after its last use."""
    return round(settings.session_hours * 3600)


def session_cookie(settings: ServiceSettings, token: str) -> str:
    """The `Set-Cookie` that hands a token to the browser; an empty token takes it away."""
    age = session_seconds(settings) if token else 0
    secure = "; Secure" if settings.secure_cookies else ""
    return f"{COOKIE}={token}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"


def refuse_unsafe_bind(settings: ServiceSettings, store: Store) -> None:
    """
    Raises:
        InvalidInput: others could connect, and there is no administrator who could log in.
    """
    if not settings.login_required:
        return
    users = store.accounts.list_users()
    if not any(user.role is Role.ADMIN and user.disabled is None for user in users):
        raise InvalidInput(
            f"Whoever reaches {settings.host} must log in, and there is no administrator yet: "
            "run izograf user add NAME --role admin first (with the same --data-dir)."
        )
