"""`/import`: open a picture made here or by another program, to get its settings back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Request, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.request import GenerationRequest
from izograf.service.access import User
from izograf.service.api.imports import Imported, imported, sendable
from izograf.service.context import Running, Service
from izograf.service.pages.pictures import generate_link
from izograf.service.pages.rendering import render, translator_of

router = APIRouter(include_in_schema=False)


@router.get("/import")
def form(request: Request, identity: User) -> Response:  # noqa: ARG001
    return _page(request)


@router.post("/import")
async def open_picture(
    request: Request,
    service: Running,
    identity: User,  # noqa: ARG001
    picture: Annotated[UploadFile | None, File()] = None,
) -> Response:
    if picture is None or not (content := await picture.read()):
        problem = translator_of(request)("imports.none")
        return await run_in_threadpool(_page, request, problem=problem)
    return await run_in_threadpool(_opened, request, service, content)


def _opened(request: Request, service: Service, content: bytes) -> Response:
    """The form of the first page, filled in; before it what could not be kept, if anything."""
    try:
        found = sendable(imported(service.catalogue, content, service.settings.default_model))
    except (InvalidInput, NotFound) as error:
        return _page(request, problem=str(error))
    order = GenerationRequest.from_json(found.request)
    link = generate_link(order, seed=order.seed, num_images=order.num_images)
    if not found.remarks:
        return RedirectResponse(link, 303)
    return _page(request, found=found, link=link)


def _page(
    request: Request, *, problem: str = "", found: Imported | None = None, link: str = ""
) -> Response:
    status = 422 if problem else 200
    return render(request, "import.html", status=status, problem=problem, found=found, link=link)
