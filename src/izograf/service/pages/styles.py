"""`/styles`: what each style preset says, and what becomes of a prompt in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from izograf.schema.styles import PROMPT, Style, language_of, usable_styles
from izograf.service.access import Viewer
from izograf.service.api.styles import MAX_PROMPT
from izograf.service.pages.rendering import language_of as page_language
from izograf.service.pages.rendering import render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Preset:
    """A style as the page shows it: `before` and `after` are its words around the prompt."""

    name: str
    title: str
    before: str
    after: str
    negative: str
    bundled: bool
    whole: str  # the prompt in this style; the template itself while there is no prompt


@router.get("/styles")
def styles(
    request: Request,
    identity: Viewer,  # noqa: ARG001
    prompt: Annotated[str, Query(max_length=MAX_PROMPT)] = "",
) -> Response:
    language = page_language(request)
    spoken = language_of(prompt) if prompt.strip() else language
    known, problem = usable_styles()
    presets = [_preset(style, prompt.strip(), language, spoken) for style in known.values()]
    return render(
        request, "styles.html", presets=presets, prompt=prompt, problem=problem, spoken=spoken,
        longest=MAX_PROMPT,
    )  # fmt: skip


def _preset(style: Style, prompt: str, language: str, spoken: str) -> Preset:
    template = style.positive[spoken]
    before, after = template.split(PROMPT)
    return Preset(
        name=style.name,
        title=style.title[language],
        before=before,
        after=after,
        negative=style.negative[spoken],
        bundled=style.bundled,
        whole=template.replace(PROMPT, prompt) if prompt else template,
    )
