"""`/images/{id}`: one picture, every fact of how it was made, and what can be made from it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, IzografError, NotFound
from izograf.schema.job import StoredImage
from izograf.schema.record import EDITED
from izograf.schema.request import MAX_SEED, GenerationRequest
from izograf.service import orders
from izograf.service.access import Identity, User, Viewer
from izograf.service.context import Running, Service
from izograf.service.deletion import delete_images
from izograf.service.pages.asked import asked_job
from izograf.service.pages.gallery import chosen_collection, own_collections, see
from izograf.service.pages.pictures import (
    Showing,
    class_words,
    edit_link,
    generate_link,
    may_change,
    request_of,
    visible_image,
    whole_number,
)
from izograf.service.pages.rendering import language_of, local_path, render
from izograf.store.images import ImageFilter
from izograf.store.pages import MAX_LIMIT

router = APIRouter(include_in_schema=False)

NEIGHBOURS = 8
BEFORE = 4  # of the neighbours
FRAMES = 8
MOST_FRAMES = 32


@router.get("/images/{image_id}")
def picture(
    image_id: str,
    request: Request,
    service: Running,
    identity: Viewer,
    verify: str | None = None,
    vary: str | None = None,
    strip: str | None = None,
) -> Response:
    return _page(request, service, identity, image_id, verify=verify, vary=vary, strip=strip)


def _page(
    request: Request,
    service: Service,
    identity: Identity,
    image_id: str,
    *,
    verify: str | None = None,
    vary: str | None = None,
    strip: str | None = None,
    problem: str = "",
    typed: Mapping[str, str] | None = None,
) -> Response:
    """The page; after a form that could not be carried out, with what was typed and why."""
    language = language_of(request)
    image = visible_image(service, identity, image_id)
    showing = Showing(service.catalogue, language)
    asked, card = request_of(image), _card(service, image)
    edited = edit_link(image) if orders.originals_of(service, image) else ""
    return render(
        request,
        "picture.html",
        status=422 if problem else 200,
        shown=showing.one(image),
        image=image,
        asked=asked,
        deleted=_is_deleted(service, image),
        facts=_facts(service, image),
        again=edited or (asked and generate_link(asked, seed=image.seed)),
        edited=edited,
        from_noise=EDITED not in image.record,
        same_weights=card is not None and card.fingerprint == image.record.get("model_sha256"),
        model_known=card is not None,
        classes=class_words([card], language) if card else {},
        others=_others(service, image, asked),
        collections=own_collections(service, identity),
        verification=asked_job(service, identity, verify, showing),
        variations=asked_job(service, identity, vary, showing),
        strip=asked_job(service, identity, strip, showing),
        first_neighbour=first_neighbour(image.seed),
        frames=FRAMES,
        most_frames=_most_frames(service),
        problem=problem,
        typed=typed or {},
        may_change=may_change(identity),
    )


def _facts(service: Service, image: StoredImage) -> Mapping[str, Any]:
    """What is known of how the picture was made, from its record and its job."""
    record = image.record
    job = None
    with suppress(NotFound):  # forgotten after its time; the picture keeps its own record
        job = service.store.jobs.get(image.job_id)
    environment = record.get("environment", {})
    return {
        "attempt": job.attempt if job else None,
        "version": record.get("version", ""),
        "batch": record.get("batch"),
        "mixed": "composition" in record,
        "environment": dict(environment) if isinstance(environment, Mapping) else {},
        "model_sha256": str(record.get("model_sha256", "")),
        "pixels_sha256": str(record.get("pixels_sha256", "")),
        "file_sha256": image.sha256,
    }


def _is_deleted(service: Service, image: StoredImage) -> bool:
    wanted = ImageFilter(job_id=image.job_id, deleted=True)
    deleted = service.store.images.list_images(wanted, limit=MAX_LIMIT).items
    return any(one.id == image.id for one in deleted)


def _card(service: Service, image: StoredImage) -> ModelCard | None:
    known = {card.name: card for card in service.catalogue.generators()}
    return known.get(image.model)


def _others(service: Service, image: StoredImage, asked: GenerationRequest | None) -> str:
    """Where the same condition and seed are compared with other models; empty if there are none."""
    if EDITED in image.record:
        return ""
    name = asked.condition.get("class", "") if asked else ""
    models = [
        card.name
        for card in service.catalogue.generators()
        if card.name != image.model and (not name or name in {c.name for c in card.classes})
    ]
    if not models:
        return ""
    chosen = [("model", model) for model in (image.model, *models[:3])]
    condition = [("class", name)] if name else []
    return "/compare?" + urlencode([*chosen, *condition, ("seed", image.seed), ("num_images", 1)])


def _most_frames(service: Service) -> int:
    return min(MOST_FRAMES, service.settings.max_images_per_job)


def first_neighbour(seed: int) -> int:
    """The smallest of the seeds around `seed`."""
    return min(max(0, seed - BEFORE), MAX_SEED - NEIGHBOURS + 1)


@router.post("/images/{image_id}/verify")
def verify(image_id: str, request: Request, service: Running, identity: User) -> Response:
    image = visible_image(service, identity, image_id)
    try:
        job = orders.verify(service, identity, image)
    except IzografError as error:
        return _page(request, service, identity, image_id, problem=str(error))
    return see(f"/images/{image.id}?verify={job.id}#verify")


@router.post("/images/{image_id}/vary")
def vary(image_id: str, request: Request, service: Running, identity: User) -> Response:
    image = visible_image(service, identity, image_id)
    try:
        seed = first_neighbour(image.seed)
        wanted = replace(_made_by(image), seed=seed, num_images=NEIGHBOURS, towards={})
        job = orders.vary(service, identity, image, wanted)
    except IzografError as error:
        return _page(request, service, identity, image_id, problem=str(error))
    return see(f"/images/{image.id}?vary={job.id}#vary")


@router.post("/images/{image_id}/strip")
def strip(
    image_id: str,
    request: Request,
    service: Running,
    identity: User,
    to_seed: Annotated[str, Form()] = "",
    to_class: Annotated[str, Form()] = "",
    frames: Annotated[str, Form()] = str(FRAMES),
) -> Response:
    image = visible_image(service, identity, image_id)
    typed = {"to_seed": to_seed, "to_class": to_class, "frames": frames}
    try:
        if EDITED in image.record:
            raise InvalidInput("A strip begins with noise, and this picture began with another.")
        wanted = replace(
            _made_by(image),
            seed=image.seed,
            num_images=whole_number("frames", frames),
            towards=_towards(to_seed, to_class),
        )
        job = orders.submit(service, identity, wanted)
    except IzografError as error:
        return _page(request, service, identity, image_id, problem=str(error), typed=typed)
    return see(f"/images/{image.id}?strip={job.id}#strip")


def _towards(to_seed: str, to_class: str) -> Mapping[str, int | str]:
    """
    Raises:
        InvalidInput: neither was given, or the seed is no number.
    """
    towards: dict[str, int | str] = {}
    if to_seed.strip():
        towards["seed"] = whole_number("to_seed", to_seed)
    if to_class.strip():
        towards["class"] = to_class.strip()
    if not towards:
        raise InvalidInput("Say where the strip leads: another seed, another class, or both.")
    return towards


def _made_by(image: StoredImage) -> GenerationRequest:
    """
    Raises:
        InvalidInput: the picture's record does not tell.
    """
    asked = request_of(image)
    if asked is None:
        raise InvalidInput("The picture's record does not say how it was made.")
    return asked


@router.post("/images/{image_id}/favourite")
def mark(
    image_id: str,
    service: Running,
    identity: User,
    favourite: Annotated[str, Form()] = "yes",
    next: Annotated[str, Form()] = "",  # noqa: A002
) -> Response:
    """The heart beside a picture, on whatever page: back to that page afterwards."""
    image = visible_image(service, identity, image_id)
    owner = identity.visible_owner
    service.store.images.set_favourite(image.id, favourite == "yes", owner=owner)
    return see(local_path(next, f"/images/{image.id}"))


@router.post("/images/{image_id}/change")
def change(
    image_id: str,
    service: Running,
    identity: User,
    action: Annotated[str, Form()],
    to_collection: Annotated[str, Form()] = "",
    new_collection: Annotated[str, Form()] = "",
) -> Response:
    """Delete, restore, add to a collection: what the buttons do without scripts."""
    image = visible_image(service, identity, image_id)
    owner, images = identity.visible_owner, service.store.images
    if action == "delete":
        delete_images(service, identity, [image.id])
        return see(f"/gallery?undo={image.id}")
    if action == "restore":
        images.restore([image.id], owner=owner)
    elif action == "add":
        target = chosen_collection(service, identity, to_collection, new_collection)
        service.store.collections.add(identity.owner, target, [image.id])
        return see(f"/gallery?collection={target}")
    else:
        raise InvalidInput(f"A picture cannot be changed by {action[:40]!r}.")
    return see(f"/images/{image.id}")
