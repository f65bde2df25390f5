"""Error pages: what happened, why, and what to do; never a traceback."""

from __future__ import annotations

import logging

from fastapi import Request
from starlette.responses import PlainTextResponse, Response

from izograf.service.pages.rendering import render, translator_of
from izograf.service.problems import RETRY_SECONDS

log = logging.getLogger(__name__)

LIKE = {401: 403, 405: 404, 410: 404, 413: 422, 400: 422, 409: 422, 501: 500, 504: 503, 502: 503}
RETRY = frozenset({429, 503})


def page(request: Request, status: int, code: str, detail: str) -> Response:
    """The page of an error; plain text should even that fail."""
    try:
        return render(
            request, "error.html", status=status, code_number=status, code=code, detail=detail,
            kind=_kind(request, status), request_id=request.scope.get("request_id", ""),
            headers={"Retry-After": str(RETRY_SECONDS)} if status in RETRY else {},
        )  # fmt: skip
    except Exception:
        log.exception("The error page failed.")
        return PlainTextResponse(detail or code, status)


def _kind(request: Request, status: int) -> str:
    """Which of the texts fits: of this status, of one like it, of its class."""
    t = translator_of(request)
    for kind in (status, LIKE.get(status), 500 if status >= 500 else 422):
        if kind is not None and t.has(f"errors.{kind}.title"):
            return str(kind)
    return "500"
