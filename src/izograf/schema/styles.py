"""Style presets: words that are put around a prompt, and words to stay away from.

`styles.toml` beside this module lists the bundled ones. A user's own file, `$IZOGRAF_STYLES` or
`izograf/styles.toml` in the user's configuration folder, has the same format; an entry with the
name of a bundled one replaces it:

    [stained-glass]
    title = { en = "Stained glass", ru = "Витраж" }
    positive = { en = "stained glass window, {prompt}, lead lines", ru = "витраж, {prompt}" }
    negative = { en = "photograph, blurry", ru = "фотография, размыто" }

A text instead of a table serves every language; `title` and `negative` may be left out. A prompt
gets the words of its own language, told by its letters. Standard library only.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.labels import LANGUAGES, normalise

PROMPT = "{prompt}"
MAX_LENGTH = 1000  # characters of a template
MAX_BYTES = 1 << 20  # of a file of styles
_KEYS = ("title", "positive", "negative")

Words = Mapping[str, str]
"""Language -> text."""


@dataclass(frozen=True)
class Style:
    """One preset.

    Attributes:
        name: the identifier, as typed after `--style`.
        title: language -> what an interface displays.
        positive: language -> template that holds `{prompt}` exactly once.
        negative: language -> words to stay away from; may be empty.
        bundled: False for one from the user's own file.
    """

    name: str
    title: Words
    positive: Words
    negative: Words
    bundled: bool = True

    def apply(
        self, prompt: str, negative: str = "", *, language: str | None = None
    ) -> tuple[str, str]:
        """The prompt in this style, and the negative prompt with the style's words after it.

        The words are those of `language`, by default of the prompt's own. Braces in what the
        user wrote mean nothing.
        """
        spoken = language or language_of(prompt if prompt.strip() else negative)
        template = self.positive[spoken]
        subject, given = prompt.strip(), negative.strip().rstrip(", ")
        words = template.replace(PROMPT, subject) if subject else _without_prompt(template)
        away = self.negative[spoken]
        return words, ", ".join(part for part in (given, away) if part)

    def accepted(self) -> frozenset[str]:
        """Every normalised form under which this style may be asked for."""
        return frozenset(normalise(word) for word in (self.name, *self.title.values()))


def language_of(text: str) -> str:
    """`ru` for a text that is mostly in Cyrillic letters, else `en`."""
    cyrillic = sum("\u0400" <= letter <= "\u052f" for letter in text)
    latin = sum(letter.isascii() and letter.isalpha() for letter in text)
    return "ru" if cyrillic > latin else "en"


def own_file() -> Path:
    """Where the user's own styles are looked for: `$IZOGRAF_STYLES`, else `styles.toml` in the
    configuration folder (`$XDG_CONFIG_HOME/izograf`, `%APPDATA%\\izograf` on Windows, by default
    `~/.config/izograf`)."""
    if explicit := os.environ.get("IZOGRAF_STYLES"):
        return Path(explicit)
    variable = "APPDATA" if sys.platform == "win32" else "XDG_CONFIG_HOME"
    base = os.environ.get(variable) or Path.home() / ".config"
    return Path(base) / "izograf" / "styles.toml"


@functools.cache
def bundled_styles() -> Mapping[str, Style]:
    """The styles that come with the program, by name, in the file's order."""
    text = resources.files("izograf.schema").joinpath("styles.toml").read_text(encoding="utf-8")
    return parse_styles(text, source="styles.toml", bundled=True)


def load_styles() -> Mapping[str, Style]:
    """Every style by name: the bundled ones, replaced and followed by the user's own.

    Raises:
        InvalidInput: the user's file is broken; NotFound: `$IZOGRAF_STYLES` names no file.
    """
    return {**bundled_styles(), **_own_styles()}


def usable_styles() -> tuple[Mapping[str, Style], str]:
    """Every style that can be used, and why the user's own are left out; empty if they are not.

    The sentence names the file without its folder: it may be shown to strangers.
    """
    try:
        return load_styles(), ""
    except InvalidInput as error:
        file = own_file()
        return bundled_styles(), str(error).replace(str(file), file.name)


