"""Structured logs: every module logs with the standard library, structlog renders the lines.

A line carries the request and the job it belongs to, where there is one. It never carries what a
user asked for: paths are written without their query, exceptions without the values of variables.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from izograf.service.metrics import Metrics

log = logging.getLogger(__name__)

QUIET = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi", "alembic", "PIL", "asyncio")
"""Loggers of libraries, of which only warnings are of interest."""

LONGEST_PATH = 200
_JOB = re.compile(r"job_[0-9a-z]{26}")
_UNREMARKABLE = ("/static/", "/healthz", "/readyz", "/metrics")


def configure_logs(
    style: Literal["console", "json"], *, stream: TextIO | None = None, level: int = logging.INFO
) -> None:
    """Sends the log of the whole process to `stream` (standard error by default)."""
    target = sys.stderr if stream is None else stream
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # text alone: no local variables
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _renderer(style, target),
        ],
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _renderer(style: str, stream: TextIO) -> structlog.typing.Processor:
    if style == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )


class AccessLog:
    """Writes one line for every answer and counts it; outermost, so that it sees refusals too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer: dict[str, Any] = {"status": 499}  # the client went away before there was one
        began = time.perf_counter()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                answer["headers"] = message.get("headers", ())
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            answer["status"] = 500
            raise
        finally:
            seconds = time.perf_counter() - began
            route = route_of(scope)
            self._metrics.request_ended(scope["method"], route, answer["status"], seconds)
            _write_line(scope, route, answer, seconds)


def route_of(scope: MutableMapping[str, Any]) -> str:
    """The route's template, so that there are few of them; `none` where no route was reached."""
    path = getattr(scope.get("route"), "path", None)
    if path is None and scope["path"].startswith("/static/"):
        return "/static"
    return path or "none"


def _write_line(scope: Scope, route: str, answer: dict[str, Any], seconds: float) -> None:
    status = answer["status"]
    unremarkable = status < 400 and scope["path"].startswith(_UNREMARKABLE)
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.split(b"?")[0].decode("ascii", "backslashreplace")[:LONGEST_PATH]
    identity, client = scope.get("identity"), scope.get("client")
    facts = {
        "method": scope["method"],
        "path": path,
        "route": route,
        "status": status,
        "milliseconds": round(1000 * seconds, 1),
        "client": client[0] if client else None,
        "user": getattr(identity, "name", None),
        "job_id": _job_of(scope, answer),
    }
    known = {name: value for name, value in facts.items() if value is not None}
    log.log(logging.DEBUG if unremarkable else logging.INFO, "request", extra=known)


def _job_of(scope: Scope, answer: dict[str, Any]) -> str | None:
    """The job that a request was about, or that it made."""
    named = str(scope.get("path_params", {}).get("job_id", ""))
    if _JOB.fullmatch(named):
        return named
    for name, value in answer.get("headers", ()):
        if name.lower() == b"location" and (found := _JOB.search(value.decode("latin-1"))):
            return found[0]
    return None
