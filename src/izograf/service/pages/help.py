"""`/help`: the keys, how seeds work, what can be repeated exactly, and where programs begin."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from izograf.service.access import Viewer
from izograf.service.context import Running
from izograf.service.pages.rendering import render

router = APIRouter(include_in_schema=False)


@router.get("/help")
def show_help(request: Request, service: Running, identity: Viewer) -> Response:  # noqa: ARG001
    cards = service.catalogue.generators()
    card = next((c for c in cards if c.classes), None)
    label = card.classes[min(3, len(card.classes) - 1)].name if card else None
    return render(
        request, "help.html", base=str(request.base_url).rstrip("/"),
        model=card.name if card else service.settings.default_model, label=label,
    )  # fmt: skip
