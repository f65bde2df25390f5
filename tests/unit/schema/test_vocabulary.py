"""The words a text model knows, and what is said about the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from izograf.schema.errors import CardError
from izograf.schema.thesaurus import _thesaurus, stem
from izograf.schema.vocabulary import (
    PADDING,
    UNKNOWN,
    Vocabulary,
    read,
    split_words,
    unknown_words_message,
    write,
)

WORDS = (
    *("and", "blue", "buildings", "city", "forest", "glacier", "houses", "ice", "mountain"),
    *("mountains", "ocean", "sea", "sunset", "trees", "water", "with", "в", "вода", "горами"),
    *("горы", "дома", "закат", "здания", "и", "ландшафт", "лед", "ледник", "лес", "море", "небо"),
    "с",
)
KNOWN = Vocabulary(WORDS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ландшафт с ГОРАМИ, и рекой!", ("ландшафт", "с", "горами", "и", "рекой")),
        ("Чёрно-белое_фото ёлки", ("черно", "белое", "фото", "елки")),
        ("a t-shirt no. 42", ("a", "t", "shirt", "no", "42")),
        ("cat🐱dog ❤️ 👩‍🚀👍🏽", ("cat", "🐱", "dog", "❤", "👩‍🚀", "👍🏽")),
        ("🇷🇺🇬🇧 #️⃣ #", ("🇷🇺", "🇬🇧", "#⃣")),
        ("Ⓜ️ İstanbul", ("ⓜ", "istanbul")),
        (" \n\t.,;", ()),
    ],
)
def test_words_are_letters_digits_and_emoji(text: str, words: tuple[str, ...]) -> None:
    assert split_words(text) == words


@given(st.text(max_size=60))
@example("İ Ⓜ ǅ ΑΣ")
def test_words_are_normal_forms_of_themselves(text: str) -> None:
    words = split_words(text)
    assert split_words(" ".join(words)) == words
    encoded = KNOWN.encode(text, 8)
    assert len(encoded.ids) == 8
    assert encoded.cut == max(0, len(words) - 8)
    assert all(0 <= i < len(KNOWN) for i in encoded.ids)


def test_ids_start_at_two_and_are_padded() -> None:
    assert (PADDING, UNKNOWN) == (0, 1)
    encoded = KNOWN.encode("And BLUE rivers", 5)
    assert encoded.ids == (2, 3, UNKNOWN, PADDING, PADDING)
    assert encoded.unknown == ("rivers",)
    assert len(KNOWN) == len(WORDS) + 2
    assert "blue" in KNOWN
    assert "rivers" not in KNOWN


def test_unknown_words_keep_their_spelling_once_and_beyond_the_limit() -> None:
    encoded = KNOWN.encode("Река и РЕКА, Хобот", 2)
    assert encoded.unknown == ("Река", "Хобот")
    assert encoded.cut == 2


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("рекой", "море"), ("реки", "море"), ("River", "sea"), ("lakes", "sea"),
        ("городом", "здания"), ("cities", "city"), ("деревьев", "лес"), ("снегом", "ледник"),
        ("гор", "горы"), ("горою", "горами"), ("mountian", "mountain"), ("восходе", "закат"),
    ],
)  # fmt: skip
def test_near_words_by_meaning_inflection_and_spelling(word: str, near: str) -> None:
    found = KNOWN.near(word)
    assert near in found
    assert len(found) <= 3


@given(st.text(max_size=12), st.integers(1, 5))
def test_near_words_are_known_distinct_and_in_one_alphabet(word: str, limit: int) -> None:
    found = KNOWN.near(word, limit)
    assert len(found) == len(set(found)) <= limit
    assert set(found) <= set(WORDS)
    cyrillic = any("а" <= letter <= "я" or letter == "ё" for letter in word.lower())
    assert all(("а" <= near[0] <= "я") == cyrillic for near in found)


def test_nothing_is_near_to_nonsense() -> None:
    assert KNOWN.near("xyzzy") == ()
    assert KNOWN.near("🐱") == ()


def test_the_thesaurus_is_large_and_in_normal_form() -> None:
    entries = _thesaurus()
    russian = [key for key in entries if any("а" <= letter <= "я" for letter in key)]
    assert len(russian) >= 80
    assert len(entries) - len(russian) >= 80
    for near in entries.values():
        assert all(split_words(word) == (word,) for word in near)


@pytest.mark.parametrize("forms", ["река реки реке реку рекой рек рекам реками реках",
                                   "синий синяя синее синие синих синему", "lake lakes",
                                   "city cities", "house houses"])  # fmt: skip
def test_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({stem(word) for word in forms.split()}) == 1


def test_the_message_names_words_and_what_is_near() -> None:
    encoded = KNOWN.encode("горы с рекой", 8)
    assert unknown_words_message(encoded, KNOWN, "en") == (
        "The model does not know «рекой»; near: море, вода."
    )
    assert unknown_words_message(encoded, KNOWN, "ru") == (
        "Модель не знает слова «рекой»; близкие: море, вода."
    )
    assert unknown_words_message(KNOWN.encode("xyzzy", 8), KNOWN, "en") == (
        "The model does not know «xyzzy»."
    )
    assert unknown_words_message(KNOWN.encode("горы", 8), KNOWN, "ru") == ""
    assert "2" in unknown_words_message(KNOWN.encode("a a and", 1), KNOWN, "en")


def test_a_file_gives_back_the_vocabulary(tmp_path: Path) -> None:
    for words in ((*WORDS, "🐱"), ()):
        write(tmp_path / "words.txt", Vocabulary(words))
        assert read(tmp_path / "words.txt").words == words
    assert (tmp_path / "words.txt").read_bytes() == b""


@pytest.mark.parametrize(
    "content",
    [b"sea\nsea\n", b"sea\n\nice\n", b"Sea\n", "ёлка\n".encode(), b"two words\n", b"\xff"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(CardError):
        read(path)
    with pytest.raises(CardError):
        read(tmp_path / "missing.txt")
