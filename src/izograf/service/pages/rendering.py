"""Templates to responses: who looks at the page, in which language and light."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.responses import HTMLResponse

from izograf import __version__
from izograf.schema.job import StoredImage
from izograf.schema.labels import LANGUAGES
from izograf.schema.prompting import remarks_of
from izograf.schema.request import GenerationRequest
from izograf.service.access import Identity, identity_of
from izograf.service.context import Service
from izograf.service.pages import i18n
from izograf.store.accounts import Role

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
THEMES = ("auto", "light", "dark")
THEME_COOKIE = "izograf_theme"
YEAR = 365 * 24 * 3600
SIDE = 192  # what a small picture is enlarged to, in CSS pixels, as far as whole factors reach

NAVIGATION = (
    ("generate", "/"),
    ("edit", "/edit"),
    ("gallery", "/gallery"),
    ("compare", "/compare"),
    ("models", "/models"),
    ("queue", "/queue"),
)


def render(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] = {},
    **context: Any,
) -> HTMLResponse:
    """The page made of `template`; what every page needs is added (see `shared_context`)."""
    shared = shared_context(request)
    html = environment().get_template(template).render(shared | context)
    own = {"Cache-Control": "no-store", "Vary": "Accept-Language, Cookie"}
    response = HTMLResponse(html, status, own | dict(headers))
    _remember(request, response)
    return response


@functools.cache
def environment() -> Environment:
    """Everything is escaped; a name that is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "version": __version__,
        "strings": strings,
        "class_word": class_word,
        "prompt_remarks": prompt_remarks,
        "scale": scale,
        "languages": i18n.NAMES,
        "themes": THEMES,
    }
    return made


def shared_context(request: Request) -> dict[str, Any]:
    """What every template may use.

    `t` and `fmt` speak the reader's language; `identity` is None before a login; `here` is the
    path; `switched(lang="ru")` is this page's address with that choice.
    """
    language = language_of(request)
    identity = identity_of(request)
    service: Service | None = getattr(request.app.state, "service", None)
    return {
        "request": request,
        "service": service,
        "identity": identity,
        "t": i18n.Translator(language),
        "fmt": i18n.Format(language),
        "lang": language,
        "theme": theme_of(request),
        "here": request.url.path,
        "switched": functools.partial(switched, request),
        "navigation": navigation(identity, request.url.path),
        "login_required": service is not None and service.settings.login_required,
        "may": functools.partial(_may, identity),
    }


def language_of(request: Request) -> str:
    """The language of the page (`?lang=`, cookie, `Accept-Language`)."""
    return i18n.chosen_language(
        request.query_params.get("lang"),
        request.cookies.get(i18n.COOKIE),
        request.headers.get("accept-language", ""),
    )


def translator_of(request: Request) -> i18n.Translator:
    return i18n.Translator(language_of(request))


def theme_of(request: Request) -> str:
    """`light`, `dark`, or `auto`: as the reader's system."""
    for choice in (request.query_params.get("theme"), request.cookies.get(THEME_COOKIE)):
        if choice in THEMES:
            return str(choice)
    return "auto"


def navigation(identity: Identity | None, path: str) -> list[dict[str, Any]]:
    """The links of the header for this caller; `current` marks the one that is open."""
    if identity is None:
        return []
    items = list(NAVIGATION)
    if identity.role.may(Role.ADMIN):
        items.append(("admin", "/admin"))
    return [{"name": n, "url": url, "current": _is_below(path, url)} for n, url in items]


def switched(request: Request, **choices: str) -> str:
    """The address of this page with the choices in its query."""
    query = [(k, v) for k, v in parse_qsl(request.url.query)[:100] if k not in choices]
    return "?" + urlencode(query + list(choices.items()))


def local_path(text: str | None, otherwise: str) -> str:
    """`text` if it is a path of this service, so that nobody is sent elsewhere."""
    if not text or not text.startswith("/") or len(text) > 2000:
        return otherwise
    if text.startswith("//") or "\\" in text or any(ord(c) < 33 for c in text):
        return otherwise
    return text


def picture_alt(t: i18n.Translator, word: str, seed: int) -> str:
    """The alternative text of a picture: its condition and its seed."""
    return t("common.picture.alt", what=word, seed=str(seed))


def scale(width: int, side: int = SIDE) -> int:
    """The whole factor by which a picture of `width` pixels is enlarged to about `side`."""
    return max(1, side // max(1, width))


@pass_context
def class_word(context: Context, model: str, label: str) -> str:
    """The word by which a class of a model is shown to this reader, with a capital letter."""
    service: Service | None = context["service"]
    for card in service.catalogue.generators() if service else ():
        if card.name == model:
            for known in card.classes:
                if known.name == label:
                    return _capital(known.display(context["lang"]))
    translate: i18n.Translator = context["t"]
    return translate("common.picture.unconditioned") if label == "image" else _capital(label)


@pass_context
def prompt_remarks(context: Context, request: GenerationRequest | None) -> tuple[str, ...]:
    """What the author of a prompt should read about it; nothing for other requests."""
    service: Service | None = context["service"]
    if request is None or service is None or request.condition.get("type") != "text":
        return ()
    cards = (card for card in service.catalogue.generators() if card.name == request.model)
    return next((remarks_of(card, request.condition) for card in cards), ())


@pass_context
def strings(context: Context, *prefixes: str) -> Markup:
    """The texts below `prefixes` for scripts, as a block of data that no browser executes."""
    translate: i18n.Translator = context["t"]
    content = json.dumps(translate.below(*prefixes), ensure_ascii=False)
    safe = content.replace("<", "\\u003c").replace("&", "\\u0026")
    return Markup('<script type="application/json" data-strings>{}</script>').format(Markup(safe))


def by_job(images: tuple[StoredImage, ...]) -> list[tuple[str, list[StoredImage]]]:
    """Neighbouring pictures of the same job together, each group in the order of its seeds."""
    groups: dict[str, list[StoredImage]] = {}
    for image in images:
        groups.setdefault(image.job_id, []).append(image)
    return [(job, sorted(group, key=lambda i: i.id)) for job, group in groups.items()]


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def _may(identity: Identity | None, role: str) -> bool:
    return identity is not None and identity.role.may(Role(role))


def _is_below(path: str, url: str) -> bool:
    if url == "/":
        return path in ("/", "/generate")
    return path == url or path.startswith(f"{url}/")


def _remember(request: Request, response: HTMLResponse) -> None:
    """Keeps a choice that was made in the address."""
    secure = request.url.scheme == "https"
    wanted = ((i18n.COOKIE, "lang", LANGUAGES), (THEME_COOKIE, "theme", THEMES))
    for cookie, name, known in wanted:
        if (choice := request.query_params.get(name)) in known:
            response.set_cookie(
                cookie, str(choice), max_age=YEAR, samesite="lax", secure=secure, path="/"
            )
