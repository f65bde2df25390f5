"""Routers whose operations are called like their functions."""

from __future__ import annotations

from enum import Enum
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

Responses = dict[int | str, dict[str, Any]]
"""HTTP status -> how the OpenAPI document describes that answer."""


def interface_router(prefix: str, tag: str) -> APIRouter:
    """A router below `prefix`; clients made from the OpenAPI document get the functions' names."""
    tags: list[str | Enum] = [tag]
    return APIRouter(prefix=prefix, tags=tags, generate_unique_id_function=_name)


def _name(route: APIRoute) -> str:
    return route.name
