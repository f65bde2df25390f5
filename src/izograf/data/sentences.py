"""One sentence about a picture: a frame of the phrase book, filled and completed.

Frames and words are in `lexicon/`, the phrases of attributes in `schema.attributes`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from izograf.data.declension import decline
from izograf.data.phrasebook import SLOT, ClassWords, Noun, Phrasebook, phrasebook
from izograf.schema.attributes import PictureAttributes, attributes
from izograf.schema.errors import InvalidInput
from izograf.schema.labels import LANGUAGES, ClassLabel, normalise

_SKY_FRAME = 0.4
_WHOLE = 0.3
_PICTURE_ADJECTIVE = 0.6
_THING_ADJECTIVE = 0.3
_ARTICLE = re.compile(r"^(an?|the) ")
_TAIL_STARTS = {
    "en": ("with", "under", "in", "at", "of", "without"),
    "ru": ("с", "со", "под", "в", "во", "на", "при", "без"),
}
_WITH = {"en": "with", "ru": "с"}
_AND = {"en": " and ", "ru": " и "}
VARIANTS = {"en": ("a", "an"), "ru": ("с", "со")}
"""Words that take their form from the next one; frames have one of the forms."""


def compose(
    label: ClassLabel | None,
    chosen: PictureAttributes,
    rng: random.Random,
    language: str,
    held_out: bool = False,
) -> str:
    """A caption that names the class, where one is given, and every attribute in `chosen`.

    Raises:
        InvalidInput: no such language.
    """
    book = open_book(language)
    words = None if label is None else class_words(label, book)
    pending = dict(chosen)
    kind = "attributes" if label is None else "name" if words is None else "class"
    has_sky = chosen.get("sky", ("none",)) != ("none",)
    if kind == "class" and has_sky and rng.random() < _SKY_FRAME:
        kind = "sky"
    frame = rng.choice(book.frames(kind, held_out))
    writer = _Writer(book, label, words, pending, rng, held_out, frame)
    text = SLOT.sub(writer.slot, frame)
    return articles(writer.with_tails(text))


def class_words(label: ClassLabel, book: Phrasebook) -> ClassWords | None:
    """The phrase book's entry for `label`, by any of its names; None where it has none."""
    words = book.classes.get(normalise(label.name))
    if words is not None:
        return words
    accepted = label.accepted()
    return next((words for name, words in book.classes.items() if name in accepted), None)


