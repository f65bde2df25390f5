"""`/v1`: OpenAI's images interface on the same jobs, so that its clients work unchanged.

A prompt is words, and the models here draw classes: the first class that the prompt names, in
English or Russian, is what is drawn, and `revised_prompt` says which one it was.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import File, Form, Request, UploadFile
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.job import Job, Status, StoredImage
from izograf.schema.labels import both_languages
from izograf.schema.options import SHORT_FORMS, OptionValue
from izograf.schema.prompting import compose_prompt
from izograf.schema.request import GenerationRequest
from izograf.service import edits, orders, problems
from izograf.service.access import Identity, User, Viewer
from izograf.service.api import shapes
from izograf.service.api.edits import first_fault, read_mask
from izograf.service.api.events import wait_until_ended
from izograf.service.api.jobs import Key
from izograf.service.api.routing import interface_router
from izograf.service.api.views import file_url
from izograf.service.context import Running, Service
from izograf.service.search import class_in_prompt

router = interface_router("/v1", "openai")

CLIENT_GONE = 499  # nobody reads this answer; it is for the log
SHOWN_CLASSES = 50
FORM_FIELDS = ("image", "mask", "prompt", "model", "n", "size", "response_format", "user")
NO_VARIATIONS = "Pictures are not varied without words: use /v1/images/edits with a prompt."


class ModelNotFound(NotFound):
    """No model of that name makes pictures here."""


class UnknownSubject(InvalidInput):
    """The prompt names nothing that the model can draw."""


class ImageOrder(BaseModel):
    """OpenAI's fields; any others are taken as options of the model, or passed over."""

    model_config = ConfigDict(extra="allow")

    prompt: str = Field(min_length=1, max_length=32_000)
    model: str | None = Field(None, max_length=200)
    n: int | None = Field(None, ge=1, description="how many pictures; 1 if left out")
    size: str | None = Field(None, max_length=40, description="the model's own size, or auto")
    response_format: Literal["b64_json", "url"] | None = Field(None, description="both if left out")
    user: str | None = None
    seed: shapes.Seed | None = Field(None, description="random when left out")
    stream: bool | None = Field(None, description="must not be true")


class ImageData(BaseModel):
    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None


class ImagesAnswer(BaseModel):
    created: int
    data: list[ImageData]
    output_format: str = "png"


