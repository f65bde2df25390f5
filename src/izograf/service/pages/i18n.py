"""What the pages say: texts of every area in every language, and numbers as its readers write them.

`i18n/<language>/<area>.toml` holds the texts of `<area>.…`; every file is read by itself. A table
whose keys are plural categories (CLDR: `one few many other`) is one text, chosen by `count`.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from izograf.schema.labels import LANGUAGES

FOLDER = Path(__file__).resolve().parent.parent / "i18n"
DEFAULT = "en"
NAMES = {"en": "English", "ru": "Русский"}
CATEGORIES = frozenset({"one", "few", "many", "other"})
COOKIE = "izograf_lang"

NBSP = "\N{NO-BREAK SPACE}"
NARROW = "\N{NARROW NO-BREAK SPACE}"
MONTHS = {
    "en": ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    "ru": (
        "янв.",
        "февр.",
        "мар.",
        "апр.",
        "мая",
        "июн.",
        "июл.",
        "авг.",
        "сент.",
        "окт.",
        "нояб.",
        "дек.",
    ),
}
UNITS = {
    "en": {"s": "s", "min": "min", "h": "h", "B": "B", "kB": "kB", "MB": "MB", "GB": "GB",
           "J": "J", "kJ": "kJ", "MJ": "MJ"},
    "ru": {"s": "с", "min": "мин", "h": "ч", "B": "Б", "kB": "кБ", "MB": "МБ", "GB": "ГБ",
           "J": "Дж", "kJ": "кДж", "MJ": "МДж"},
}  # fmt: skip

Text = str | Mapping[str, str]
"""One text, or its plural forms by category."""


@functools.cache
def texts(language: str, folder: Path = FOLDER) -> Mapping[str, Text]:
    """Every text of a language by its key, `area.name`."""
    found: dict[str, Text] = {}
    for path in sorted((folder / language).glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        found.update(_flat(raw, f"{path.stem}."))
    return found


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Text]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, str) or (isinstance(value, dict) and CATEGORIES.issuperset(value)):
            yield key, value
        elif isinstance(value, dict):
            yield from _flat(value, f"{key}.")
        else:
            raise TypeError(f"{key} must be a text, got {value!r}")


def plural_category(language: str, count: float) -> str:
    """The plural category of `count` (CLDR 46: en, ru)."""
    if count != int(count):
        return "other"
    whole = abs(int(count))
    if language != "ru":
        return "one" if whole == 1 else "other"
    if whole % 10 == 1 and whole % 100 != 11:
        return "one"
    if whole % 10 in (2, 3, 4) and whole % 100 not in (12, 13, 14):
        return "few"
    return "many"


class Translator:
    """`t(key, **values)`: a text in one language. Numbers among the values are written its way.

    Attributes:
        language: one of `LANGUAGES`.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts, self._fallback = texts(language), texts(DEFAULT)
        self._format = Format(language)

    def __call__(self, key: str, **values: object) -> str:
        """
        Raises:
            KeyError: no language has the text; a number in a seed's place should be a str.
        """
        text = self._texts.get(key) or self._fallback[key]
        if not isinstance(text, str):
            category = plural_category(self.language, float(str(values["count"])))
            text = text.get(category) or text["other"]
        return text.format_map({name: self._written(value) for name, value in values.items()})

    def has(self, key: str) -> bool:
        """Whether there is such a text."""
        return key in self._texts or key in self._fallback

    def either(self, key: str, otherwise: str) -> str:
        """The text, or `otherwise` where nobody has written one."""
        return self(key) if self.has(key) else otherwise

    def below(self, *prefixes: str) -> dict[str, Text]:
        """Every text whose key begins with one of `prefixes`: what a script needs."""
        return {key: text for key, text in self._texts.items() if key.startswith(prefixes)}

    def _written(self, value: object) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._format.number(value)
        return str(value)


class Format:
    """Numbers, moments, durations and sizes as readers of one language write them."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._units = UNITS[language]

    def number(self, value: float, digits: int | None = None) -> str:
        """`1234.5` -> `1,234.5` or `1 234,5`; `digits` after the point, else as many as needed."""
        if digits is None:
            text = f"{value:,}" if isinstance(value, int) else f"{value:,.12g}"
        else:
            text = f"{value:,.{digits}f}"
        if self._language == "ru":
            text = text.replace(",", NARROW).replace(".", ",")
        return text.replace("-", "\N{MINUS SIGN}") if text.startswith("-") else text

    def duration(self, seconds: float) -> str:
        """`0.42 s`, `18 s`, `3 min 5 s`, `2 h 4 min`."""
        if seconds < 9.95:
            digits = 2 if seconds < 0.995 else 1
            return self._with_unit(self.number(seconds, digits), "s")
        whole = round(seconds)
        if whole < 60:
            return self._with_unit(str(whole), "s")
        large, small = ("min", "s") if whole < 3600 else ("h", "min")
        first, rest = divmod(whole if whole < 3600 else whole // 60, 60)
        text = self._with_unit(self.number(first), large)
        return f"{text} {self._with_unit(str(rest), small)}" if rest else text

    def size(self, num_bytes: float) -> str:
        """`312 B`, `4.2 MB` (powers of 1000, as disks are sold)."""
        for unit in ("B", "kB", "MB"):
            if num_bytes < 999.5:
                digits = 0 if unit == "B" or num_bytes >= 9.95 else 1
                return self._with_unit(self.number(num_bytes, digits), unit)
            num_bytes /= 1000
        return self._with_unit(self.number(num_bytes, 1), "GB")

    def energy(self, joules: float) -> str:
        """`0.42 J`, `4.2 J`, `312 J`, `1.3 kJ`, `24 MJ`."""
        unit = next((u for u, most in (("J", 999.5), ("kJ", 999.5e3)) if joules < most), "MJ")
        value = joules / {"J": 1, "kJ": 1e3, "MJ": 1e6}[unit]
        digits = 2 if value < 0.995 else 1 if value < 9.95 else 0
        return self._with_unit(self.number(value, digits), unit)

    def moment(self, seconds: float) -> str:
        """`21 Nov 2026, 08:41 UTC`; scripts turn it into the reader's own time."""
        at = datetime.fromtimestamp(seconds, UTC)
        return f"{self.date(seconds)}, {at:%H:%M}{NBSP}UTC"

    def date(self, seconds: float) -> str:
        """`21 Nov 2026`."""
        at = datetime.fromtimestamp(seconds, UTC)
        return f"{at.day}{NBSP}{MONTHS[self._language][at.month - 1]} {at.year}"

    def iso(self, seconds: float) -> str:
        """For the `datetime` attribute."""
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _with_unit(self, text: str, unit: str) -> str:
        return f"{text}{NBSP}{self._units[unit]}"


def chosen_language(query: str | None, cookie: str | None, accepted: str) -> str:
    """What was asked for in the address, else chosen before, else what the browser prefers."""
    for choice in (query, cookie):
        if choice in LANGUAGES:
            return str(choice)
    return preferred(accepted)


def preferred(accepted: str) -> str:
    """The best language for an `Accept-Language` header (RFC 9110, section 12.5.4)."""
    best, quality = DEFAULT, 0.0
    for part in accepted[:500].split(","):
        match = re.fullmatch(r"\s*([A-Za-z]{2})\b[^;]*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*", part)
        if match and (language := match[1].lower()) in LANGUAGES:
            weight = float(match[2] or 1)
            if weight > quality:
                best, quality = language, weight
    return best
