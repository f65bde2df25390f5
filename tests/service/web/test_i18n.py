"""Texts: the same in every language, none missing, none left over; numbers as readers write."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from izograf.schema.labels import LANGUAGES
from izograf.service.pages import i18n
from izograf.service.pages.i18n import NARROW, NBSP, Format, Text, Translator, texts

SERVICE = Path(i18n.__file__).resolve().parents[1]
CATEGORIES = {"en": {"one", "other"}, "ru": {"one", "few", "many", "other"}}
KEY = re.compile(r"""["'`]([a-z_0-9]+\.[A-Za-z_0-9.+-]*)""")


def forms(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text.values())


def placeholders(text: Text) -> set[str]:
    return {n for form in forms(text) for _, n, _, _ in string.Formatter().parse(form) if n}


def sources() -> Iterator[str]:
    for pattern in ("templates/**/*.html", "static/js/*.js", "pages/*.py"):
        for path in SERVICE.glob(pattern):
            yield path.read_text(encoding="utf-8")


def used() -> set[str]:
    """Keys, and beginnings of keys that the rest is added to while running."""
    areas = {key.split(".")[0] for key in texts("en")}
    found = {key for source in sources() for key in KEY.findall(source)}
    return {key for key in found if key.split(".")[0] in areas}


def test_every_language_has_the_same_keys() -> None:
    english = texts("en")
    for language in LANGUAGES:
        assert set(texts(language)) == set(english)


def test_every_language_has_the_same_placeholders() -> None:
    english = texts("en")
    for language in LANGUAGES:
        for key, text in texts(language).items():
            assert placeholders(text) == placeholders(english[key]), (language, key)


def test_a_counted_text_has_every_plural_of_its_language() -> None:
    for language in LANGUAGES:
        for key, text in texts(language).items():
            if not isinstance(text, str):
                assert set(text) == CATEGORIES[language], (language, key)
                assert "count" in placeholders(text), (language, key)


def test_no_text_is_empty_and_none_is_markup() -> None:
    for language in LANGUAGES:
        for key, text in texts(language).items():
            assert all(form.strip() and "<" not in form for form in forms(text)), (language, key)


def test_every_key_that_is_used_exists() -> None:
    known = texts("en")
    missing = [
        key for key in used()
        if key not in known and not any(k.startswith(key) for k in known)
    ]  # fmt: skip
    assert not [key for key in missing if not key.endswith((".html", ".py", ".js", ".css"))]


def test_every_key_that_exists_is_used() -> None:
    keys = used()
    # `strings("area.js.")` hands texts to scripts, which still have to name each of them
    beginnings = tuple(k for k in keys if k not in texts("en") and not k.endswith(".js."))
    left = [key for key in texts("en") if key not in keys and not key.startswith(beginnings)]
    assert not left


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "many"), (1, "one"), (2, "few"), (5, "many"), (11, "many"), (12, "many"), (21, "one"),
     (22, "few"), (111, "many"), (1001, "one"), (1.5, "other")],
)  # fmt: skip
def test_russian_plurals(count: float, expected: str) -> None:
    assert i18n.plural_category("ru", count) == expected


def test_a_counted_text() -> None:
    assert Translator("en")("generate.pictures", count=1) == "1 picture"
    assert Translator("ru")("generate.pictures", count=3) == "3 картинки"
    assert Translator("ru")("generate.pictures", count=1011) == f"1{NARROW}011 картинок"


def test_an_unknown_text_is_an_error() -> None:
    with pytest.raises(KeyError):
        Translator("ru")("common.no-such-text")


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [("", "en"), ("ru", "ru"), ("ru-RU,ru;q=0.9,en;q=0.8", "ru"), ("de, en;q=0.5, ru;q=0.7", "ru"),
     ("fr", "en"), ("en-GB;q=0.3,ru;q=0", "en"), ("\x00;;;q=x", "en")],
)  # fmt: skip
def test_the_preferred_language(accepted: str, expected: str) -> None:
    assert i18n.preferred(accepted) == expected


def test_numbers_durations_and_sizes() -> None:
    en, ru = Format("en"), Format("ru")
    assert (en.number(1234567.5), ru.number(1234567.5)) == (
        "1,234,567.5", f"1{NARROW}234{NARROW}567,5",
    )  # fmt: skip
    assert [en.duration(s) for s in (0.424, 1.26, 59.7, 185, 7440, 3600)] == [
        f"0.42{NBSP}s", f"1.3{NBSP}s", f"1{NBSP}min", f"3{NBSP}min 5{NBSP}s",
        f"2{NBSP}h 4{NBSP}min", f"1{NBSP}h",
    ]  # fmt: skip
    assert (ru.duration(0.5), ru.size(4_200_000)) == (f"0,50{NBSP}с", f"4,2{NBSP}МБ")
    assert [en.energy(j) for j in (0, 0.424, 4.26, 312, 1300, 24e6)] == [
        f"0.00{NBSP}J", f"0.42{NBSP}J", f"4.3{NBSP}J", f"312{NBSP}J", f"1.3{NBSP}kJ", f"24{NBSP}MJ",
    ]  # fmt: skip
    assert (ru.energy(12), ru.energy(1234)) == (f"12{NBSP}Дж", f"1,2{NBSP}кДж")
    assert (en.energy(999.4), en.energy(999.6)) == (f"999{NBSP}J", f"1.0{NBSP}kJ")
    assert (en.size(312), en.size(12_345_678_901)) == (f"312{NBSP}B", f"12.3{NBSP}GB")
    assert ru.moment(0) == f"1{NBSP}янв. 1970, 00:00{NBSP}UTC"
