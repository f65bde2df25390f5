"""Russian adjectives, against forms written down by hand."""

from __future__ import annotations

import pytest

from izograf.data.declension import CASES, decline
from izograf.schema.errors import DataError


@pytest.mark.parametrize(
    ("adjective", "gender", "forms"),
    [
        ("тёмный", "m", "тёмный тёмного тёмному тёмный тёмным тёмном"),
        ("тёмный", "f", "тёмная тёмной тёмной тёмную тёмной тёмной"),
        ("тёмный", "pl", "тёмные тёмных тёмным тёмные тёмными тёмных"),
        ("голубой", "n", "голубое голубого голубому голубое голубым голубом"),
        ("голубой", "m", "голубой голубого голубому голубой голубым голубом"),
        ("синий", "m", "синий синего синему синий синим синем"),
        ("синий", "f", "синяя синей синей синюю синей синей"),
        ("синий", "pl", "синие синих синим синие синими синих"),
        ("мягкий", "m", "мягкий мягкого мягкому мягкий мягким мягком"),
        ("мягкий", "pl", "мягкие мягких мягким мягкие мягкими мягких"),
        ("мягкий", "f", "мягкая мягкой мягкой мягкую мягкой мягкой"),
        ("чёрно-белый", "n", "чёрно-белое чёрно-белого чёрно-белому чёрно-белое чёрно-белым "
         "чёрно-белом"),
    ],
)  # fmt: skip
def test_all_cases(adjective: str, gender: str, forms: str) -> None:
    assert [decline(adjective, case, gender) for case in CASES] == forms.split()


@pytest.mark.parametrize(
    ("adjective", "case", "gender"),
    [("небо", "nom", "m"), ("тёмный", "voc", "m"), ("тёмный", "nom", "x"), ("ый", "nom", "m")],
)
def test_what_cannot_be_declined_is_refused(adjective: str, case: str, gender: str) -> None:
    with pytest.raises(DataError):
        decline(adjective, case, gender)
