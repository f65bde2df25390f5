"""`/api/v1/infotext`: from a picture's metadata back to a request (promise P16)."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, IzografError
from izograf.schema.infotext import EQUAL, INFOTEXT_KEY, Infotext, parse_infotext
from izograf.schema.labels import both_languages
from izograf.schema.options import OptionValue
from izograf.schema.record import EDITED, RECORD_KEY, parse_record
from izograf.schema.request import GenerationRequest
from izograf.service import orders
from izograf.service.access import User
from izograf.service.api.routing import interface_router
from izograf.service.catalogue import Catalogue
from izograf.service.context import Running
from izograf.service.pngtext import LONGEST_TEXT, SIGNATURE, read_texts
from izograf.service.search import class_in_prompt
from izograf.store.text import cleaned_text

router = interface_router("/api/v1/infotext", "images")


class Imported(BaseModel):
    source: str = Field(description="izograf: our own record; infotext: another program's text")
    request: dict[str, Any] = Field(description="can be submitted as a job")
    made_by: dict[str, Any] | None = Field(description="our own: the whole order it was part of")
    prompt: str | None
    remarks: list[str] = Field(description="what could not be kept, in sentences")


FROM_ANOTHER = (
    "The picture began with another one, which it does not carry: these settings begin with noise."
)
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "text/plain": {"schema": {"type": "string"}},
        },
    }
}


@router.post("", summary="Read how a PNG was made, here or by another program",
             openapi_extra=BODY)  # fmt: skip
async def import_infotext(
    request: Request,
    service: Running,
    identity: User,  # noqa: ARG001
    model: Annotated[str | None, Query(description="for other programs' texts")] = None,
) -> Imported:
    body = await request.body()  # the gate limits its size
    chosen = model or service.settings.default_model
    found = await run_in_threadpool(imported, service.catalogue, body, chosen)
    return sendable(found)


def sendable(found: Imported) -> Imported:
    """The same, once it is sure that JSON can say it.

    Raises:
        InvalidInput: a stranger's record has a number or character that it cannot.
    """
    try:
        found.remarks = [cleaned_text(remark, longest=1000) for remark in found.remarks]
        json.dumps(found.model_dump(), ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise InvalidInput("The record of the PNG has a value that JSON cannot say.") from error
    return found


def imported(catalogue: Catalogue, body: bytes, model: str) -> Imported:
    """What a PNG or a plain text says.

    Raises:
        InvalidInput: it is damaged, or says nothing of how a picture was made.
    """
    if not body.startswith(SIGNATURE):
        return from_infotext(catalogue, decoded(body), model)
    texts = read_texts(body, (RECORD_KEY, INFOTEXT_KEY))
    if RECORD_KEY in texts:
        return from_record(catalogue, texts[RECORD_KEY])
    if INFOTEXT_KEY in texts:
        return from_infotext(catalogue, texts[INFOTEXT_KEY], model)
    raise InvalidInput("The PNG does not say how it was made: its metadata may have been removed.")


def decoded(body: bytes) -> str:
    """
    Raises:
        InvalidInput: it is no text.
    """
    if len(body) > LONGEST_TEXT:
        raise InvalidInput(f"The text is longer than {LONGEST_TEXT:,} bytes.")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("Send a PNG, or the text of its parameters in UTF-8.") from None


def from_record(catalogue: Catalogue, text: str) -> Imported:
    """What our own record says: exactly this picture again, or the strip it is part of."""
    record = parse_record(text, source="the PNG")
    made_by = GenerationRequest.from_json(record["request"])
    request = made_by if made_by.towards else made_by.single(record["seed"])
    return Imported(
        source="izograf",
        request=request.to_json(),
        made_by=made_by.to_json(),
        prompt=None,
        remarks=[
            *_doubts(catalogue, request, record["model_sha256"]),
            *([FROM_ANOTHER] if EDITED in record else []),
        ],
    )


def _doubts(catalogue: Catalogue, request: GenerationRequest, model_sha256: str) -> list[str]:
    """Why the request would not give the same picture here."""
    try:
        card = catalogue.card(request.model)
        catalogue.resolve(request)
    except IzografError as error:
        return [str(error)]
    if card.fingerprint != model_sha256:
        return [f"The model {card.name} has other weights now: the picture will differ."]
    return []


def from_infotext(catalogue: Catalogue, text: str, model: str) -> Imported:
    """What another program's parameters come to with a model of ours."""
    told = parse_infotext(text)
    card = catalogue.card(model)
    options, remarks = _options(card, told)
    condition, label = {"type": "none"}, class_in_prompt(told.prompt, card.classes)
    if label is not None:
        condition = {"type": "class", "class": label.name}
    elif card.classes:
        known = ", ".join(both_languages(known) for known in card.classes[:20])
        remarks.append(f"The prompt names nothing that {card.name} draws; it knows: {known}.")
    seed = orders.choose_seed() if told.seed is None else told.seed
    request = GenerationRequest(card.name, condition, 1, seed, options)
    if told.model and told.model != card.name:
        remarks.insert(0, f"It was made by {told.model[:80]}, here it is {card.name}.")
    return Imported(
        source="infotext",
        request=request.to_json(),
        made_by=None,
        prompt=told.prompt or None,
        remarks=remarks,
    )


def _options(card: ModelCard, told: Infotext) -> tuple[dict[str, OptionValue], list[str]]:
    """The options that the model takes, and sentences about the others."""
    specs = {spec.name: spec for spec in card.options}
    kept: dict[str, OptionValue] = {}
    remarks: list[str] = []
    for name, value in told.options.items():
        try:
            if name in specs:
                lacks = specs[name].choices and value not in specs[name].choices
                kept[name] = specs[name].parse(EQUAL.get(str(value), value) if lacks else value)
            else:
                remarks.append(f"{card.name} has no option {name}.")
        except InvalidInput as error:
            remarks.append(str(error))
    return kept, remarks
