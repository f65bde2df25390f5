"""The pages: server-rendered, usable without scripts, in English and Russian.

Every module named in `MODULES` has a `router`; one that is not written yet is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
from os import PathLike, stat_result
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).resolve().parent.parent / "static"
MODULES = (
    "generate", "edit", "gallery", "picture", "compare", "models", "collections", "variations",
    "queue", "account", "admin", "imports", "help", "styles",
)  # fmt: skip


def _routers() -> tuple[APIRouter, ...]:
    """The router of every module that is there."""
    found = []
    for name in MODULES:
        full = f"{__name__}.{name}"
        if importlib.util.find_spec(full) is not None:
            found.append(importlib.import_module(full).router)
    return tuple(found)


class Assets(StaticFiles):
    """Static files that a browser asks for again: an upgrade must not mix two versions."""

    def file_response(
        self,
        full_path: str | PathLike[str],
        stat_result: stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


def static_files() -> StaticFiles:
    return Assets(directory=STATIC)


def error_page(request: Request, status: int, code: str, detail: str) -> Response:
    """The page that says what happened, why, and what to do."""
    from izograf.service.pages import errors

    return errors.page(request, status, code, detail)


ROUTERS: tuple[APIRouter, ...] = _routers()
