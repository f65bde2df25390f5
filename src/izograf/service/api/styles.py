"""`/api/v1/styles`: the presets of words that can be put around a prompt."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from izograf.schema.styles import Style, find_style, usable_styles
from izograf.service.access import Viewer
from izograf.service.api.routing import interface_router

router = interface_router("/api/v1/styles", "styles")

MAX_PROMPT = 2000
Prompt = Annotated[str, Query(max_length=MAX_PROMPT, description="put into `applied`")]


class StyledPrompt(BaseModel):
    prompt: str
    negative_prompt: str


class StylePreset(BaseModel):
    name: str
    title: dict[str, str] = Field(description="language -> what an interface displays")
    positive: dict[str, str] = Field(description="language -> template that holds {prompt} once")
    negative: dict[str, str] = Field(description="language -> words to stay away from")
    bundled: bool = Field(description="false for one that the operator added or replaced")
    applied: StyledPrompt | None = Field(
        None, description="the prompt that was sent, in this style, with words of its own language"
    )


class StyleListing(BaseModel):
    items: list[StylePreset]
    problem: str | None = Field(description="why the operator's own styles are left out")


@router.get("", summary="List the styles, with a prompt put into each if one is sent")
def list_styles(
    identity: Viewer,  # noqa: ARG001
    prompt: Prompt = "",
    negative_prompt: Prompt = "",
) -> StyleListing:
    known, problem = usable_styles()
    items = [style_view(style, prompt, negative_prompt) for style in known.values()]
    return StyleListing(items=items, problem=problem or None)


@router.get("/{name}", summary="A style, with a prompt put into it if one is sent")
def get_style(
    name: str,
    identity: Viewer,  # noqa: ARG001
    prompt: Prompt = "",
    negative_prompt: Prompt = "",
) -> StylePreset:
    known, _ = usable_styles()
    return style_view(find_style(name, known), prompt, negative_prompt)


def style_view(style: Style, prompt: str = "", negative: str = "") -> StylePreset:
    applied = None
    if prompt or negative:
        words, away = style.apply(prompt, negative)
        applied = StyledPrompt(prompt=words, negative_prompt=away)
    return StylePreset(
        name=style.name,
        title=dict(style.title),
        positive=dict(style.positive),
        negative=dict(style.negative),
        bundled=style.bundled,
        applied=applied,
    )
