"""Captions of photographs in English and Russian: derived from the data, not invented.

    captions = captions_of(load_images([Path("scenes")], 64))
    captions.caption(7, random.Random(0), "ru")     # "тёмный пейзаж с горами и голубым небом"

A caption says what is known: the class, and what `attributes.measure` finds in the picture. It
varies in frame, synonym and what it mentions; a text model learns from many captions of the same
picture. Frames marked held out serve to judge a model on sentences that it never saw; they
consist of words that training captions contain.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from izograf.data.attributes import measure
from izograf.data.dataset import ImageSet
from izograf.data.phrasebook import SLOT, ClassWords, Noun, Phrasebook, phrasebook
from izograf.data.sentences import (
    VARIANTS,
    agree,
    articles,
    class_words,
    colour_form,
    colour_words,
    compose,
    names_of,
    open_book,
)
from izograf.schema.attributes import PictureAttributes, attributes
from izograf.schema.errors import InvalidInput
from izograf.schema.labels import LANGUAGES, ClassLabel
from izograf.schema.vocabulary import split_words

__all__ = ["CaptionSource", "Captions", "EmojiCaptions", "captions_of", "compose"]

WITHOUT_CLASS = 0.05
"""Share of captions that do not name the class."""
WITHOUT_ATTRIBUTES = 0.25
"""Share of captions that mention no attribute."""

_HOW_MANY = (1, 1, 1, 2, 2, 3)


class CaptionSource(Protocol):
    """Whatever describes the pictures of a dataset in words.

    Attributes:
        attributes: names of what captions say of `schema.attributes`.
    """

    @property
    def attributes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def caption(self, index: int, rng: random.Random, language: str, held_out: bool = False) -> str:
        """One caption of picture `index`; the same state of `rng` gives the same caption."""
        ...

    def vocabulary(self) -> tuple[str, ...]:
        """Every word, as `schema.vocabulary` writes it, that a caption can contain; sorted."""
        ...


def captions_of(images: ImageSet) -> CaptionSource:
    """The captions that fit `images`: of its names and keywords, else of classes and attributes.

    Names and keywords are the columns `text`, `text_ru`, `keywords` and `keywords_ru`. Without
    them every picture is measured, which takes about a minute for 20,000 pictures.
    """
    if images.columns and all("text" in row and "keywords" in row for row in images.columns):
        return EmojiCaptions(images.columns)
    labels = [None if i < 0 else images.classes[i] for i in images.class_ids.tolist()]
    return Captions(labels, measure(images.images).per_picture())


class Captions:
    """Captions from the class and the measured attributes of each picture.

    Args:
        labels: the class of every picture, None where it has none.
        attributes: what was measured in every picture, in the same order.
        classes: further classes whose words belong to the vocabulary.

    Raises:
        InvalidInput: the two have different lengths.
    """

    def __init__(
        self,
        labels: Sequence[ClassLabel | None],
        attributes: Sequence[PictureAttributes],
        classes: Iterable[ClassLabel] = (),
    ) -> None:
        if len(labels) != len(attributes):
            raise InvalidInput(
                f"Captions need attributes for every label, got {len(labels)} labels and "
                f"{len(attributes)} sets of attributes."
            )
        self._labels = tuple(labels)
        self._attributes = tuple(attributes)
        known = {label.name: label for label in (*labels, *classes) if label is not None}
        self._classes = tuple(known[name] for name in sorted(known))

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that any picture has."""
        present = {name for found in self._attributes for name, values in found.items() if values}
        return tuple(name for name in attributes() if name in present)

    def caption(self, index: int, rng: random.Random, language: str, held_out: bool = False) -> str:
        """One caption of picture `index`, with its class in 95 % and up to three attributes.

        Raises:
            InvalidInput: no such language.
        """
        chosen = choose_attributes(self._attributes[index], rng)
        left_out = chosen and rng.random() < WITHOUT_CLASS / (1 - WITHOUT_ATTRIBUTES)
        label = None if left_out else self._labels[index]
        return compose(label, chosen, rng, language, held_out)

    def vocabulary(self) -> tuple[str, ...]:
        """Every word of every frame, of the classes, and of the values present; sorted."""
        present = {(n, v) for found in self._attributes for n, vs in found.items() for v in vs}
        words: set[str] = set()
        for language in LANGUAGES:
            book = phrasebook(language)
            words |= _words(_book_texts(book))
            for label in self._classes:
                words |= _words(_class_texts(label, book))
            for name, value in present:
                words |= _words(_value_texts(name, value, book, self._classes))
        return tuple(sorted(words))