class OpenAIModel(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "izograf"


class OpenAIModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


@router.get("/models", summary="Models that make pictures")
def list_openai_models(service: Running, identity: Viewer) -> OpenAIModels:  # noqa: ARG001
    return OpenAIModels(data=[OpenAIModel(id=card.name) for card in service.catalogue.generators()])


@router.get("/models/{name}", summary="One model")
def get_openai_model(name: str, service: Running, identity: Viewer) -> OpenAIModel:  # noqa: ARG001
    return OpenAIModel(id=generator_card(service, name).name)


@router.post("/images/generations", summary="Make pictures and wait for them",
             response_model=ImagesAnswer)  # fmt: skip
async def create_openai_images(
    order: ImageOrder,
    request: Request,
    service: Running,
    identity: User,
    idempotency_key: Key = None,
) -> Response:
    def submitted() -> Job:
        wanted = request_of(service, order, idempotency_key)
        return orders.submit(service, identity, wanted, idempotency_key=idempotency_key)

    return await _answered(request, service, identity, submitted, order, idempotency_key)


@router.post("/images/edits", summary="Repaint a picture and wait for it",
             response_model=ImagesAnswer)  # fmt: skip
async def edit_openai_image(
    request: Request,
    service: Running,
    identity: User,
    image: Annotated[UploadFile, File()],
    prompt: Annotated[str, Form(min_length=1, max_length=32_000)],
    mask: Annotated[UploadFile | None, File(description="transparent or white to repaint")] = None,
    model: Annotated[str | None, Form(max_length=200)] = None,
    n: Annotated[int | None, Form(ge=1)] = None,
    size: Annotated[str | None, Form(max_length=40)] = None,
    response_format: Annotated[Literal["b64_json", "url"] | None, Form()] = None,
    idempotency_key: Key = None,
) -> Response:
    order = _order_of(prompt, model, n, size, response_format, await request.form())
    begin, painted = edits.Beginning(await image.read()), await read_mask(mask)

    def submitted() -> Job:
        wanted = request_of(service, order, idempotency_key)
        return edits.submit(
            service, identity, wanted, begin, painted, idempotency_key=idempotency_key
        )

    return await _answered(request, service, identity, submitted, order, idempotency_key)


def _order_of(
    prompt: str,
    model: str | None,
    n: int | None,
    size: str | None,
    response_format: str | None,
    form: Mapping[str, Any],
) -> ImageOrder:
    """The order in a form, whose further fields are options of the model, as text.

    Raises:
        InvalidInput: a seed that is none, or streaming, which is not possible.
    """
    texts = {k: v for k, v in form.items() if isinstance(v, str) and k not in FORM_FIELDS}
    streams = texts.get("stream", "").casefold() in ("true", "1")
    extra: dict[str, Any] = {**texts, "stream": streams}
    if "seed" in texts:
        text = texts["seed"]
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise InvalidInput("The seed must be a whole number.")
        extra["seed"] = int(text)
    named = {"prompt": prompt, "model": model, "n": n, "size": size}
    try:
        return ImageOrder.model_validate({**extra, **named, "response_format": response_format})
    except ValidationError as error:
        raise InvalidInput(f"The order cannot be read: {first_fault(error)}.") from None


async def _answered(
    request: Request,
    service: Service,
    identity: Identity,
    submitted: Callable[[], Job],
    order: ImageOrder,
    idempotency_key: str | None,
) -> Response:
    """The pictures of the job that `submitted` makes, once they are there."""
    job = await run_in_threadpool(submitted)
    if not await ended_for(request, service, job.id):
        if service.hub.closing:
            sentence = f"The service stops; the job {job.id} goes on when it is back."
            return problems.openai_error(503, "stopping", sentence)
        if idempotency_key is None:  # with one, somebody may ask for it again
            await run_in_threadpool(orders.cancel, service, identity, job.id)
        return Response(status_code=CLIENT_GONE)
    return await run_in_threadpool(answer, service, job.id, order, str(request.base_url))


@router.post("/images/variations", summary="Not possible: see /v1/images/edits")
def vary_openai_image(identity: User) -> None:  # noqa: ARG001
    raise InvalidInput(NO_VARIATIONS)


def generator_card(service: Service, name: str) -> ModelCard:
    """
    Raises:
        ModelNotFound: no model of that name makes pictures.
    """
    cards = {card.name: card for card in service.catalogue.generators()}
    if name not in cards:
        raise ModelNotFound(f"Unknown model {name[:80]!r}: known are {', '.join(cards)}.")
    return cards[name]


def request_of(
    service: Service, order: ImageOrder, idempotency_key: str | None
) -> GenerationRequest:
    """What the order asks for, in our terms.

    Raises:
        ModelNotFound, UnknownSubject, InvalidInput: it cannot be had here.
    """
    card = generator_card(service, order.model or service.settings.default_model)
    if order.stream:
        raise InvalidInput("Streaming is not possible here: leave out stream, or use /api/v1/jobs.")
    own = f"{card.image_size}x{card.image_size}"
    if order.size not in (None, "auto", own):
        raise InvalidInput(f"{card.name} makes pictures of {own}: leave out size, or use that one.")
    seed = orders.choose_seed(idempotency_key) if order.seed is None else order.seed
    condition = condition_of(card, order.prompt)
    return GenerationRequest(card.name, condition, order.n or 1, seed, options_of(card, order))


def condition_of(card: ModelCard, prompt: str) -> dict[str, str]:
    """The prompt for a model that reads it, the class it names, or none for one without classes.

    Raises:
        UnknownSubject: the prompt names none of the model's classes; the message lists them.
        InvalidInput: an empty prompt.
    """
    if "text" in card.conditions:
        return compose_prompt(card, prompt).condition
    if not card.classes:
        return {"type": "none"}
    label = class_in_prompt(prompt, card.classes)
    if label is None:
        shown = ", ".join(both_languages(known) for known in card.classes[:SHOWN_CLASSES])
        raise UnknownSubject(f"{card.name} draws only these, name one in the prompt: {shown}.")
    return {"type": "class", "class": label.name}


def options_of(card: ModelCard, order: ImageOrder) -> dict[str, OptionValue]:
    """The extra fields that are options of the model."""
    known = {spec.name for spec in card.options}
    extra: dict[str, Any] = order.model_extra or {}
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in extra.items()
        if value is not None and SHORT_FORMS.get(name, name) in known
    }


async def ended_for(request: Request, service: Service, job_id: str) -> bool:
    """Waits for the job to end; False if the client went away or the service stops before."""
    ended = asyncio.create_task(wait_until_ended(service, job_id))
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        return ended.done() and ended.result()
    finally:
        ended.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    """Returns when the client goes away; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def answer(service: Service, job_id: str, order: ImageOrder, base_url: str) -> Response:
    """The pictures of a job that is done, or why there are none."""
    job = service.store.jobs.get(job_id)
    if job.status is not Status.DONE:
        status = 409 if job.status is Status.CANCELLED else 500
        sentence = job.reason or f"The job {job.id} was {job.status}."
        # their client would order the same again, twice
        headers = {"x-should-retry": "false"}
        return problems.openai_error(status, f"job_{job.status}", sentence, headers=headers)
    images = service.store.images.of_job(job.id)
    data = [image_data(service, image, order.response_format, base_url) for image in images]
    shown = ImagesAnswer(created=int(job.created), data=data)
    return JSONResponse(shown.model_dump(exclude_none=True))


def image_data(
    service: Service, image: StoredImage, response_format: str | None, base_url: str
) -> ImageData:
    data = ImageData(revised_prompt=image.label)
    if response_format in (None, "b64_json"):
        content = service.store.images.read_file(image.sha256)
        data.b64_json = b64encode(content).decode("ascii")
    if response_format in (None, "url"):
        data.url = f"{base_url.rstrip('/')}{file_url(image.id)}"
    return data