def find_style(name: str, known: Mapping[str, Style] | None = None) -> Style:
    """The style called `name`, by identifier or title, in either language.

    Raises:
        NotFound: there is none; the message suggests near names.
        InvalidInput: the user's file is broken.
    """
    styles = load_styles() if known is None else known
    wanted = normalise(name)
    exact = [style for style in styles.values() if normalise(style.name) == wanted]
    titled = [style for style in styles.values() if wanted in style.accepted()]
    for style in (*exact, *titled):
        return style
    raise _unknown(name, styles.values())


def parse_styles(text: str, *, source: str, bundled: bool = False) -> dict[str, Style]:
    """Styles by name, from the TOML described at the top of this module.

    Raises:
        InvalidInput: not TOML, or not in that format; the message names `source` and the entry.
    """
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"{source} is not valid TOML: {error}.") from error
    return {name: _style(name, entry, source, bundled) for name, entry in raw.items()}


def _own_styles() -> Mapping[str, Style]:
    file = own_file()
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidInput(f"{file} is larger than {MAX_BYTES} bytes: no file of styles is.")
        text = file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get("IZOGRAF_STYLES"):
            raise NotFound(f"IZOGRAF_STYLES names {file}, but there is no such file.") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}.") from error
    return parse_styles(text, source=str(file))


def _style(name: str, entry: object, source: str, bundled: bool) -> Style:
    where = f"{source}, style {name[:80]!r}: "
    if not re.fullmatch(r"[\w-]{1,60}", name):
        raise InvalidInput(where + "expected a name of letters, digits and hyphens.")
    if not isinstance(entry, dict):
        raise InvalidInput(where + 'expected positive = "... {prompt} ..." below its name.')
    if unknown := sorted(set(entry) - set(_KEYS)):
        raise InvalidInput(where + f"expected only {', '.join(_KEYS)}, got {', '.join(unknown)}.")
    if "positive" not in entry:
        raise InvalidInput(where + "positive is missing: a template with {prompt}.")
    title = _words(entry.get("title", name), where + "title")
    positive = _words(entry["positive"], where + "positive")
    negative = _words(entry.get("negative", ""), where + "negative")
    for language, template in positive.items():
        if template.count(PROMPT) != 1:
            raise InvalidInput(
                f"{where}positive ({language}) must hold {{prompt}} exactly once, "
                "where the user's words go."
            )
    if any(PROMPT in words for words in negative.values()):
        raise InvalidInput(where + "negative takes no {prompt}: it names what to stay away from.")
    return Style(name, title, positive, negative, bundled)


def _words(value: object, where: str) -> Words:
    """A text for each language; a language that is left out gets the other's words."""
    given = dict.fromkeys(LANGUAGES, value) if isinstance(value, str) else value
    if not isinstance(given, dict) or not given or set(given) - set(LANGUAGES):
        raise InvalidInput(f'{where} must be a text or {{ en = "...", ru = "..." }}.')
    for text in given.values():
        if not isinstance(text, str) or len(text) > MAX_LENGTH or not _is_one_line(text):
            raise InvalidInput(f"{where} must be one line of at most {MAX_LENGTH} characters.")
    first = next(iter(given.values()))
    return {language: given.get(language, first).strip() for language in LANGUAGES}


def _is_one_line(text: str) -> bool:
    return all(letter.isprintable() for letter in text)


def _without_prompt(template: str) -> str:
    """The template's own words, with no gap where the prompt would have been."""
    before, after = template.split(PROMPT)
    parts = (part.strip(" ,:;").removesuffix(" of") for part in (before, after))
    return ", ".join(part for part in parts if part)


def _unknown(name: str, styles: Iterable[Style]) -> NotFound:
    owner = {word: style.name for style in styles for word in sorted(style.accepted())}
    matches = difflib.get_close_matches(normalise(name), owner, n=6, cutoff=0.55)
    near = list(dict.fromkeys(owner[match] for match in matches))[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "izograf styles lists all there are."
    return NotFound(f"Unknown style {name[:80]!r}: {hint}")
