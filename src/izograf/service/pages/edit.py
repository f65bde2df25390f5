"""`/edit`: a picture of one's own or of the gallery, repainted in whole or where a mask says."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from izograf.engine.tasks import EDIT, MASK
from izograf.schema.errors import IzografError
from izograf.schema.job import Job, Status
from izograf.service import edits
from izograf.service.access import Identity, User, Viewer
from izograf.service.api.views import original_url
from izograf.service.context import Running, Service
from izograf.service.edits import Beginning
from izograf.service.pages import composer
from izograf.service.pages.asked import asked_job
from izograf.service.pages.composer import Typed
from izograf.service.pages.gallery import see
from izograf.service.pages.pictures import FILE, Showing, Shown, may_change, visible_image
from izograf.service.pages.rendering import language_of, render, translator_of

router = APIRouter(include_in_schema=False)

FORM = "form"  # the field of errors that belong to no field
LOOKED_AT, MOST_EDITS = 50, 8  # of the newest jobs, and of the edits among them


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
    if image:
        visible_image(service, identity, image)  # a missing one is a missing page
    if job and "model" not in query:
        made = edits.edit_job(service, identity, job)
        typed = composer.typed_from(made.request, keep=False)
        if "seed" in query:  # of one picture among the job's
            typed = replace(typed, seed=query["seed"][: composer.LONGEST], number="1")
    else:
        typed = composer.typed_in(query)
        typed = typed if "number" in query else replace(typed, number="1")
    return _page(request, service, identity, typed, Beginning(image_id=image, job_id=job))


@router.post("/edit")
async def submit_form(
    request: Request,
    service: Running,
    identity: User,
    image: Annotated[str, Form()] = "",
    job: Annotated[str, Form()] = "",
    picture: Annotated[UploadFile | None, File()] = None,
    mask: Annotated[UploadFile | None, File()] = None,
    same_mask: Annotated[str, Form()] = "",
) -> Response:
    typed = composer.typed_in(await request.form())
    painted = b"" if mask is None else await mask.read()  # empty where nothing is marked
    if picture is not None and (content := await picture.read()):
        begin = Beginning(upload=content)
    else:
        begin = Beginning(image_id=image) if image else Beginning(job_id=job)
    return await run_in_threadpool(
        _submitted, request, service, identity, typed, begin, painted, bool(same_mask)
    )


def _submitted(
    request: Request,
    service: Service,
    identity: Identity,
    typed: Typed,
    begin: Beginning,
    mask: bytes,
    same_mask: bool,
) -> Response:
    t = translator_of(request)
    try:
        order, errors = composer.checked(service, t, typed)
        if begin == Beginning():
            errors = {"picture": t("edit.no_picture"), **errors}
        if errors:
            return _page(request, service, identity, typed, begin, errors)
        made = edits.submit(service, identity, order, begin, mask, same_mask=same_mask)
    except IzografError as error:
        found = {FORM: str(error)}
        return _page(request, service, identity, typed, begin, found, error.http_status)
    return see(f"/edit?{urlencode({'job': made.id})}#result")


def _page(
    request: Request,
    service: Service,
    identity: Identity,
    typed: Typed,
    begin: Beginning,
    errors: dict[str, str] | None = None,
    status: int = 422,
) -> Response:
    """The page; after an upload that was not accepted no other picture takes its place."""
    t = translator_of(request)
    errors = dict(errors or {})
    if errors and begin.upload:
        errors.setdefault("picture", t("edit.choose_again"))
    showing = Showing(service.catalogue, language_of(request))
    image, job = "", _shown_job(service, identity, begin.job_id)
    with suppress(IzografError):
        image = visible_image(service, identity, begin.image_id).id if begin.image_id else ""
    source = FILE.format(image) if image else original_url(job.id) if job else ""
    form = composer.compose(service, t, typed, errors, editing=True)
    return render(
        request, "edit.html", status=status if errors else 200, form=form, errors=errors,
        image=image, asked=job and asked_job(service, identity, job.id, showing), source=source,
        marked=job is not None and MASK in job.inputs, may_change=may_change(identity),
        history=_history(service, identity, showing, job),
    )  # fmt: skip


def _history(
    service: Service, identity: Identity, showing: Showing, shown: Job | None
) -> list[tuple[str, Shown]]:
    """The newest edits of the caller but the one that is shown: the job, and its first picture."""
    page = service.store.jobs.list_jobs(owner=identity.owner, status=Status.DONE, limit=LOOKED_AT)
    found = []
    for job in page.items:
        if job.task != EDIT or (shown is not None and job.id == shown.id):
            continue
        images = service.store.images.of_job(job.id)
        if images:  # they may have been deleted
            found.append((job.id, showing.one(images[0])))
        if len(found) == MOST_EDITS:
            break
    return found


def _shown_job(service: Service, identity: Identity, job_id: str) -> Job | None:
    """The job whose result the page shows; None where it names no edit that the caller may see."""
    if not job_id:
        return None
    with suppress(IzografError):
        return edits.edit_job(service, identity, job_id)
    return None
