"""The phrase books of captions, read from `lexicon/en.toml` and `lexicon/ru.toml`."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from izograf.schema.errors import DataError

Frames = Mapping[str, tuple[str, ...]]
"""What a sentence is about (`class`, `sky`, `attributes`, `name`, ...) -> its frames."""

SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
"""A slot of a frame, `{noun}` or `{noun.gen}`: what it takes, and the case."""

_CASES = {"en": ("nom",), "ru": ("nom", "gen", "dat", "acc", "ins")}
_PICTURE_CASES = {"en": ("nom",), "ru": ("nom", "pre")}
_SCENE_CASES = {"en": ("nom",), "ru": ("nom",)}


@dataclass(frozen=True)
class Noun:
    """A noun phrase by case, and its gender (`m`, `f`, `n`, `pl`; empty in English)."""

    cases: Mapping[str, str]
    gender: str = ""


@dataclass(frozen=True)
class ClassWords:
    """What one class is called.

    Attributes:
        things: names that can be part of a larger view ("mountains").
        wholes: names of the whole view ("a mountain landscape").
        places: where its photographs are taken ("in the mountains").
        scenes: the views that contain it ("landscape").
    """

    things: tuple[Noun, ...]
    wholes: tuple[Noun, ...] = ()
    places: tuple[str, ...] = ()
    scenes: tuple[Noun, ...] = ()


@dataclass(frozen=True)
class Phrasebook:
    """The frames and words of one language; `train` and `held_out` frames share none."""

    language: str
    pictures: tuple[Noun, ...]
    scenes: tuple[Noun, ...]
    train: Frames
    held_out: Frames
    colours: Frames
    classes: Mapping[str, ClassWords] = field(default_factory=dict)

    def frames(self, kind: str, held_out: bool) -> tuple[str, ...]:
        """The sentence frames of `kind`."""
        return (self.held_out if held_out else self.train)[kind]

    def cases(self, *slots: str) -> tuple[str, ...]:
        """The cases in which frames ask for any of `slots`."""
        frames = (f for both in (self.train, self.held_out) for kind in both.values() for f in kind)
        found = (match for frame in frames for match in SLOT.finditer(frame))
        return tuple(sorted({match[2] or "nom" for match in found if match[1] in slots}))


@functools.cache
def phrasebook(language: str) -> Phrasebook:
    """The phrase book of `language`, `en` or `ru`."""
    file = resources.files("izograf.data").joinpath("lexicon", f"{language}.toml")
    return parse_phrasebook(file.read_text(encoding="utf-8"), language)


def parse_phrasebook(text: str, language: str) -> Phrasebook:
    """A phrase book from TOML, in the format of `lexicon/en.toml`.

    Raises:
        DataError: a noun without all its cases; the message quotes it.
    """
    raw: dict[str, Any] = tomllib.loads(text)
    return Phrasebook(
        language=language,
        pictures=_nouns(raw["pictures"], language, _PICTURE_CASES),
        scenes=_nouns(raw["scenes"], language, _SCENE_CASES),
        train=_frames(raw["train"]),
        held_out=_frames(raw["held_out"]),
        colours=_frames(raw["colours"]),
        classes={name: _class(entry, language) for name, entry in raw["classes"].items()},
    )


def _frames(entry: Mapping[str, list[str]]) -> Frames:
    return {kind: tuple(frames) for kind, frames in entry.items()}


def _class(entry: Mapping[str, list[str]], language: str) -> ClassWords:
    return ClassWords(
        things=_nouns(entry["things"], language, _CASES),
        wholes=_nouns(entry["wholes"], language, _CASES),
        places=tuple(entry["places"]),
        scenes=_nouns(entry["scenes"], language, _SCENE_CASES),
    )


def _nouns(
    entries: list[str], language: str, cases: Mapping[str, tuple[str, ...]]
) -> tuple[Noun, ...]:
    return tuple(_noun(entry, language, cases[language]) for entry in entries)


def _noun(entry: str, language: str, cases: tuple[str, ...]) -> Noun:
    forms = entry.split("|")
    if len(forms) != len(cases) + (language == "ru"):
        raise DataError(f"The noun {entry!r} must give {', '.join(cases)} and the gender.")
    return Noun(dict(zip(cases, forms, strict=False)), forms[-1] if language == "ru" else "")
