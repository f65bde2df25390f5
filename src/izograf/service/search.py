"""From what people write to what models know: searches of the gallery, and prompts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from izograf.schema.card import ModelCard
from izograf.schema.labels import ClassLabel, normalise
from izograf.service.catalogue import Catalogue

_WORD = re.compile(r"[^\W_]+")
LONGEST_PROMPT = 10_000  # characters that are looked at


def search_text(catalogue: Catalogue, typed: str) -> str:
    """`typed` with every word that names a class replaced by the class's identifier.

    So a plural or a Russian form finds pictures whatever was stored beside them. A word that
    different models take for different classes stays as it is.
    """
    names = class_names(catalogue.generators())
    if (whole := names.get(normalise(typed))) is not None:
        return whole
    return " ".join(names.get(normalise(word), word) for word in typed.split())


def class_names(cards: Iterable[ModelCard]) -> dict[str, str]:
    """Written form -> identifier, of the forms that mean one identifier only."""
    found: dict[str, set[str]] = defaultdict(set)
    for card in cards:
        for label in card.classes:
            for form in label.accepted():
                found[form].add(label.name)
    return {form: next(iter(names)) for form, names in found.items() if len(names) == 1}


def class_in_prompt(prompt: str, classes: Sequence[ClassLabel]) -> ClassLabel | None:
    """The class that a prompt names first, in any form; of two that begin there, the longer."""
    text = f" {' '.join(_WORD.findall(normalise(prompt[:LONGEST_PROMPT])))} "
    best: tuple[int, int] | None = None
    named = None
    for label in classes:
        for form in label.accepted():
            place = text.find(f" {' '.join(_WORD.findall(form))} ")
            if place >= 0 and (best is None or (place, -len(form)) < best):
                best, named = (place, -len(form)), label
    return named
