"""`/gallery`: every picture as a contact sheet; find, mark, gather, download, delete, restore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from izograf.schema.errors import InvalidInput
from izograf.service.access import Identity, User, Viewer
from izograf.service.context import Running, Service
from izograf.service.deletion import delete_images
from izograf.service.pages.pictures import Showing, class_words, may_change
from izograf.service.pages.rendering import language_of, render
from izograf.service.search import search_text
from izograf.store.collections import StoredCollection
from izograf.store.images import ImageFilter
from izograf.store.pages import MAX_LIMIT

router = APIRouter(include_in_schema=False)

PER_PAGE = 48
SIZES = ("s", "m", "l")
MOST_UNDO = 50  # pictures whose deletion the page without scripts offers to undo


@dataclass(frozen=True)
class Choice:
    """What a person chose to see; every field as the form and the address carry it."""

    q: str = ""
    model: str = ""
    label: str = ""
    favourite: str = ""
    from_day: str = ""
    to_day: str = ""
    collection: str = ""
    deleted: str = ""
    size: str = ""

    @property
    def narrows(self) -> bool:
        """Whether anything restricts the pictures shown, other than having been deleted."""
        return any(getattr(self, name) for name in self.names() if name not in ("size", "deleted"))

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(entry.name for entry in fields(Choice))

    @property
    def query(self) -> str:
        """The choice as a query string, for a form that comes back to it."""
        return self.address().partition("?")[2]

    def address(self, **changes: str) -> str:
        """The gallery's address with this choice, some of it changed; `cursor` may be added."""
        cursor = changes.pop("cursor", "")
        changed = replace(self, **changes)
        values = [(name, getattr(changed, name)) for name in self.names()]
        chosen = [(name, value) for name, value in [*values, ("cursor", cursor)] if value]
        return "/gallery" + ("?" + urlencode(chosen) if chosen else "")


def choice_of(request: Request) -> Choice:
    """The choice in a request's address; what it does not know it passes over."""
    return parsed_choice(request.url.query)


def parsed_choice(query: str) -> Choice:
    """The choice in a query string."""
    given = dict(parse_qsl(query[:4000]))
    return Choice(**{name: given.get(name, "").strip() for name in Choice.names()})


Chosen = Annotated[Choice, Depends(choice_of)]


def image_filter(service: Service, identity: Identity, choice: Choice) -> ImageFilter:
    """
    Raises:
        InvalidInput: a date that is none. NotFound: no such collection.
    """
    last = day_start("to_day", choice.to_day, plus_days=1)
    return ImageFilter(
        owner=identity.visible_owner,
        model=choice.model or None,
        label=choice.label or None,
        favourite=True if choice.favourite else None,
        created_from=day_start("from_day", choice.from_day),
        created_before=last,
        text=search_text(service.catalogue, choice.q) if choice.q else None,
        collection=choice.collection or None,
        deleted=bool(choice.deleted),
    )


def day_start(name: str, text: str, *, plus_days: int = 0) -> float | None:
    """When a day `2026-11-21` begins where the service runs, seconds since the epoch.

    Raises:
        InvalidInput: it is no day.
    """
    if not text:
        return None
    try:
        day = date.fromisoformat(text) + timedelta(days=plus_days)
        return datetime(day.year, day.month, day.day).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise InvalidInput(f"{name}: {text[:40]!r} is no day; write 2026-11-21.") from None


@router.get("/gallery")
def gallery(
    request: Request,
    service: Running,
    identity: Viewer,
    choice: Chosen,
    cursor: str | None = None,
    undo: Annotated[list[str] | None, Query(max_length=MAX_LIMIT)] = None,
    restored: int = 0,
    added: int = 0,
) -> Response:
    language = language_of(request)
    wanted = image_filter(service, identity, choice)
    page = service.store.images.list_images(wanted, cursor=cursor, limit=PER_PAGE)
    following = page.next_cursor and choice.address(cursor=page.next_cursor)
    return render(
        request,
        "gallery.html",
        pictures=Showing(service.catalogue, language).many(page.items),
        choice=choice,
        filters=_filters(service, identity, choice, language),
        following=following,
        continued=cursor is not None,
        anything=bool(page.items) or _anything(service, identity),
        keep_days=service.settings.keep_deleted_days,
        undo=undo or (),
        restored=restored,
        added=added,
        may_change=may_change(identity),
    )


