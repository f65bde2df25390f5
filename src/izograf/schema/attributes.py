"""The attributes that can be measured in a photograph, and their words in English and Russian.

`attributes.toml` beside this module is the one source: captions are made of its phrases, and
`--attribute sky=orange` or `--attribute небо=оранжевое` is resolved by its names.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from izograf.schema.errors import InvalidInput
from izograf.schema.labels import LANGUAGES, normalise

PictureAttributes = Mapping[str, tuple[str, ...]]
"""Attribute -> its values in one picture: `{"sky": ("blue",), "colours": ("green", "blue")}`."""

_JOIN = {"en": " and ", "ru": " и "}
_COLOURS = {"en": "mostly {}", "ru": "цвета: {}"}


@dataclass(frozen=True)
class Words:
    """What one language has for one value of an attribute.

    Attributes:
        forms: accepted as the value, the first one is displayed.
        picture: adjectives of the photograph ("dark").
        thing: adjectives of what the photograph shows.
        tails: phrases that follow what is shown ("under a blue sky").
        heads: noun phrases of their own ("blue sky").
        held_out: tails that training captions never use.
    """

    forms: tuple[str, ...]
    picture: tuple[str, ...] = ()
    thing: tuple[str, ...] = ()
    tails: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Value:
    """One value of an attribute; `weight` tells how often captions mention it."""

    name: str
    words: Mapping[str, Words]
    weight: float = 1.0


@dataclass(frozen=True)
class Attribute:
    """One measured attribute: its names per language, and its values in the order of their codes.

    A picture has one value of an attribute, but up to three `colours`.
    """

    name: str
    names: Mapping[str, tuple[str, ...]]
    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether one picture can have several values."""
        return self.name == "colours"

    def display(self, language: str) -> str:
        """The name shown to a reader of `language`."""
        return self.names[language][0]


@functools.cache
def attributes() -> Mapping[str, Attribute]:
    """Every attribute by its name, in the order of the table."""
    text = resources.files("izograf.schema").joinpath("attributes.toml").read_text("utf-8")
    return {name: _attribute(name, entry) for name, entry in tomllib.loads(text).items()}


def value_names(attribute: str) -> tuple[str, ...]:
    """The values of `attribute`; a value's code is its place in this tuple."""
    return tuple(attributes()[attribute].values)


def resolve_attribute(text: str) -> tuple[str, str]:
    """Attribute and value that `sky=orange` or `небо=оранжевое` means, by their names.

    Raises:
        InvalidInput: no equals sign, or an unknown attribute or value; the message lists the
            known ones.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(
            f"An attribute is written name=value, for example sky=orange, got {text!r}."
        )
    attribute = _resolve_name(name)
    wanted = normalise(value)
    for candidate in attribute.values.values():
        if wanted in _accepted([candidate.name], (w.forms for w in candidate.words.values())):
            return attribute.name, candidate.name
    known = ", ".join(_both(v.name, v.words["ru"].forms[0]) for v in attribute.values.values())
    raise InvalidInput(f"Unknown value {value.strip()!r} of {attribute.name}: choose from {known}.")


def resolve_attributes(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The attributes of several `name=value`, as `phrase` takes them.

    Raises:
        InvalidInput: as `resolve_attribute`, or two values for an attribute that has one.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, value = resolve_attribute(text)
        chosen = tuple(dict.fromkeys((*found.get(name, ()), value)))
        if len(chosen) > (3 if attributes()[name].several else 1):
            raise InvalidInput(f"Too many values of {name}: {', '.join(chosen)}. Choose fewer.")
        found[name] = chosen
    return found


def phrase(chosen: PictureAttributes, language: str) -> str:
    """The words of these attributes as a caption says them: "with an orange sky, in warm light".

    Raises:
        InvalidInput: an attribute, value or language that does not exist.
    """
    if language not in LANGUAGES:
        raise InvalidInput(f"language must be {' or '.join(LANGUAGES)}, got {language!r}.")
    return ", ".join(_phrase(name, values, language) for name, values in chosen.items() if values)


def _phrase(name: str, values: Sequence[str], language: str) -> str:
    known = _resolve_name(name).values
    if unknown := [value for value in values if value not in known]:
        raise InvalidInput(
            f"Unknown value {unknown[0]!r} of {name}: choose from {', '.join(known)}."
        )
    words = [known[value].words[language] for value in values]
    if name == "colours":
        return _COLOURS[language].format(_JOIN[language].join(word.forms[0] for word in words))
    return ", ".join(word.tails[0] for word in words)


def _resolve_name(name: str) -> Attribute:
    wanted = normalise(name)
    for attribute in attributes().values():
        if wanted in _accepted([attribute.name], attribute.names.values()):
            return attribute
    known = ", ".join(_both(a.name, a.display("ru")) for a in attributes().values())
    raise InvalidInput(f"Unknown attribute {name.strip()!r}: choose from {known}.")


def _accepted(first: Sequence[str], others: Iterable[Sequence[str]]) -> Iterator[str]:
    return (normalise(word) for words in (first, *others) for word in words)


def _both(name: str, russian: str) -> str:
    return f"{name} ({russian})"


def _attribute(name: str, entry: Mapping[str, Any]) -> Attribute:
    values = {key: value for key, value in entry.items() if key != "names"}
    return Attribute(
        name=name,
        names={language: tuple(entry["names"][language]) for language in LANGUAGES},
        values={key: _value(key, value) for key, value in values.items()},
    )


def _value(name: str, entry: Mapping[str, Any]) -> Value:
    words = {
        language: Words(**{key: tuple(forms) for key, forms in entry[language].items()})
        for language in LANGUAGES
    }
    return Value(name, words, float(entry.get("weight", 1.0)))
