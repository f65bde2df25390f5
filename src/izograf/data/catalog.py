"""The catalogue of known classes: how a folder's name gets its English and Russian words.

`catalog.toml` beside this module lists the forms. A user's own `classes.toml`, in the root of
the data folder or zip, or beside the zip, npz or table, has the same format and comes first:

    # key: the class as the data names it; then the accepted words of each language.
    # The first word is what is displayed. Languages not mentioned keep the catalogue's words.
    mountain = { en = ["mountain", "mountains", "peak"], ru = ["горы", "гора", "вершина"] }
    "t-shirt" = { ru = ["футболка", "футболки"] }

Upper and lower case, ё and е, hyphens, underscores and spaces are not distinguished, and regular
English plurals are understood without being listed. Russian cases are to be listed.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources

from izograf.schema.errors import DataError
from izograf.schema.labels import LANGUAGES, ClassLabel, normalise

CLASSES_FILE = "classes.toml"

Forms = Mapping[str, tuple[str, ...]]
"""Language -> accepted words, the displayed one first."""


def parse_forms(text: str, *, source: str) -> dict[str, Forms]:
    """Normalised class name -> forms, from the TOML described at the top of this module.

    Raises:
        DataError: not TOML, or not in that format; the message names `source` and the entry.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source} is not valid TOML: {error}.") from error
    return {normalise(name): _forms(name, entry, source) for name, entry in raw.items()}


def _forms(name: str, entry: object, source: str) -> Forms:
    problem = f"{source}, class {name!r}: expected "
    if not isinstance(entry, dict):
        raise DataError(problem + '{ en = ["word", ...], ru = ["слово", ...] }.')
    if unknown := sorted(set(entry) - set(LANGUAGES)):
        raise DataError(problem + f"only {' and '.join(LANGUAGES)}, got {', '.join(unknown)}.")
    for language, words in entry.items():
        if not isinstance(words, list) or not all(isinstance(w, str) and w for w in words):
            raise DataError(problem + f"a list of words for {language}.")
    return {language: tuple(words) for language, words in entry.items()}


@functools.cache
def catalogue() -> Mapping[str, ClassLabel]:
    """Every normalised form of every known class -> its label."""
    text = resources.files("izograf.data").joinpath("catalog.toml").read_text(encoding="utf-8")
    labels = [
        ClassLabel(name, forms) for name, forms in parse_forms(text, source="catalog").items()
    ]
    return {form: label for label in labels for form in label.accepted()}


def label_classes(
    names: Sequence[str], overrides: Mapping[str, Forms] | None = None
) -> tuple[ClassLabel, ...]:
    """One label per class name, in order: forms from `overrides`, else from the catalogue.

    The name itself stays the identifier, whatever language it is in. A form that two of the
    classes would claim belongs to the one named so, else to the first, so that every accepted
    word has one meaning.
    """
    owner = {normalise(name): name for name in names}
    labels = []
    for name in names:
        forms: dict[str, tuple[str, ...]] = {}
        for language, words in _known_forms(name, overrides or {}).items():
            kept = [word for word in words if owner.setdefault(normalise(word), name) == name]
            if kept:
                forms[language] = tuple(kept)
        labels.append(ClassLabel(name, forms))
    return tuple(labels)


def _known_forms(name: str, overrides: Mapping[str, Forms]) -> Forms:
    key = normalise(name)
    known = catalogue().get(key)
    forms = dict(known.forms) if known else {}
    own = overrides.get(key) or (overrides.get(normalise(known.name)) if known else None)
    return forms | dict(own or {})
