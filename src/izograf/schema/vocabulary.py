"""The words a text model knows: from a prompt to token ids, and what to say about other words.

Standard library only: the command line and the web pages judge prompts without torch. Unknown
words are reported with near known ones; none is replaced silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from izograf.schema.errors import CardError
from izograf.schema.thesaurus import nearest

PADDING, UNKNOWN = 0, 1
"""The two ids that are no word."""
_FIRST_WORD = 2

# Unicode emoji sequences (Unicode Technical Standard 51, ED-17): a pictograph with modifiers,
# joined to others by U+200D; flags, two regional indicators; keycaps. U+24DC is the lower case
# of U+24C2.
_PICTOGRAPH = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u24dc\u25a0-\u27bf"
    "\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001f1e5\U0001f200-\U0001faff]"
    "[\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*"
)
_EMOJI = (
    f"{_PICTOGRAPH}(?:\u200d{_PICTOGRAPH})*|[\U0001f1e6-\U0001f1ff]{{1,2}}|[0-9#*]\ufe0f?\u20e3"
)
_WORD = re.compile(f"{_EMOJI}|[^\\W_]+")


def split_words(text: str) -> tuple[str, ...]:
    """The words of `text` as the vocabulary writes them: lower case, ё as е.

    Letters and digits make words, an emoji sequence is one word, all else separates them.
    """
    return tuple(map(_normal, _WORD.findall(text)))


def _normal(word: str) -> str:
    lower = word.lower().replace("ё", "е").replace("\ufe0f", "")
    return "".join(_WORD.findall(lower))  # the small letter of "İ" comes with a mark that is none


@dataclass(frozen=True)
class Encoded:
    """A prompt as token ids.

    Attributes:
        ids: of length `max_tokens`, padded with `PADDING`; `UNKNOWN` where a word is not known.
        unknown: the words not known, as the user wrote them, each once.
        cut: how many words did not fit.
    """

    ids: tuple[int, ...]
    unknown: tuple[str, ...] = ()
    cut: int = 0


@dataclass(frozen=True)
class Vocabulary:
    """The known words in the order of their ids, which start at 2.

    Raises:
        CardError: a word is empty, twice there, or not written as `split_words` writes it.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        seen: set[str] = set()
        for number, word in enumerate(self.words, start=1):
            if split_words(word) != (word,):
                raise CardError(
                    f"The vocabulary's line {number}, {word!r}, is not one normalised word: "
                    "expected lower case letters and digits, ё written as е, or one emoji."
                )
            if word in seen:
                raise CardError(f"The vocabulary has {word!r} twice, again in line {number}.")
            seen.add(word)

    def __len__(self) -> int:
        """The number of ids: the words, padding and unknown."""
        return len(self.words) + _FIRST_WORD

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    @cached_property
    def _ids(self) -> Mapping[str, int]:
        return {word: number for number, word in enumerate(self.words, start=_FIRST_WORD)}

    def encode(self, prompt: str, max_tokens: int) -> Encoded:
        """Ids of the words of `prompt`, the first `max_tokens` of them."""
        found = [(match, self._ids.get(_normal(match))) for match in _WORD.findall(prompt)]
        ids = [UNKNOWN if number is None else number for _, number in found[:max_tokens]]
        unknown = {_normal(word): word for word, number in reversed(found) if number is None}
        return Encoded(
            ids=tuple(ids + [PADDING] * (max_tokens - len(ids))),
            unknown=tuple(reversed(unknown.values())),
            cut=max(0, len(found) - max_tokens),
        )

    def near(self, word: str, limit: int = 3) -> tuple[str, ...]:
        """Known words that could stand for `word`, in its language, best first.

        First what the thesaurus holds for it or for another form of it, then what is spelt alike.
        """
        return nearest(_normal(word), self.words, limit)


def read(path: Path) -> Vocabulary:
    """The vocabulary in a text file of one word per line, UTF-8.

    Raises:
        CardError: not readable, not UTF-8, an empty line, or a word that is twice there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"The vocabulary {path} cannot be read: {error}.") from error
    return Vocabulary(tuple(text.removesuffix("\n").split("\n")) if text else ())


def write(path: Path, vocabulary: Vocabulary) -> None:
    """Write `vocabulary` so that `read` gives it back."""
    path.write_text("".join(f"{word}\n" for word in vocabulary.words), encoding="utf-8")


def unknown_words_message(encoded: Encoded, vocabulary: Vocabulary, language: str) -> str:
    """What a user should read about `encoded`, in `language`; empty where there is nothing.

    One sentence for each unknown word, with near words where there are any, and one for words
    beyond the limit.
    """
    sentences = _SENTENCES.get(language, _SENTENCES["en"])
    said = [_unknown(word, vocabulary.near(word), sentences) for word in encoded.unknown]
    if encoded.cut:
        said.append(sentences["cut"].format(count=encoded.cut, limit=len(encoded.ids)))
    return " ".join(said)


def _unknown(word: str, near: Iterable[str], sentences: Mapping[str, str]) -> str:
    listed = ", ".join(near)
    return sentences["near" if listed else "unknown"].format(word=word, near=listed)


_SENTENCES = {
    "en": {
        "near": "The model does not know «{word}»; near: {near}.",
        "unknown": "The model does not know «{word}».",
        "cut": "The prompt is too long: it was cut after {limit} words, words left out: {count}.",
    },
    "ru": {
        "near": "Модель не знает слова «{word}»; близкие: {near}.",
        "unknown": "Модель не знает слова «{word}».",
        "cut": "Запрос слишком длинный: учтено слов {limit}, отброшено слов {count}.",
    },
}
