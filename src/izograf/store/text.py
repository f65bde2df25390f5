"""Text on its way into the database: what no database could hold is refused with a sentence."""

from __future__ import annotations

import re

from izograf.schema.errors import InvalidInput

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def checked_text(name: str, text: str, *, longest: int, shortest: int = 0) -> str:
    """`text`, if both databases can hold it and its length is in bounds.

    PostgreSQL has no zero character, and neither database has lone surrogates.

    Raises:
        InvalidInput: it cannot be stored; the message names the field.
    """
    if not shortest <= len(text) <= longest:
        raise InvalidInput(
            f"{name} must have from {shortest} to {longest} characters, got {len(text)}."
        )
    if _UNSTORABLE.search(text):
        raise InvalidInput(f"{name} contains a character that cannot be stored.")
    return text


def cleaned_text(text: str, *, longest: int) -> str:
    """`text` in a form that can be stored, for what must not be refused: reasons, labels."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)[:longest]


def folded(text: str) -> str:
    """The form in which words are stored for search and looked for: case-folded, ё as е."""
    return text.casefold().replace("ё", "е")


def containing(term: str) -> str:
    r"""The pattern for `LIKE ... ESCAPE '\'` of any text that contains `term` literally."""
    escaped = term.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
