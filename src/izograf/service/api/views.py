"""How jobs, pictures and models look to a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

from izograf.engine.protocol import WorkerHealth
from izograf.schema.card import ModelCard
from izograf.schema.job import Job, StoredImage
from izograf.schema.labels import ClassLabel, both_languages
from izograf.schema.library import Listed
from izograf.schema.options import OptionSpec
from izograf.schema.resolve import MAX_PROMPT
from izograf.service.api import shapes
from izograf.store import pages
from izograf.store.collections import StoredCollection

Item = TypeVar("Item")
Shown = TypeVar("Shown")

SCHEMA = "https://json-schema.org/draft/2020-12/schema"
_KINDS = {"integer": "integer", "number": "number", "boolean": "boolean", "choice": "string"}


def moment(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def moment_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else moment(seconds)


def job_view(
    job: Job,
    *,
    queue_position: int | None = None,
    images: Sequence[StoredImage] | None = None,
    remarks: Sequence[str] = (),
) -> shapes.Job:
    request = job.request
    return shapes.Job(
        id=job.id,
        status=job.status,
        task=job.task,
        model=request.model,
        condition=dict(request.condition),
        num_images=request.num_images,
        seed=request.seed,
        options=dict(request.options),
        towards=dict(request.towards),
        owner=job.owner,
        priority=job.priority,
        attempt=job.attempt,
        reason=job.reason or None,
        created=moment(job.created),
        started=moment_or_none(job.started),
        finished=moment_or_none(job.finished),
        seconds=job.seconds,
        joules=job.joules,
        energy_method=job.energy_method or None,
        result=dict(job.result),
        queue_position=queue_position,
        images=None if images is None else [job_image_view(image) for image in images],
        remarks=list(remarks),
        links=shapes.Links(
            self=job_url(job.id),
            events=f"{job_url(job.id)}/events",
            images=f"/api/v1/images?job={job.id}",
        ),
    )


def job_url(job_id: str) -> str:
    return f"/api/v1/jobs/{job_id}"


def original_url(job_id: str) -> str:
    return f"{job_url(job_id)}/original"


def file_url(image_id: str) -> str:
    return f"/api/v1/images/{image_id}/file"


def job_image_view(image: StoredImage) -> shapes.JobImage:
    return shapes.JobImage(
        id=image.id,
        url=file_url(image.id),
        seed=image.seed,
        label=image.label,
        width=image.width,
        height=image.height,
        sha256=image.sha256,
    )


def image_view(image: StoredImage) -> shapes.Image:
    return shapes.Image(
        id=image.id,
        job_id=image.job_id,
        url=file_url(image.id),
        model=image.model,
        label=image.label,
        seed=image.seed,
        width=image.width,
        height=image.height,
        sha256=image.sha256,
        favourite=image.favourite,
        created=moment(image.created),
        seconds=image.seconds,
        joules=image.joules,
        energy_method=image.energy_method or None,
        record=dict(image.record),
    )


def collection_view(collection: StoredCollection) -> shapes.Collection:
    return shapes.Collection(
        id=collection.id,
        name=collection.name,
        created=moment(collection.created),
        num_images=collection.num_images,
        images_url=f"/api/v1/images?collection={collection.id}",
    )


def worker_view(worker: WorkerHealth) -> shapes.Worker:
    return shapes.Worker(**asdict(worker))


def model_summary(model: Listed) -> shapes.ModelSummary:
    """A model in a list; of one that cannot be used, why."""
    summary = shapes.ModelSummary(
        name=model.name,
        usable=model.card is not None,
        problem=model.problem or None,
        bundled=model.bundled,
        url=f"/api/v1/models/{quote(model.name, safe='')}",
    )
    if (card := model.card) is not None:
        summary.task, summary.family, summary.summary = card.task, card.family, card.summary
        summary.image_size, summary.conditions = card.image_size, list(card.conditions)
        summary.classes = [class_view(label) for label in card.classes]
        summary.licence, summary.fingerprint = card.licence, card.fingerprint
    return summary


def class_view(label: ClassLabel) -> shapes.Class:
    return shapes.Class(name=label.name, forms={k: list(v) for k, v in label.forms.items()})


def model_view(card: ModelCard) -> dict[str, Any]:
    """The whole card, with JSON Schemas from which a form can be made."""
    return card.to_json() | {
        "fingerprint": card.fingerprint,
        "options_schema": options_schema(card.options),
        "condition_schema": condition_schema(card),
    }


def options_schema(specs: Sequence[OptionSpec]) -> dict[str, Any]:
    """The JSON Schema of a job's `options`."""
    return {
        "$schema": SCHEMA,
        "type": "object",
        "additionalProperties": False,
        "properties": {spec.name: _option_schema(spec) for spec in specs},
    }


def _option_schema(spec: OptionSpec) -> dict[str, Any]:
    known = {
        "description": spec.help or None,
        "minimum": spec.minimum,
        "maximum": spec.maximum,
        "enum": list(spec.choices) or None,
    }
    schema = {"type": _KINDS[spec.kind], "title": spec.name.replace("_", " ")}
    return schema | {k: v for k, v in known.items() if v is not None} | {"default": spec.default}


def condition_schema(card: ModelCard) -> dict[str, Any]:
    """The JSON Schema of a job's `condition`; a class is written by its identifier here."""
    kinds = [_condition_kind({"type": {"const": "none"}})]
    if card.classes:
        names = [{"const": c.name, "title": both_languages(c)} for c in card.classes]
        kinds.insert(0, _condition_kind({"type": {"const": "class"}, "class": {"oneOf": names}}))
    if "text" in card.conditions:
        kinds.insert(0, _text_kind())
    return {"$schema": SCHEMA, "oneOf": kinds}


def _text_kind() -> dict[str, Any]:
    words = {"type": "string", "maxLength": MAX_PROMPT}
    described = _condition_kind(
        {
            "type": {"const": "text"},
            "prompt": words,
            "negative_prompt": words,
            "attributes": {"type": "array", "items": {"type": "string"}},
            "style": {"type": "string"},
        }
    )
    return described | {"required": ["type"]}


def _condition_kind(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def page_view(page: pages.Page[Item], view: Callable[[Item], Shown]) -> shapes.Page[Shown]:
    return shapes.Page(items=[view(item) for item in page.items], next_cursor=page.next_cursor)
