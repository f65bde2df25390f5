"""From what a user typed to a text condition: prompt, attributes and style, with remarks.

Standard library only: the command line, the pages and the interface for programs all come here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from izograf.schema.attributes import Attribute, attributes, phrase, resolve_attributes
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.styles import Style, find_style, language_of
from izograf.schema.vocabulary import Vocabulary, unknown_words_message


@dataclass(frozen=True)
class Prompted:
    """A text condition, and what its author should read about it.

    Attributes:
        condition: as `GenerationRequest.condition` has it.
        remarks: sentences: words that the model does not know, with near ones that it does.
    """

    condition: dict[str, str]
    remarks: tuple[str, ...] = ()


def compose_prompt(
    card: ModelCard,
    prompt: str,
    *,
    negative: str = "",
    given: Sequence[str] = (),
    style: str | None = None,
    presets: Mapping[str, Style] | None = None,
) -> Prompted:
    """The condition for a prompt, in whose language everything else is said.

    Args:
        given: attributes, `sky=orange`, `небо=оранжевое`: the same condition in another form, said
            after the prompt or in place of it.
        style: a preset whose words are put around the prompt.
        presets: those there are; None for the bundled ones and the user's own.

    Raises:
        InvalidInput: the model reads no prompts, an unknown attribute or value, or nothing asked.
        NotFound: no such style.
    """
    if "text" not in card.conditions:
        takes = " It takes classes: use --class." if card.classes else ""
        raise InvalidInput(f"{card.name} does not read prompts.{takes}")
    language = language_of(prompt)
    said = phrase(resolve_attributes(given), language)
    words = ", ".join(part for part in (" ".join(prompt.split()), said) if part)
    if not words:
        raise InvalidInput("The prompt is empty: say in a few words what the picture shows.")
    remarks, named = remarks_on(card, (words, negative), language), {}
    if style is not None:
        preset = find_style(style, presets)
        named = {"style": preset.name, "asked": words}
        words, negative = preset.apply(words, negative, language=language)
        remarks = (*remarks, *_on_style(card, preset, language))
    condition = {"type": "text", "prompt": words, "negative_prompt": negative, **named}
    return Prompted({name: value for name, value in condition.items() if value}, remarks)


def remarks_of(card: ModelCard, condition: Mapping[str, str]) -> tuple[str, ...]:
    """The remarks on a text condition made before; with a style, none on the negative prompt."""
    prompt = condition.get("asked", condition.get("prompt", ""))
    language, style = language_of(prompt), condition.get("style")
    if style is None:
        return remarks_on(card, (prompt, condition.get("negative_prompt", "")), language)
    remarks = remarks_on(card, (prompt,), language)
    with suppress(NotFound, InvalidInput):  # the style may be gone
        remarks = (*remarks, *_on_style(card, find_style(style), language))
    return remarks


def vocabulary_of(card: ModelCard) -> Vocabulary | None:
    """The words the model knows; None for one that reads anything."""
    described = card.sampling.get("text")
    words = described.get("vocabulary") if isinstance(described, dict) else None
    return Vocabulary(tuple(words.split())) if isinstance(words, str) else None


def known_attributes(card: ModelCard) -> tuple[Attribute, ...]:
    """The attributes whose every value the model has words for; none if it has no vocabulary.

    Where the card lists those that its captions spoke of, only these.
    """
    vocabulary = vocabulary_of(card)
    if vocabulary is None:
        return ()
    listed = card.sampling["text"].get("attributes")
    spoken_of = listed if isinstance(listed, list) else attributes()

    def says(attribute: Attribute, value: str) -> bool:
        words = phrase({attribute.name: (value,)}, "en")
        return not vocabulary.encode(words, 1000).unknown

    return tuple(
        each
        for each in attributes().values()
        if each.name in spoken_of and all(says(each, v) for v in each.values)
    )


def remarks_on(card: ModelCard, texts: Sequence[str], language: str) -> tuple[str, ...]:
    """A sentence for each word of the texts that the model does not know."""
    vocabulary = vocabulary_of(card)
    if vocabulary is None:
        return ()
    longest = card.sampling["text"]["network"]["config"]["max_words"]
    found = [vocabulary.encode(text, longest) for text in texts if text]
    return tuple(
        said for each in found if (said := unknown_words_message(each, vocabulary, language))
    )


_STYLE = {
    "en": "The model knows no word of this style, which therefore changes nothing.",
    "ru": "Модель не знает ни одного слова этого стиля, и он ничего не меняет.",
}


def _on_style(card: ModelCard, style: Style, language: str) -> tuple[str, ...]:
    """A remark on a style that says nothing to a model of few words."""
    vocabulary = vocabulary_of(card)
    if vocabulary is None:
        return ()
    ids = vocabulary.encode(style.apply("", language=language)[0], 1000).ids
    return () if any(number > 1 for number in ids) else (_STYLE[language],)
