"""`/`: from one choice and one button to pictures; every option one step away."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from izograf.engine.tasks import EDIT
from izograf.schema.card import ModelCard
from izograf.schema.errors import IzografError, NotFound
from izograf.schema.job import Status
from izograf.schema.request import GenerationRequest
from izograf.service import orders
from izograf.service.access import Identity, User, Viewer
from izograf.service.context import Running, Service
from izograf.service.pages import composer, live
from izograf.service.pages.composer import Typed
from izograf.service.pages.models import Sheet, sample_sheet
from izograf.service.pages.pictures import edit_link
from izograf.service.pages.rendering import language_of, local_path, render, translator_of

router = APIRouter(include_in_schema=False)

FILLED = {"model", "class", "prompt", "dice"}  # one of them in the address fills the form
FORM = "form"  # the field of errors that belong to no field


@router.get("/")
def show_form(request: Request, service: Running, identity: Viewer) -> Response:
    query = request.query_params
    if (picture := query.get("from")) is not None:
        image = service.store.images.get(picture, owner=identity.visible_owner)
        if orders.originals_of(service, image):
            return RedirectResponse(edit_link(image), 303)
        typed = _typed_from_picture(service, identity, picture)
    elif FILLED & query.keys():
        typed = composer.typed_in(query)
        typed = replace(typed, options={}) if "reset" in query else typed
        typed = composer.faster(service, typed) if "fast" in query else typed
        typed = replace(typed, seed="") if "dice" in query else typed
    else:
        typed = _typed_before(service, identity, query.get("job"), keep="keep" in query)
    return _page(request, service, identity, typed)


@router.get("/generate")
def old_address(request: Request, identity: Viewer) -> Response:  # noqa: ARG001
    """Where a form with errors was shown: its links lead here."""
    query = request.url.query
    return RedirectResponse(f"/?{query}" if query else "/", 303)


@router.post("/generate")
async def submit_form(request: Request, service: Running, identity: User) -> Response:
    form = await request.form()
    typed = composer.typed_in(form)
    return await run_in_threadpool(_submitted, request, service, identity, typed)


@router.get("/jobs/{job_id}/card")
def show_card(request: Request, job_id: str, service: Running, identity: Viewer) -> Response:
    """A piece of the page: a job that is under way or failed, or the pictures it made."""
    job = service.store.jobs.get(job_id, owner=identity.visible_owner)
    images = service.store.images.of_job(job.id) if job.status is Status.DONE else ()
    if images:
        return render(request, "_result.html", result=live.results(images)[0], next="/")
    return render(request, "_job.html", live=live.live_job(service, job), next="/")


@router.post("/jobs/{job_id}/cancel")
def cancel_job(
    job_id: str,
    service: Running,
    identity: User,
    next: Annotated[str, Form()] = "/",  # noqa: A002
) -> Response:
    orders.cancel(service, identity, job_id)
    return RedirectResponse(local_path(next, "/"), 303)


@router.post("/jobs/{job_id}/retry")
def retry_job(job_id: str, service: Running, identity: User) -> Response:
    job = orders.retry(service, identity, job_id)
    return RedirectResponse(f"{'/edit' if job.task == EDIT else '/'}?job={job.id}", 303)


def _submitted(request: Request, service: Service, identity: Identity, typed: Typed) -> Response:
    t = translator_of(request)
    try:
        order, errors = composer.checked(service, t, typed)
        if errors:
            return _page(request, service, identity, typed, errors, 422)
        job = orders.submit(service, identity, order)
    except IzografError as error:
        at = "model" if isinstance(error, NotFound) else FORM
        return _page(request, service, identity, typed, {at: str(error)}, error.http_status)
    query = {"job": job.id} | ({"keep": "1"} if typed.keep else {})
    return RedirectResponse(f"/?{urlencode(query)}", 303)


def _page(
    request: Request,
    service: Service,
    identity: Identity,
    typed: Typed,
    errors: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    form = composer.compose(service, translator_of(request), typed, errors or {})
    if form is not None:
        form = replace(form, sheet=_sheet(service, form.card, language_of(request)))
    jobs = [job for job in live.active_jobs(service, identity.owner) if live.is_generation(job)]
    cards = live.live_jobs(service, jobs)
    followed = _followed(service, identity, request.query_params.get("job"))
    if followed is not None and all(card.job.id != followed.job.id for card in cards):
        cards.insert(0, followed)
    return render(
        request, "generate.html", status=status, form=form, cards=cards,
        results=live.recent_results(service, identity), errors=errors or {},
        waiting=any(card.active for card in cards), next="/",
    )  # fmt: skip


def _sheet(service: Service, card: ModelCard, language: str) -> Sheet | None:
    """The samples by which the classes, or what prompts give, are shown."""
    for model in service.catalogue.models():
        if model.name == card.name and (card.classes or card.examples):
            return sample_sheet(model.folder, card, language)
    return None


def _followed(service: Service, identity: Identity, job_id: str | None) -> live.LiveJob | None:
    """The job that the address names, unless its pictures are there already."""
    try:
        job = service.store.jobs.get(job_id or "", owner=identity.visible_owner)
    except IzografError:
        return None
    return None if job.status is Status.DONE else live.live_job(service, job)


def _typed_from_picture(service: Service, identity: Identity, image_id: str) -> Typed:
    image = service.store.images.get(image_id, owner=identity.visible_owner)
    made = live.request_in(image.record)
    return Typed() if made is None else composer.typed_from(made.single(image.seed), keep=True)


def _typed_before(service: Service, identity: Identity, job_id: str | None, *, keep: bool) -> Typed:
    """The form as it was for the followed job, or else for the newest one."""
    before = _request_before(service, identity, job_id)
    if before is None:
        return Typed()
    typed = composer.typed_from(replace(before, towards={}), keep=keep)
    if job_id is None:  # another day, another wish: only what was drawn, not how
        typed = replace(typed, options={})
    return typed if keep else replace(typed, seed="")


def _request_before(
    service: Service, identity: Identity, job_id: str | None
) -> GenerationRequest | None:
    try:
        if job_id is not None:
            return service.store.jobs.get(job_id, owner=identity.visible_owner).request
    except IzografError:
        return None
    page = service.store.jobs.list_jobs(owner=identity.owner, limit=5)
    return next((job.request for job in page.items if live.is_generation(job)), None)
