"""A stored picture as pages show it: the condition in the reader's language, and its links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, IzografError
from izograf.schema.job import StoredImage
from izograf.schema.record import POSITION
from izograf.schema.request import GenerationRequest
from izograf.service.access import Identity
from izograf.service.catalogue import Catalogue
from izograf.service.context import Service
from izograf.store.accounts import Role

FILE = "/api/v1/images/{}/file"


@dataclass(frozen=True)
class Shown:
    """One picture on a page.

    Attributes:
        condition: in the reader's language; empty where the picture was made without one.
        towards: where the strip leads that it belongs to, in words; empty for a plain picture.
        place: of a strip's picture, `3/8`.
    """

    image: StoredImage
    condition: str
    towards: str = ""
    place: str = ""

    @property
    def id(self) -> str:
        return self.image.id

    @property
    def href(self) -> str:
        return f"/images/{self.image.id}"

    @property
    def src(self) -> str:
        return FILE.format(self.image.id)

    @property
    def download(self) -> str:
        return f"{self.src}?download=1"


class Showing:
    """Turns stored pictures into shown ones for a reader of one language."""

    def __init__(self, catalogue: Catalogue, language: str) -> None:
        self._language = language
        self._cards = {card.name: card for card in catalogue.generators()}

    def one(self, image: StoredImage) -> Shown:
        asked = request_of(image)
        if asked is None or not asked.towards:
            return Shown(image, self.condition(image.model, asked, image.label))
        leads = [str(asked.towards[key]) for key in ("class", "seed") if key in asked.towards]
        if "class" in asked.towards:
            leads[0] = self.word(image.model, leads[0])
        position = image.record.get(POSITION, 0)
        place = f"{int(position) + 1}/{asked.num_images}"
        return Shown(
            image, self.condition(image.model, asked, image.label), " · ".join(leads), place
        )

    def many(self, images: Iterable[StoredImage]) -> tuple[Shown, ...]:
        return tuple(map(self.one, images))

    def condition(self, model: str, asked: GenerationRequest | None, label: str) -> str:
        """The condition in words; empty for none."""
        if asked is None or asked.condition.get("type") == "text":
            return self.word(model, label)
        return self.word(model, asked.condition.get("class", ""))

    def word(self, model: str, name: str) -> str:
        """A class of a model in the reader's language; its identifier if the model is gone."""
        card = self._cards.get(model)
        return class_word(card, name, self._language) if card else name


def class_word(card: ModelCard, name: str, language: str) -> str:
    """How a reader of `language` calls the class `name`."""
    known = {label.name: label for label in card.classes}
    return capital(known[name].display(language)) if name in known else name


def capital(word: str) -> str:
    """The word as it begins a line."""
    return word[:1].upper() + word[1:]


def request_of(image: StoredImage) -> GenerationRequest | None:
    """The request that made a picture; None if its record does not tell."""
    try:
        return GenerationRequest.from_json(image.record["request"])
    except (IzografError, KeyError, TypeError):
        return None


def may_change(identity: Identity) -> bool:
    """Whether the caller may do more than look."""
    return identity.role.may(Role.USER)


def visible_image(service: Service, identity: Identity, image_id: str) -> StoredImage:
    """
    Raises:
        NotFound: there is no such picture, or it is not the caller's.
    """
    return service.store.images.get(image_id, owner=identity.visible_owner)


def generate_link(asked: GenerationRequest, *, seed: int, num_images: int = 1) -> str:
    """The address of the form that makes pictures, filled in with these settings."""
    # composer shows models, as we do
    from izograf.service.pages.composer import ANY, PREFIX, plain, prompt_fields

    options = {f"{PREFIX}{name}": plain(value) for name, value in asked.options.items()}
    fields: dict[str, Any] = {
        "model": asked.model, "class": asked.condition.get("class", ANY), "seed": seed,
        "number": num_images,
    }  # fmt: skip
    if asked.condition.get("type") == "text":
        del fields["class"]
        names = ("prompt", "negative", "style")
        fields |= {k: v for k, v in zip(names, prompt_fields(asked.condition), strict=True) if v}
    return "/?" + urlencode(fields | options)


def edit_link(image: StoredImage) -> str:
    """The address of the form that repaints, filled in with how an edited picture was made."""
    return "/edit?" + urlencode({"job": image.job_id, "seed": image.seed})


def class_words(cards: Sequence[ModelCard], language: str) -> Mapping[str, str]:
    """Every class of these models, by identifier, sorted by how the reader calls it."""
    words = {c.name: capital(c.display(language)) for card in reversed(cards) for c in card.classes}
    return dict(sorted(words.items(), key=lambda item: item[1].casefold()))


def whole_number(name: str, text: str) -> int:
    """
    Raises:
        InvalidInput: the text a person typed is no whole number.
    """
    try:
        return int(text.strip())
    except ValueError:
        raise InvalidInput(f"{name} must be a whole number, got {text[:40]!r}.") from None
