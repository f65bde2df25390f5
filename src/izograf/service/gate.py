"""The outermost application: who asks, and may this request go on at all.

In this order: the host must be ours, the caller is found, counted, and must be known (or the path
open), the request must not be another site's, its body not too large. Streams pass untouched.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from izograf.schema.errors import IzografError
from izograf.service import problems, security
from izograf.service.access import LOCAL, OPEN, Identity, Unauthorised
from izograf.service.auth import COOKIE, Caller, find_caller, session_cookie
from izograf.service.context import Service
from izograf.service.limits import RateLimit, client_address

Answer = Callable[[Request, int, str, str, IzografError | None], Response]
"""Makes the page or the problem document of an error."""

STATIC = "/static/"
UNCOUNTED = frozenset({"/healthz"})
INTERNAL = "Something went wrong inside the service; its log has the details."
SUBMISSION = re.compile(
    r"/api/v1/(?:jobs|edits|verify|(?:jobs|images)/[^/]+/(?:retry|verify|vary|strip|again))"
    r"|/v1/images/(?:generations|edits|variations)"
    r"|/(?:generate|edit|verify|compare|vary|variations|strip|strips)?"
    r"|/(?:jobs|queue|images|pictures)/[^/]+/(?:retry|verify|vary|strip|again|variations)"
)
"""Paths where a POST makes jobs."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The identifier of the request that is being answered."""


class Gate:
    """Finds the identity of every request; denies what has none unless its path is open."""

    def __init__(self, app: ASGIApp, service: Service, answer: Answer) -> None:
        self._app, self._service, self._answer = app, service, answer
        settings = service.settings
        self._hosts = security.allowed_hosts(settings)
        self._headers = security.security_headers(settings)
        self._requests = RateLimit(settings.requests_per_minute)
        self._jobs = RateLimit(settings.jobs_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # nothing here speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        scope["request_id"] = security.request_id_of(request.headers)
        request_id.set(scope["request_id"])
        structlog.contextvars.bind_contextvars(request_id=scope["request_id"])
        own = self._headers | {"x-request-id": scope["request_id"]}
        reply = Reply(send, own, keep_cache=scope["path"].startswith(STATIC))
        try:
            await self._admit(request, reply)
        except Unauthorised as error:
            await (await self._denial(request, error))(scope, receive, reply)
            return
        except IzografError as error:
            await (await self._refusal(request, error))(scope, receive, reply)
            return
        body = Body(receive, self._body_limit(request))
        await self._pass_on(request, body, reply)

    async def _admit(self, request: Request, reply: Reply) -> None:
        """Puts the caller's identity on the request, or raises why it may not go on."""
        path, headers = request.scope["path"], request.headers
        request.scope["identity"] = None
        if path not in security.ANY_HOST:
            security.check_host(headers, self._hosts)
        if not path.startswith(STATIC) and path not in security.ANY_HOST:
            caller = await self._caller(headers, path)
            if caller is not None:
                request.scope["identity"] = caller.identity
                reply.cookie = self._renewal(caller)
        self._count(request)
        if request.scope["identity"] is None and not is_open(path):
            raise Unauthorised("Log in, or send an API key: Authorization: Bearer <key>.")
        security.check_same_origin(request.method, headers)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > (limit := self._body_limit(request)):
            raise too_large(limit)

    async def _caller(self, headers: Headers, path: str) -> Caller | None:
        if not self._service.settings.login_required:
            security.check_not_forwarded(headers)
            return Caller(LOCAL)
        try:
            return await run_in_threadpool(find_caller, self._service, headers)
        except Unauthorised:
            if is_open(path):
                return None
            raise

    def _renewal(self, caller: Caller) -> str | None:
        if caller.renewed is None:
            return None
        return session_cookie(self._service.settings, caller.renewed)

    def _count(self, request: Request) -> None:
        path = request.scope["path"]
        if path.startswith(STATIC) or path in UNCOUNTED:
            return
        identity: Identity | None = request.scope["identity"]
        address = client_address(request.client.host if request.client else None)
        client = address if identity is None else identity.owner
        self._requests.take(client)
        if is_submission(request.method, path):
            self._jobs.take(client)

    def _body_limit(self, request: Request) -> int:
        settings = self._service.settings
        known = request.scope["identity"] is not None
        if known and security.is_upload(request.headers):
            return settings.max_upload_bytes
        return settings.max_body_bytes

    async def _pass_on(self, request: Request, body: Body, reply: Reply) -> None:
        try:
            await self._app(request.scope, body, reply.unless(body))
        except Exception:
            if not reply.started and not body.exceeded:
                answer = await run_in_threadpool(
                    self._answer, request, 500, "internal_error", INTERNAL, None
                )
                await answer(request.scope, body, reply)
            if not body.exceeded:
                raise  # for the log
        if body.exceeded and not reply.started:
            refusal = await self._refusal(request, too_large(body.limit))
            await refusal(request.scope, body, reply)

    async def _denial(self, request: Request, error: Unauthorised) -> Response:
        """A browser that asks for a page is led to the login, programs are told."""
        if request.method in ("GET", "HEAD") and security.wants_page(request):
            return RedirectResponse(security.login_address(request), 303)
        return await self._refusal(request, error)

    async def _refusal(self, request: Request, error: IzografError) -> Response:
        return await run_in_threadpool(
            self._answer, request, error.http_status, problems.code_of(error), str(error), error
        )


class Reply:
    """A `send` that completes the headers of the response on its way out."""

    def __init__(self, send: Send, own: dict[str, str], *, keep_cache: bool) -> None:
        self._send, self._own, self._keep_cache = send, own, keep_cache
        self.started = False
        self.cookie: str | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": self._completed(message)}
        await self._send(message)

    def unless(self, body: Body) -> Send:
        """The same, silent once the body was too large: then the gate itself answers."""

        async def send(message: Message) -> None:
            if self.started or not body.exceeded:
                await self(message)

        return send

    def _completed(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = security.secured(message.get("headers", ()), self._own.items())
        names = {name.lower() for name, _ in headers}
        if b"cache-control" not in names and not self._keep_cache:
            headers.append((b"cache-control", b"no-store"))
        if message["status"] == 401 and b"www-authenticate" not in names:
            headers.append((b"www-authenticate", b'Bearer realm="izograf"'))
        if self.cookie is not None and not _sets_session(headers):
            headers.append((b"set-cookie", self.cookie.encode("latin-1")))
        return headers


class Body:
    """A `receive` that counts what really arrives, whatever the request announced."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self.limit = receive, limit
        self._size = 0

    @property
    def exceeded(self) -> bool:
        return self._size > self.limit

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self.exceeded:
            raise too_large(self.limit)
        return message


def _sets_session(headers: security.RawHeaders) -> bool:
    own = f"{COOKIE}=".encode()
    return any(name.lower() == b"set-cookie" and value.startswith(own) for name, value in headers)


def too_large(limit: int) -> security.ContentTooLarge:
    """The refusal of a body larger than `limit` bytes."""
    return security.ContentTooLarge(f"The request is too large: at most {limit:,} bytes here.")


def is_open(path: str) -> bool:
    """Whether everybody may ask for `path`."""
    return path in OPEN or path.startswith(STATIC)


def is_submission(method: str, path: str) -> bool:
    """Whether the request makes jobs."""
    return method == "POST" and SUBMISSION.fullmatch(path) is not None
