"""`/models`: what can make pictures, how well, at what cost, and under which licence."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from izograf.schema.card import ModelCard
from izograf.schema.errors import NotFound
from izograf.schema.library import MOST_COLUMNS, SAMPLES, Listed
from izograf.service.access import Identity, Viewer
from izograf.service.catalogue import Catalogue
from izograf.service.context import Running, Service
from izograf.service.pages.pictures import Showing, Shown, capital, may_change
from izograf.service.pages.rendering import language_of, render
from izograf.store.images import ImageFilter

router = APIRouter(include_in_schema=False)

RECENT = 12
AN_HOUR = "private, max-age=3600"
_PNG_HEAD = struct.Struct(">8s4x4sII")  # signature, IHDR, width, height


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet of samples: its seed, and its place in the sheet in pixels.

    `prompt` is empty where the model reads none.
    """

    seed: int
    x: int
    y: int
    prompt: str = ""


@dataclass(frozen=True)
class SampleRow:
    """The samples of one class; `word` is empty where the model has no classes."""

    name: str
    word: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Sheet:
    """A model's `samples.png`: pictures edge to edge, seeds from 0.

    It has a row for each class, or one row with a picture of each of the card's examples.
    """

    src: str
    width: int
    height: int
    size: int
    rows: tuple[SampleRow, ...]


@dataclass(frozen=True)
class Score:
    """One score of a card, in the words and the order in which pages show it."""

    name: str
    value: float
    low: float | None
    high: float | None
    share: bool  # of pictures, to be read as per cent
    num_fake: int | None
    floor: float | None
    ceiling: float | None
    relative: float | None
    reference: float | None  # what real pictures reach
    per_class: Mapping[str, float]
    raw: Mapping[str, Any]


HELPERS = ("classify", "upscale", "autoencode")  # tasks of models that others need


@router.get("/models")
def models(request: Request, service: Running, identity: Viewer) -> Response:
    language = language_of(request)
    entries = [_entry(service, identity, model, language) for model in service.catalogue.models()]
    return render(
        request,
        "models.html",
        generators=[e for e in entries if e["card"] and e["card"].task == "generate"],
        helpers={
            task: found
            for task in HELPERS
            if (found := [e for e in entries if e["card"] and e["card"].task == task])
        },
        broken=[e for e in entries if not e["card"]],
        may_change=may_change(identity),
    )


@router.get("/models/{name}")
def model(name: str, request: Request, service: Running, identity: Viewer) -> Response:
    listed = find(service.catalogue, name)
    entry = _entry(service, identity, listed, language_of(request))
    known = {model.name for model in service.catalogue.models()}
    return render(
        request,
        "model.html",
        entry=entry,
        card=entry["card"],
        model=listed,
        known=known,
        may_change=may_change(identity),
    )


@router.get("/models/{name}/samples.png")
def samples(name: str, service: Running, identity: Viewer) -> Response:  # noqa: ARG001
    """The sheet beside the card; the path comes from the catalogue, never from the client."""
    file = find(service.catalogue, name).folder / SAMPLES
    if sheet_size(file) is None:
        raise NotFound(f"The model {name[:80]} has no sheet of samples.")
    return FileResponse(file, media_type="image/png", headers={"Cache-Control": AN_HOUR})


def find(catalogue: Catalogue, name: str) -> Listed:
    """
    Raises:
        NotFound: there is no such model; near names are suggested.
    """
    for model in catalogue.models():
        if model.name == name:
            return model
    catalogue.card(name)
    raise NotFound(f"There is no model {name[:80]!r}.")


def _entry(service: Service, identity: Identity, model: Listed, language: str) -> Mapping[str, Any]:
    """Everything a page says about one model."""
    card = None if model.card is None else Catalogue.named(model)
    if card is None:
        problem = model.problem.replace(f"{model.folder}/", "")  # where it lies is the operator's
        return {"model": model, "card": None, "problem": problem}
    sheet = sample_sheet(model.folder, card, language)
    recent: Sequence[Shown] = ()
    if sheet is None and card.task == "generate":
        wanted = ImageFilter(owner=identity.visible_owner, model=card.name)
        found = service.store.images.list_images(wanted, limit=RECENT).items
        recent = Showing(service.catalogue, language).many(found)
    return {
        "model": model,
        "card": card,
        "sheet": sheet,
        "recent": recent,
        "scores": scores(card),
        "size_bytes": weights_bytes(model.folder, card),
        "words": {label.name: capital(label.display(language)) for label in card.classes},
        "classes": [(label.name, capital(label.display(language))) for label in card.classes],
        "data_licence": str(card.data.get("licence", "")),
        "paper": str(card.recipe.get("paper", "")),
    }


def weights_bytes(folder: Path, card: ModelCard) -> int | None:
    """The size of the model's weights on disk; None if a file is missing."""
    try:
        return sum((folder / Path(name).name).stat().st_size for name in card.weights)
    except OSError:
        return None


def sample_sheet(folder: Path, card: ModelCard, language: str) -> Sheet | None:
    """The model's sheet of samples, cut into its pictures; None if it has none that fits."""
    found = sheet_size(folder / SAMPLES)
    if found is None:
        return None
    width, height = found
    size, num_rows = card.image_size, max(1, len(card.classes))
    columns = width // size
    if width != columns * size or height != num_rows * size or not 1 <= columns <= MOST_COLUMNS:
        return None
    prompts = card.examples or ("",) * columns
    if len(prompts) != columns:
        return None
    named = [(label.name, capital(label.display(language))) for label in card.classes] or [("", "")]
    rows = tuple(
        SampleRow(
            name, word, tuple(Cell(x, x * size, y * size, prompts[x]) for x in range(columns))
        )
        for y, (name, word) in enumerate(named)
    )
    return Sheet(f"/models/{card.name}/samples.png", width, height, size, rows)


def sheet_size(file: Path) -> tuple[int, int] | None:
    """Width and height of a PNG from its first bytes; None if it is none."""
    try:
        with file.open("rb") as opened:
            head = opened.read(_PNG_HEAD.size)
    except OSError:
        return None
    if len(head) < _PNG_HEAD.size:
        return None
    signature, kind, width, height = _PNG_HEAD.unpack(head)
    return (width, height) if (signature, kind) == (b"\x89PNG\r\n\x1a\n", b"IHDR") else None


def scores(card: ModelCard) -> tuple[Score, ...]:
    """The card's scores that are numbers; anything malformed is left out."""
    return tuple(_score(raw) for raw in card.metrics if _number(raw.get("value")) is not None)


def _score(raw: Mapping[str, Any]) -> Score:
    interval = raw.get("ci95")
    low, high = interval if isinstance(interval, list) and len(interval) == 2 else (None, None)
    per_class = raw.get("per_class")
    num_fake = raw.get("num_fake")
    return Score(
        name=str(raw.get("name", "")),
        value=float(raw["value"]),
        low=_number(low),
        high=_number(high),
        share=isinstance(per_class, Mapping),
        num_fake=num_fake if isinstance(num_fake, int) else None,
        floor=_number(raw.get("floor")),
        ceiling=_number(raw.get("ceiling")),
        relative=_number(raw.get("relative")),
        reference=_number(raw.get("held_out_real")),
        per_class=_numbers(per_class) if isinstance(per_class, Mapping) else {},
        raw=raw,
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(values: Mapping[str, Any]) -> Mapping[str, float]:
    found = {str(name): _number(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}
