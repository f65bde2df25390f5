"""`/compare`: several models on the same class and seeds, row by row, and two laid over each other.

The address carries the whole choice, and the jobs once they were asked for, so it can be shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, IzografError
from izograf.schema.request import GenerationRequest
from izograf.service import orders
from izograf.service.access import Identity, User, Viewer
from izograf.service.context import Running, Service
from izograf.service.pages.asked import Asked, asked_jobs
from izograf.service.pages.gallery import see
from izograf.service.pages.pictures import Showing, class_words, may_change, whole_number
from izograf.service.pages.rendering import language_of, render

router = APIRouter(include_in_schema=False)

MOST_MODELS = 6
MOST_SEEDS = 16
SEEDS = 6

Names = Annotated[list[str] | None, Query(max_length=50)]
FormNames = Annotated[list[str] | None, Form(max_length=50)]


@dataclass(frozen=True)
class Comparison:
    """What is compared, as typed."""

    models: tuple[str, ...] = ()
    label: str = ""
    seed: str = "0"
    num_images: str = str(SEEDS)

    def address(self, jobs: Sequence[str] = ()) -> str:
        fields = [("class", self.label)] if self.label else []
        numbers = [("seed", self.seed), ("num_images", self.num_images)]
        models = [("model", model) for model in self.models]
        return "/compare?" + urlencode([*models, *fields, *numbers, *(("job", j) for j in jobs)])

    def requests(self) -> tuple[GenerationRequest, ...]:
        """One for each model, with its own defaults.

        Raises:
            InvalidInput: fewer than two models, too many, or a number that is none.
        """
        if not 2 <= len(self.models) <= MOST_MODELS:
            raise InvalidInput(
                f"Choose from 2 to {MOST_MODELS} models to compare, not {len(self.models)}."
            )
        seed, count = whole_number("seed", self.seed), whole_number("num_images", self.num_images)
        if not 1 <= count <= MOST_SEEDS:
            raise InvalidInput(f"num_images must be from 1 to {MOST_SEEDS} here, got {count}.")
        condition = {"type": "class", "class": self.label} if self.label else {"type": "none"}
        return tuple(GenerationRequest(name, condition, count, seed) for name in self.models)


@router.get("/compare")
def compare(
    request: Request,
    service: Running,
    identity: Viewer,
    model: Names = None,
    label: Annotated[str, Query(alias="class")] = "",
    seed: str = "0",
    num_images: str = str(SEEDS),
    job: Names = None,
) -> Response:
    wanted = Comparison(tuple(dict.fromkeys(model or ())), label, seed, num_images)
    return _page(request, service, identity, wanted, jobs=(job or ())[:MOST_MODELS])


def _page(
    request: Request,
    service: Service,
    identity: Identity,
    wanted: Comparison,
    *,
    jobs: Sequence[str] = (),
    problem: str = "",
) -> Response:
    """The page; after a form that could not be carried out, with what was typed and why."""
    language = language_of(request)
    cards = service.catalogue.generators()
    rows = asked_jobs(service, identity, jobs, Showing(service.catalogue, language))
    return render(
        request,
        "compare.html",
        status=422 if problem else 200,
        cards=cards,
        wanted=wanted,
        chosen=wanted.models or tuple(card.name for card in cards[:2]),
        classes=shared_classes(cards, wanted.models, language),
        rows=rows,
        seeds=_seeds(rows),
        complete=bool(rows) and not any(row.pending for row in rows),
        problem=problem,
        most_models=MOST_MODELS,
        most_seeds=MOST_SEEDS,
        may_change=may_change(identity),
    )


def shared_classes(
    cards: Sequence[ModelCard], chosen: Sequence[str], language: str
) -> dict[str, str]:
    """The classes that all chosen models know; of all models while none is chosen."""
    asked = [card for card in cards if card.name in chosen] or list(cards)
    every = class_words(asked, language)
    known = [{label.name for label in card.classes} for card in asked]
    return {
        n: word for n, word in every.items() if all(n in names for names in known) or not chosen
    }


def _seeds(rows: Sequence[Asked]) -> tuple[int, ...]:
    """The seeds of the rows' columns; empty if the rows do not fit each other."""
    seeds = {row.job.request.seeds for row in rows}
    return next(iter(seeds)) if len(seeds) == 1 else ()


@router.post("/compare")
def make(
    request: Request,
    service: Running,
    identity: User,
    model: FormNames = None,
    label: Annotated[str, Form(alias="class")] = "",
    seed: Annotated[str, Form()] = "0",
    num_images: Annotated[str, Form()] = str(SEEDS),
) -> Response:
    wanted = Comparison(tuple(dict.fromkeys(model or ())), label, seed, num_images)
    try:
        requests = wanted.requests()
        for each in requests:
            service.catalogue.resolve(each)  # all or none
        jobs = [orders.submit(service, identity, each) for each in requests]
    except IzografError as error:
        return _page(request, service, identity, wanted, problem=str(error))
    return see(wanted.address([job.id for job in jobs]) + "#rows")