def _filters(
    service: Service, identity: Identity, choice: Choice, language: str
) -> Mapping[str, Any]:
    """What the filter form offers, and what the choice is called in words."""
    cards = service.catalogue.generators()
    classes = class_words(cards, language)
    collections = own_collections(service, identity)
    names = {collection.id: collection.name for collection in collections}
    chips = {
        "q": choice.q and f"“{choice.q}”",
        "model": choice.model,
        "label": classes.get(choice.label, choice.label),
        "from_day": choice.from_day and f"≥ {choice.from_day}",
        "to_day": choice.to_day and f"≤ {choice.to_day}",
        "collection": choice.collection and names.get(choice.collection, choice.collection),
    }
    return {
        "models": [card.name for card in cards],
        "classes": classes,
        "collections": collections,
        "collection_name": names.get(choice.collection, ""),
        "chips": {name: word for name, word in chips.items() if word},
    }


def own_collections(service: Service, identity: Identity) -> Sequence[StoredCollection]:
    """The caller's collections as a list to choose from, by name."""
    page = service.store.collections.list_collections(identity.owner, limit=MAX_LIMIT)
    return sorted(page.items, key=lambda collection: collection.name.casefold())


def _anything(service: Service, identity: Identity) -> bool:
    """Whether the caller has any picture at all."""
    wanted = ImageFilter(owner=identity.visible_owner)
    return bool(service.store.images.list_images(wanted, limit=1).items)


@router.post("/gallery/selection")
def change_selection(
    service: Running,
    identity: User,
    action: Annotated[str, Form()] = "",
    id: Annotated[list[str] | None, Form(max_length=MAX_LIMIT)] = None,  # noqa: A002
    back: Annotated[str, Form()] = "",
    to_collection: Annotated[str, Form()] = "",
    new_collection: Annotated[str, Form()] = "",
) -> Response:
    """What the buttons of the gallery do without scripts. `action`: a word, or word:collection."""
    word, _, of_collection = action.partition(":")
    chosen = id or []
    here = parsed_choice(back).address()
    if not chosen:
        return see(here)
    owner = identity.visible_owner
    images = service.store.images
    if word == "zip":
        return see("/api/v1/images/zip?" + urlencode([("id", one) for one in chosen]))
    if word == "delete":
        delete_images(service, identity, chosen)
        return see(with_values(here, [("undo", one) for one in chosen[:MOST_UNDO]]))
    if word == "restore":
        return see(with_values(here, [("restored", images.restore(chosen, owner=owner))]))
    if word == "add":
        target = chosen_collection(service, identity, to_collection, new_collection)
        service.store.collections.add(identity.owner, target, chosen)
        return see(with_values(here, [("added", len(chosen))]))
    if word == "remove":
        service.store.collections.remove(identity.owner, of_collection, chosen)
        return see(here)
    raise InvalidInput(f"The gallery cannot {word[:40]!r}.")


def chosen_collection(
    service: Service, identity: Identity, collection_id: str, new_name: str
) -> str:
    """The identifier of the collection a form names: a new one if its name was typed.

    Raises:
        InvalidInput: neither was given. Conflict: the new name is taken.
    """
    if new_name.strip():
        return service.store.collections.create(identity.owner, new_name).id
    if not collection_id:
        raise InvalidInput("Choose a collection, or type a name for a new one.")
    return collection_id


def with_values(address: str, values: Sequence[tuple[str, object]]) -> str:
    """An address of this service with more values in its query."""
    return f"{address}{'&' if '?' in address else '?'}{urlencode(values)}"


def see(address: str) -> RedirectResponse:
    """Sends a browser that posted a form on to a page it may reload."""
    return RedirectResponse(address, 303)
