"""Class names in English and Russian, and how a typed word finds its class.

Standard library only: the command line and the web process resolve names without torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from izograf.schema.errors import NotFound

LANGUAGES = ("en", "ru")


def normalise(text: str) -> str:
    """The form in which names are compared: case-folded, ё as е, separators as one space."""
    folded = text.casefold().replace("ё", "е")
    return " ".join(folded.replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True)
class ClassLabel:
    """One class of a model: its identifier and every accepted written form per language.

    Attributes:
        name: the identifier, used in file names and metadata (`mountain`).
        forms: language -> accepted forms; the first one is what an interface displays.
    """

    name: str
    forms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def display(self, language: str) -> str:
        """The word shown to a reader of `language`, or the identifier where none is given."""
        forms = self.forms.get(language, ())
        return forms[0] if forms else self.name

    def accepted(self) -> frozenset[str]:
        """Every normalised form under which this class may be asked for."""
        words = [self.name, *(word for forms in self.forms.values() for word in forms)]
        accepted = {normalise(word) for word in words}
        accepted |= {normalise(plural) for word in words for plural in _english_plurals(word)}
        return frozenset(accepted)

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "forms": {k: list(v) for k, v in self.forms.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> ClassLabel:
        forms = value.get("forms", {})
        if not isinstance(forms, Mapping) or not all(isinstance(v, list) for v in forms.values()):
            raise TypeError("forms must be an object of language -> list of words")
        if not isinstance(value["name"], str):
            raise TypeError("a class must have a name")
        return cls(value["name"], {str(k): tuple(map(str, v)) for k, v in forms.items()})


def _english_plurals(word: str) -> tuple[str, ...]:
    """Regular English plurals and singulars of an ASCII word; nothing for other scripts."""
    if not word.isascii() or not word:
        return ()
    if word.endswith("s"):
        return (word[:-1],)
    if word.endswith(("x", "ch", "sh")):
        return (word + "es",)
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return (word[:-1] + "ies",)
    return (word + "s",)


def resolve_class(text: str, classes: Sequence[ClassLabel]) -> int:
    """Index of the class that `text` names, in either language, any listed form.

    A decimal number is taken as the index itself when no class carries that name.

    Raises:
        NotFound: no class matches; the message lists the nearest names in both languages.
    """
    wanted = normalise(text)
    for index, label in enumerate(classes):
        if wanted in label.accepted():
            return index
    if text.strip() in map(str, range(len(classes))):
        return int(text)
    near = nearest_classes(text, classes)
    hint = f"did you mean {_either(near)}?" if near else f"known classes: {_listed(classes)}."
    raise NotFound(f"Unknown class {text!r}: {hint}")


def nearest_classes(
    text: str, classes: Sequence[ClassLabel], *, limit: int = 3
) -> list[ClassLabel]:
    """The classes whose forms look most like `text`, best first."""
    owner = {form: label for label in classes for form in label.accepted()}
    matches = difflib.get_close_matches(normalise(text), owner, n=3 * limit, cutoff=0.5)
    unique = dict.fromkeys(owner[match].name for match in matches)
    by_name = {label.name: label for label in classes}
    return [by_name[name] for name in unique][:limit]


def both_languages(label: ClassLabel) -> str:
    """`mountain (горы)`: the identifier with the Russian word, where there is one."""
    russian = label.display("ru")
    return label.name if russian == label.name else f"{label.name} ({russian})"


def _either(labels: Iterable[ClassLabel]) -> str:
    return " or ".join(both_languages(label) for label in labels)


def _listed(labels: Sequence[ClassLabel], *, limit: int = 20) -> str:
    shown = ", ".join(both_languages(label) for label in labels[:limit])
    return shown + (f" and {len(labels) - limit} more" if len(labels) > limit else "")
