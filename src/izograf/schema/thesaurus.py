"""Near words for a word that a text model does not know: by meaning, then by spelling.

`thesaurus.toml` beside this module lists, per language, words that people ask for and words a
model may know instead. Inflected forms meet through `stem`.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources

_CYRILLIC = re.compile("[а-я]")
_CUTOFF = 0.72
_MIN_STEM = 3

# Inflectional endings, longest first, after ё has become е.
_RUSSIAN = (
    *(
        "ьями",
        "ьев",
        "ьям",
        "ьях",
        "ья",
        "ою",
        "ею",
        "иями",
        "ами",
        "ями",
        "ого",
        "его",
        "ому",
        "ему",
        "ыми",
        "ими",
        "ией",
    ),
    *("ой", "ей", "ую", "юю", "ая", "яя", "ое", "ее", "ый", "ий", "ые", "ие", "ых", "их", "ым"),
    *("им", "ом", "ем", "ов", "ев", "ам", "ям", "ах", "ях", "ью", "ия", "ии", "ию"),
    *("а", "я", "о", "е", "у", "ю", "ы", "и", "ь"),
)
_ENGLISH = ("ies", "es", "s", "y", "e")


def stem(word: str) -> str:
    """`word` without its inflectional ending, so that "рекой" and "река" agree; lower case."""
    endings = _RUSSIAN if _CYRILLIC.search(word) else _ENGLISH
    for ending in endings:
        if word.endswith(ending) and len(word) - len(ending) >= _MIN_STEM - (len(ending) == 1):
            return word[: -len(ending)]
    return word


def nearest(word: str, words: Sequence[str], limit: int = 3) -> tuple[str, ...]:
    """At most `limit` of `words` that are near to `word`, of its script, best first.

    Args:
        word: normalised as `vocabulary.split_words` does.
        words: the known words, normalised likewise.
    """
    cyrillic = bool(_CYRILLIC.search(word))
    same = [known for known in words if bool(_CYRILLIC.search(known)) == cyrillic and known != word]
    known = frozenset(same)
    found = [near for near in _thesaurus().get(stem(word), ()) if near in known]
    found += _same_stem(word, same)
    found += difflib.get_close_matches(word, same, n=limit, cutoff=_CUTOFF) if len(word) > 2 else []
    return tuple(dict.fromkeys(found))[:limit]


def _same_stem(word: str, words: Sequence[str]) -> list[str]:
    wanted = stem(word)
    if len(wanted) < _MIN_STEM:
        return []
    alike = [known for known in words if stem(known) == wanted]
    return difflib.get_close_matches(word, alike, n=len(alike) or 1, cutoff=0.0)


@functools.cache
def _thesaurus() -> Mapping[str, tuple[str, ...]]:
    """Stem of a word people ask for -> near words."""
    text = resources.files("izograf.schema").joinpath("thesaurus.toml").read_text("utf-8")
    entries: dict[str, tuple[str, ...]] = {}
    for table in tomllib.loads(text).values():
        for near, asked in table.items():
            for word in asked.split():
                key = stem(word.replace("ё", "е"))
                entries[key] = (*entries.get(key, ()), *near.replace("ё", "е").split())
    return entries
