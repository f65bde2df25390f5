"""`/login`, `/logout`, `/account`: a browser's session, one's own password and keys."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import APIRouter, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from izograf.schema.errors import InvalidInput, IzografError
from izograf.service import accounts, auth
from izograf.service.access import Identity, Unauthorised, Viewer, identity_of
from izograf.service.auth_secrets import password_fits
from izograf.service.context import Running, Service
from izograf.service.limits import TooManyRequests, client_address
from izograf.service.pages.rendering import render, translator_of
from izograf.service.security import safe_next
from izograf.store.accounts import User

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form(max_length=1000)]


@router.get("/login")
def login_page(request: Request, next: str = "/") -> Response:  # noqa: A002
    if identity_of(request) is not None:
        return RedirectResponse(safe_next(next), 303)
    return render(request, "login.html", next=safe_next(next), name="", problem="")


@router.post("/login")
async def log_in(
    request: Request,
    service: Running,
    name: Text = "",
    password: Text = "",
    next: Text = "/",  # noqa: A002
) -> Response:
    address = client_address(request.client.host if request.client else None)
    before = auth.session_token(request.headers)
    attempts = service.login_attempts
    try:
        attempts.begin(name, address)
        token = await anyio.to_thread.run_sync(
            lambda: auth.log_in(service, name, password, before=before),
            limiter=accounts.hashing_places(),
        )
    except TooManyRequests as error:
        return _refused(request, error, name, next)
    except Unauthorised as error:
        await run_in_threadpool(_note_failure, service, name, address)
        return _refused(request, error, name, next)
    attempts.succeeded(name, address)
    await run_in_threadpool(_note_success, service, name, address)
    headers = {"Set-Cookie": auth.session_cookie(service.settings, token)}
    return RedirectResponse(safe_next(next), 303, headers)


def _refused(request: Request, error: IzografError, name: str, target: str) -> Response:
    """The form again with what was typed, the password excepted."""
    t = translator_of(request)
    headers = {}
    if isinstance(error, TooManyRequests):
        problem = t("account.login.wait", count=error.retry_after)
        headers["Retry-After"] = str(error.retry_after)
    else:
        problem = t("account.login.wrong")
    return render(
        request, "login.html", status=error.http_status, headers=headers,
        next=safe_next(target), name=name[:200], problem=problem,
    )  # fmt: skip


def _note_failure(service: Service, name: str, address: str) -> None:
    known = auth.known_name(service.store, name)
    service.store.audit.record("", "login.failed", known, address=address)


def _note_success(service: Service, name: str, address: str) -> None:
    user = service.store.accounts.find_user(name)
    service.store.audit.record(user.name, "login.ok", user.id, address=address)


@router.post("/logout")
def log_out(request: Request, service: Running, identity: Viewer) -> Response:  # noqa: ARG001
    auth.log_out(service, auth.session_token(request.headers))
    headers = {"Set-Cookie": auth.session_cookie(service.settings, "")}
    return RedirectResponse("/login", 303, headers)


@router.get("/account")
def account(request: Request, service: Running, identity: Viewer, changed: int = 0) -> Response:
    return _page(request, service, identity, changed=bool(changed))


def _page(
    request: Request,
    service: Service,
    identity: Identity,
    *,
    changed: bool = False,
    new_key: str = "",
    problem: str = "",
) -> Response:
    """The page of somebody who is logged in; on this machine alone there is nobody."""
    is_user = identity.via != "loopback"
    return render(
        request, "account.html", status=422 if problem else 200, is_user=is_user,
        keys=service.store.accounts.list_keys(identity.owner) if is_user else (),
        changed=changed, new_key=new_key, problem=problem,
    )  # fmt: skip


@router.post("/account/keys")
def create_key(
    request: Request, service: Running, identity: Viewer, name: Annotated[str, Form()] = ""
) -> Response:
    own = _own(service, identity)
    _, text = accounts.add_key(service, identity, own.id, name.strip())
    return _page(request, service, identity, new_key=text)


@router.post("/account/keys/{key_id}/revoke")
def revoke_key(key_id: str, service: Running, identity: Viewer) -> Response:
    accounts.revoke_key(service, identity, key_id)
    return RedirectResponse("/account", 303)


@router.post("/account/password")
async def change_password(
    request: Request,
    service: Running,
    identity: Viewer,
    password: Text = "",
    new_password: Text = "",
) -> Response:
    """Ends every session of the user; this browser gets a new one."""
    own = await run_in_threadpool(_own, service, identity)
    address = client_address(request.client.host if request.client else None)
    try:
        service.login_attempts.begin(own.name, address)
        await _check_password(own, password, translator_of(request)("account.password.wrong"))
        hashed = await accounts.new_password(new_password, own.name)
    except (InvalidInput, TooManyRequests) as error:
        return await run_in_threadpool(_page, request, service, identity, problem=str(error))
    service.login_attempts.succeeded(own.name, address)

    def work() -> str:
        accounts.change_user(service, identity, own, password_hash=hashed)
        return auth.begin_session(service, own)

    cookie = auth.session_cookie(service.settings, await run_in_threadpool(work))
    return RedirectResponse("/account?changed=1", 303, {"Set-Cookie": cookie})


async def _check_password(user: User, password: str, sentence: str) -> None:
    limiter = accounts.hashing_places()
    if not await anyio.to_thread.run_sync(
        password_fits, user.password_hash, password, limiter=limiter
    ):
        raise InvalidInput(sentence)


def _own(service: Service, identity: Identity) -> User:
    """
    Raises:
        NotFound: nobody is logged in. InvalidInput: a program cannot change passwords.
    """
    if identity.via == "key":
        raise InvalidInput("Log in with a browser to change an account.")
    return service.store.accounts.get_user(identity.owner)