class _Writer:
    """Fills the slots of one frame and appends what they did not say."""

    def __init__(
        self,
        book: Phrasebook,
        label: ClassLabel | None,
        words: ClassWords | None,
        pending: dict[str, tuple[str, ...]],
        rng: random.Random,
        held_out: bool,
        frame: str,
    ) -> None:
        self._book, self._label, self._words = book, label, words
        self._pending, self._rng, self._held_out = pending, rng, held_out
        self._frame = frame
        self._last = ""

    def slot(self, match: re.Match[str]) -> str:
        """The text for one slot of the frame."""
        slot, case = match[1], match[2] or "nom"
        self._last = getattr(self, f"_{slot}")(case)
        return self._last

    def with_tails(self, text: str) -> str:
        """`text` and the attributes that are still to be mentioned, in random order."""
        names = list(self._pending)
        self._rng.shuffle(names)
        language = self._book.language
        with_ = _WITH[language]
        lists_things = self._frame.endswith((f"{with_} {{thing}}", f"{with_} {{thing.ins}}"))
        lists_things |= self._frame.endswith("}") and f" {with_} " in self._last
        for number, name in enumerate(names):
            tail = self._tail(name)
            start, _, rest = tail.partition(" ")
            if number or start not in _TAIL_STARTS[language]:
                text += ", " + tail
            elif lists_things and start in (with_, "со"):
                text += _AND[language] + rest
            else:
                follows = self._frame.endswith("{picture.pre}") or f" {start} " in f" {text} "
                text += (", " if follows else " ") + tail
        return text

    def _tail(self, name: str) -> str:
        values = self._pending[name]
        if name == "colours":
            return self._colours(values)
        words = attributes()[name].values[values[0]].words[self._book.language]
        if self._held_out and words.held_out:
            return self._rng.choice(words.held_out)
        return self._rng.choice((*words.tails, *words.heads))

    def _colours(self, values: Sequence[str]) -> str:
        frame = self._rng.choice(self._book.colours["held_out" if self._held_out else "train"])
        match = SLOT.search(frame)
        case = (match[2] if match else None) or "nom"
        count = 1 if case == "gen" else len(values)
        names = [self._colour(value, case) for value in values[:count]]
        said = _AND[self._book.language].join([", ".join(names[:-1]), names[-1]][len(names) == 1 :])
        return SLOT.sub(said, frame)

    def _colour(self, value: str, case: str) -> str:
        language = self._book.language
        return colour_form(self._rng.choice(colour_words(value, language)), case, language)

    def _picture(self, case: str) -> str:
        return self._described(self._book.pictures, case, "picture", _PICTURE_ADJECTIVE)

    def _scene(self, case: str) -> str:
        scenes = self._words.scenes if self._words else ()
        return self._described(scenes or self._book.scenes, case, "picture", _PICTURE_ADJECTIVE)

    def _thing(self, case: str) -> str:
        things = self._words.things if self._words else ()
        return self._described(things, case, "thing", _THING_ADJECTIVE)

    def _noun(self, case: str) -> str:
        if self._words is None or not self._words.wholes or self._rng.random() >= _WHOLE:
            return self._thing(case)
        return self._described(self._words.wholes, case, "thing", _THING_ADJECTIVE)

    def _place(self, case: str) -> str:  # noqa: ARG002
        return self._rng.choice(self._words.places if self._words else ())

    def _sky(self, case: str) -> str:  # noqa: ARG002
        value = self._pending.pop("sky")[0]
        words = attributes()["sky"].values[value].words[self._book.language]
        return self._rng.choice(words.heads)

    def _name(self, case: str) -> str:  # noqa: ARG002
        names = names_of(self._label, self._book.language)
        return self._rng.choice(names) if self._frame == "{name}" else names[0]

    def _described(self, nouns: Sequence[Noun], case: str, kind: str, probability: float) -> str:
        """One of the nouns, with an adjective that says a pending attribute if there is one."""
        noun = self._rng.choice(nouns)
        language = self._book.language
        fitting = [
            (name, words)
            for name, values in self._pending.items()
            if name != "colours"
            and (words := getattr(attributes()[name].values[values[0]].words[language], kind))
        ]
        if not fitting or self._rng.random() >= probability:
            return noun.cases[case]
        name, words = self._rng.choice(fitting)
        del self._pending[name]
        adjective = self._rng.choice(words)
        form = agree(adjective, noun, case, language)
        article = _ARTICLE.match(noun.cases[case])
        at = article.end() if article else 0
        return f"{noun.cases[case][:at]}{form} {noun.cases[case][at:]}"


def agree(adjective: str, noun: Noun, case: str, language: str) -> str:
    """`adjective` in the form that stands before `noun` in `case`."""
    return decline(adjective, case, noun.gender) if language == "ru" else adjective


def colour_form(word: str, case: str, language: str) -> str:
    """A colour in `case`, plural in the prepositional ("in green tones") and where it says so."""
    if language != "ru":
        return word
    if case == "plural":
        return decline(word, "nom", "pl")
    return decline(word, case, "pl" if case == "pre" else "m")


def open_book(language: str) -> Phrasebook:
    """The phrase book of `language`.

    Raises:
        InvalidInput: there is none.
    """
    if language not in LANGUAGES:
        raise InvalidInput(f"language must be {' or '.join(LANGUAGES)}, got {language!r}.")
    return phrasebook(language)


def articles(text: str) -> str:
    """`text` with "a" or "an" as the next word asks, and Russian "с" or "со"."""
    text = re.sub(r"\ban? (?=[aeio]|u(?!ni))", "an ", text)
    text = re.sub(r"\ban (?![aeio]|u(?!ni))", "a ", text)
    return re.sub(r"\bсо? (?=[сзшж][бвгджзклмнпрстфхцчшщ])", "со ", text)


def names_of(label: ClassLabel | None, language: str) -> tuple[str, ...]:
    """What a class without an entry is called; the first name is in the nominative."""
    if label is None:
        return ()
    return (label.display(language), *label.forms.get(language, ())[1:])


def colour_words(value: str, language: str) -> tuple[str, ...]:
    """The adjectives of a colour, to be declined in Russian."""
    forms = attributes()["colours"].values[value].words[language].forms
    return forms if language == "en" else tuple(f for f in forms if f.endswith(("ый", "ий", "ой")))