class EmojiCaptions:
    """Captions from names and keywords: rows with `text`, `text_ru`, `keywords`, `keywords_ru`.

    A caption is the name, the name with keywords, or one to three keywords; half of them say
    that it is an emoji, and a few are the emoji itself (`emoji` of the row).
    """

    attributes: tuple[str, ...] = ()  # nothing is measured in them

    def __init__(self, columns: Sequence[Mapping[str, Any]]) -> None:
        self._rows = tuple(columns)

    def __len__(self) -> int:
        return len(self._rows)

    def caption(self, index: int, rng: random.Random, language: str, held_out: bool = False) -> str:
        """One caption of picture `index`.

        Raises:
            InvalidInput: no such language.
        """
        book = open_book(language)
        name, keywords, symbol = self.said(index, language)
        choice = rng.random()
        if symbol and choice < 0.05:
            said = symbol
        elif choice < 0.45 or not keywords:
            said = name
        elif choice < 0.75:
            said = ", ".join((name, *rng.sample(keywords, min(len(keywords), rng.choice((1, 2))))))
        else:
            said = ", ".join(rng.sample(keywords, min(len(keywords), rng.choice((1, 2, 3)))))
        kind = "emoji" if rng.random() < 0.5 else "bare_emoji"
        return articles(rng.choice(book.frames(kind, held_out)).format(emoji=said))

    def vocabulary(self) -> tuple[str, ...]:
        """Every word of the names and keywords, every emoji, and the frames' words, sorted."""
        words: set[str] = set()
        for language in LANGUAGES:
            book = phrasebook(language)
            words |= _words(VARIANTS[language])
            for kind in ("emoji", "bare_emoji"):
                words |= _words(_frame_texts((*book.train[kind], *book.held_out[kind])))
            for index in range(len(self._rows)):
                name, keywords, symbol = self.said(index, language)
                words |= _words((name, symbol, *keywords))
        return tuple(sorted(words))

    def said(self, index: int, language: str) -> tuple[str, tuple[str, ...], str]:
        """Name, keywords and emoji of picture `index`; the English ones where others lack."""
        row = self._rows[index]
        suffix = "" if language == "en" else f"_{language}"
        name = row.get(f"text{suffix}") or row["text"]
        keywords = row.get(f"keywords{suffix}") or row["keywords"]
        return str(name), tuple(map(str, keywords)), str(row.get("emoji") or "")


def choose_attributes(measured: PictureAttributes, rng: random.Random) -> PictureAttributes:
    """None of the attributes in a quarter of the draws, else one to three of them by weight."""
    if rng.random() < WITHOUT_ATTRIBUTES:
        return {}
    grey = measured.get("greyscale") == ("yes",)
    left = {
        name: min(attributes()[name].values[value].weight for value in values)
        for name, values in measured.items()
        if values and not (grey and name in ("light", "colours"))
    }
    left = {name: weight for name, weight in left.items() if weight > 0}
    chosen: dict[str, tuple[str, ...]] = {}
    for _ in range(min(len(left), rng.choice(_HOW_MANY))):
        name = rng.choices(list(left), list(left.values()))[0]
        del left[name]
        chosen[name] = measured[name]
    return chosen


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in split_words(text)}


def _frame_texts(frames: Iterable[str]) -> Iterator[str]:
    return (SLOT.sub(" ", frame) for frame in frames)


def _book_texts(book: Phrasebook) -> Iterator[str]:
    """Every frame of photographs without its slots, and the words for a photograph."""
    yield from VARIANTS[book.language]
    for frames in (book.train, book.held_out):
        for kind in frames:
            yield from () if "emoji" in kind else _frame_texts(frames[kind])
    yield from (noun.cases[case] for noun in book.pictures for case in book.cases("picture"))
    yield from (noun.cases["nom"] for noun in book.scenes)


def _class_texts(label: ClassLabel, book: Phrasebook) -> Iterator[str]:
    """What `label` is called in every case that frames ask for."""
    words = class_words(label, book)
    if words is None:
        yield from names_of(label, book.language)
        return
    yield from words.places
    yield from (noun.cases["nom"] for noun in words.scenes)
    yield from (noun.cases[case] for noun, case in _things(words, book))


def _value_texts(
    name: str, value: str, book: Phrasebook, labels: Iterable[ClassLabel]
) -> Iterator[str]:
    """The phrases of one value, its adjectives as the nouns beside them ask."""
    language = book.language
    words = attributes()[name].values[value].words[language]
    yield from (*words.tails, *words.heads, *words.held_out)
    if name == "colours":
        yield from _colour_texts(value, book)
    entries = [entry for label in labels if (entry := class_words(label, book))]
    pictures = [(noun, case) for noun in book.pictures for case in book.cases("picture")]
    pictures += [(noun, "nom") for entry in entries for noun in (*entry.scenes, *book.scenes)]
    things = [pair for entry in entries for pair in _things(entry, book)]
    for adjectives, nouns in ((words.picture, pictures), (words.thing, things)):
        for adjective in adjectives:
            yield from (agree(adjective, noun, case, language) for noun, case in nouns)


def _colour_texts(value: str, book: Phrasebook) -> Iterator[str]:
    for frame in (*book.colours["train"], *book.colours["held_out"]):
        yield SLOT.sub(" ", frame)
        for match in SLOT.finditer(frame):
            for word in colour_words(value, book.language):
                yield colour_form(word, match[2] or "nom", book.language)


def _things(words: ClassWords, book: Phrasebook) -> Iterator[tuple[Noun, str]]:
    yield from ((noun, case) for noun in words.things for case in book.cases("thing", "noun"))
    yield from ((noun, case) for noun in words.wholes for case in book.cases("noun"))
