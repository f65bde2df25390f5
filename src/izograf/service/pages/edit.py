"""`/edit`: a picture of one's own or of the gallery, repainted in whole or where a mask says."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from izograf.schema.errors import IzografError
from izograf.service import edits
from izograf.service.access import Identity, User, Viewer
from izograf.service.api.views import original_url
from izograf.service.context import Running, Service
from izograf.service.pages import composer
from izograf.service.pages.asked import asked_job
from izograf.service.pages.composer import Typed
from izograf.service.pages.gallery import see
from izograf.service.pages.pictures import FILE, Showing, may_change, visible_image
from izograf.service.pages.rendering import language_of, render, translator_of

router = APIRouter(include_in_schema=False)

FORM = "form"  # the field of errors that belong to no field


@router.get("/edit")
def show_form(
    request: Request,
    service: Running,
    identity: Viewer,
    image: str = "",
    job: str = "",
) -> Response:
    """Empty, with a picture of the gallery, or with what an earlier job began with."""
    query = request.query_params
    if job and "model" not in query:
        made = service.store.jobs.get(job, owner=identity.visible_owner)
        edits.original_of(made)  # of another job there is nothing to show
        typed = composer.typed_from(made.request, keep=False)
    else:
        typed = composer.typed_in(query)
        if "number" not in query:
            typed = replace(typed, number="1")
    return _page(request, service, identity, typed, image=image, job=job)


@router.post("/edit")
async def submit_form(
    request: Request,
    service: Running,
    identity: User,
    image: Annotated[str, Form()] = "",
    job: Annotated[str, Form()] = "",
    picture: Annotated[UploadFile | None, File()] = None,
    mask: Annotated[UploadFile | None, File()] = None,
) -> Response:
    typed = composer.typed_in(await request.form())
    content = b"" if picture is None else await picture.read()
    painted = b"" if mask is None else await mask.read()
    return await run_in_threadpool(
        _submitted, request, service, identity, typed, content, painted, image, job
    )


def _submitted(
    request: Request,
    service: Service,
    identity: Identity,
    typed: Typed,
    picture: bytes,
    mask: bytes,
    image: str,
    job: str,
) -> Response:
    t = translator_of(request)
    try:
        order, errors = composer.checked(service, t, typed)
        begun = None
        if picture:
            begun = edits.from_upload(service, picture)
        elif image:
            begun = edits.from_image(service, identity, image)
        elif job:
            begun = edits.from_job(service, identity, job)
        else:
            errors = {"picture": t("edit.no_picture"), **errors}
        if errors or begun is None:
            return _page(request, service, identity, typed, errors, image=image, job=job)
        made = edits.submit(service, identity, order, begun, mask)
    except IzografError as error:
        found = {FORM: str(error)}
        return _page(request, service, identity, typed, found, image=image, job=job)
    return see(f"/edit?{urlencode({'job': made.id})}#result")


def _page(
    request: Request,
    service: Service,
    identity: Identity,
    typed: Typed,
    errors: dict[str, str] | None = None,
    *,
    image: str,
    job: str,
) -> Response:
    showing = Showing(service.catalogue, language_of(request))
    asked = asked_job(service, identity, job or None, showing)
    source = ""
    if asked is not None:
        source = original_url(asked.job.id)
    elif image:
        source = FILE.format(visible_image(service, identity, image).id)
    form = composer.compose(service, translator_of(request), typed, errors or {}, editing=True)
    return render(
        request, "edit.html", status=422 if errors else 200, form=form, errors=errors or {},
        image="" if asked else image, asked=asked, source=source,
        may_change=may_change(identity),
    )  # fmt: skip
