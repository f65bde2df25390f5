"""`/api/v1/models`: what can be generated, and with which options."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from izograf.service.access import Viewer
from izograf.service.api import shapes
from izograf.service.api.routing import interface_router
from izograf.service.api.views import model_summary, model_view
from izograf.service.context import Running

router = interface_router("/api/v1/models", "models")


@router.get("", summary="List models, also those that cannot be used")
def list_models(
    service: Running,
    identity: Viewer,  # noqa: ARG001
    task: Annotated[str | None, Query(description="generate or classify")] = None,
) -> shapes.Listing[shapes.ModelSummary]:
    models = [model_summary(model) for model in service.catalogue.models()]
    return shapes.Listing(items=[model for model in models if task in (None, model.task)])


@router.get("/{name}", summary="A model's card, with JSON Schemas of its options and condition")
def get_model(name: str, service: Running, identity: Viewer) -> dict[str, Any]:  # noqa: ARG001
    return model_view(service.catalogue.card(name))
