"""The web application: every router, what errors become, and the gate in front of it all."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from izograf import __version__
from izograf.schema.errors import IzografError
from izograf.service import pages, problems
from izograf.service.access import OPEN, declared_routes, role_needed
from izograf.service.api import ROUTERS as API
from izograf.service.api.description import describe
from izograf.service.context import Service
from izograf.service.gate import INTERNAL, Gate
from izograf.service.logs import AccessLog
from izograf.service.security import wants_page

log = logging.getLogger(__name__)


def create_app(service: Service) -> FastAPI:
    """The application around a running service (see `run.running_service`)."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.hub.open()
        yield
        await service.hub.close()

    app = FastAPI(
        title="Izograf", version=__version__, summary="Conditional image generation.",
        openapi_url="/api/v1/openapi.json", docs_url=None, redoc_url=None, lifespan=lifespan,
    )  # fmt: skip
    app.state.service = service
    app.openapi = partial(describe, app)  # type: ignore[method-assign]
    for router in (*API, *pages.ROUTERS):
        app.include_router(router)
    app.mount("/static", pages.static_files(), name="static")
    app.add_exception_handler(IzografError, _izograf_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    refuse_open_routes(app)
    app.add_middleware(Gate, service=service, answer=_answer)
    app.add_middleware(AccessLog, metrics=service.metrics)
    return app


def refuse_open_routes(app: FastAPI) -> None:
    """
    Raises:
        RuntimeError: a route outside `OPEN` declares no role.
    """
    routes = [route for route in declared_routes(app.routes) if route.path not in OPEN]
    for route in routes:
        if role_needed(route.dependant) is None:
            raise RuntimeError(f"The route {route.path} declares no role.")
    if not routes:
        raise RuntimeError("No routes were found to be checked.")


def _izograf_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, IzografError)
    if error.http_status >= 500:
        log.error("%s %s: %s", request.method, request.scope["path"], error)
    return _answer(request, error.http_status, problems.code_of(error), str(error), error)


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if problems.is_of_another_kind(request.headers, error) and not wants_page(request):
        detail = "The body must be JSON: send Content-Type: application/json."
        return _answer(request, 415, "unsupported_media_type", detail)
    return _answer(request, 422, "invalid_input", problems.sentence_of(error))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, detail = error.status_code, problems.http_detail(request.method, error)
    answer = _answer(request, status, problems.http_code(status), detail)
    answer.headers.update(error.headers or {})
    if status == 405:
        answer.headers["Allow"] = ", ".join(_methods_at(request))
    return answer


def _methods_at(request: Request) -> list[str]:
    """Every method that a route at this path takes; the router names those of the first only."""
    found: set[str] = set()
    for route in declared_routes(request.app.routes):
        if route.path_regex.match(request.url.path):
            found |= route.methods or set()
    return sorted(found)


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return _answer(request, 500, "internal_error", INTERNAL)


def _answer(
    request: Request, status: int, code: str, detail: str, error: IzografError | None = None
) -> Response:
    """A page for a browser that asked for a page, an error document for everybody else."""
    if wants_page(request):
        # without an error of ours the sentence repeats in English what the page says anyway
        return pages.error_page(request, status, code, detail if error is not None else "")
    if error is not None:
        return problems.refusal_of(request.scope["path"], error)
    return problems.refusal(request.scope["path"], status, code, detail)
