"""Russian adjectives, declined: "тёмный" -> "тёмными".

The regular endings of the hard, soft and velar types, of inanimate nouns (their accusative is
the nominative, but for the feminine), after A. A. Zaliznyak, "Grammatical Dictionary of the
Russian Language" (1977), adjectives of types 1 to 3 with the stress on the stem or the ending.
"""

from __future__ import annotations

from izograf.schema.errors import DataError

CASES = ("nom", "gen", "dat", "acc", "ins", "pre")
GENDERS = ("m", "f", "n", "pl")

_HARD = {
    "m": ("ый", "ого", "ому", "ый", "ым", "ом"),
    "f": ("ая", "ой", "ой", "ую", "ой", "ой"),
    "n": ("ое", "ого", "ому", "ое", "ым", "ом"),
    "pl": ("ые", "ых", "ым", "ые", "ыми", "ых"),
}
_SOFT = {
    "m": ("ий", "его", "ему", "ий", "им", "ем"),
    "f": ("яя", "ей", "ей", "юю", "ей", "ей"),
    "n": ("ее", "его", "ему", "ее", "им", "ем"),
    "pl": ("ие", "их", "им", "ие", "ими", "их"),
}
_VELARS = "кгх"


def decline(adjective: str, case: str, gender: str) -> str:
    """The form of `adjective`, given in the masculine nominative.

    Args:
        adjective: ends in -ый, -ой or -ий.
        case: one of `CASES`.
        gender: one of `GENDERS`, `pl` for the plural.

    Raises:
        DataError: another ending, case or gender.
    """
    if len(adjective) < 4 or not adjective.endswith(("ый", "ой", "ий")):
        raise DataError(
            f"{adjective!r} is no adjective in the masculine nominative (-ый, -ой, -ий)."
        )
    if case not in CASES or gender not in GENDERS:
        raise DataError(f"Case and gender must be of {CASES} and {GENDERS}, got {case}, {gender}.")
    if gender == "m" and case in ("nom", "acc"):
        return adjective
    stem, velar = adjective[:-2], adjective[-3] in _VELARS
    endings = _SOFT if adjective.endswith("ий") and not velar else _HARD
    ending = endings[gender][CASES.index(case)]
    return stem + ("и" + ending[1:] if velar and ending[0] == "ы" else ending)
