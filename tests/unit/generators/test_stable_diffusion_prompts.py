"""Prompts with weights, and prompts longer than one chunk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from izograf.generators.stable_diffusion.prompts import STRESS, chunks, weighted
from izograf.schema.errors import InvalidInput

CASES = {
    "a red dog": [("a red dog", 1.0)],
    "a (red) dog": [("a ", 1.0), ("red", STRESS), (" dog", 1.0)],
    "a (red:1.3) dog": [("a ", 1.0), ("red", 1.3), (" dog", 1.0)],
    "a (red : 1.3 ) dog": [("a ", 1.0), ("red ", 1.3), (" dog", 1.0)],
    "(red:.5)": [("red", 0.5)],
    "[red] dog": [("red", 1 / STRESS), (" dog", 1.0)],
    "((red)) dog": [("red", STRESS**2), (" dog", 1.0)],
    "(a (red:2) dog:0.5)": [("a ", 0.5), ("red", 1.0), (" dog", 0.5)],
    "([red])": [("red", 1.0)],
    r"a \(red\) dog": [("a (red) dog", 1.0)],
    r"a \[b\] \\": [("a [b] \\", 1.0)],
    "12:30 by night": [("12:30 by night", 1.0)],
    "a :) face": [("a :) face", 1.0)],
    "a ( face": [("a ( face", 1.0)],
    "a ] b (c]": [("a ] b (c]", 1.0)],
    "(a: b:1.5)": [("a: b", 1.5)],
    "[red:1.3]": [("red:1.3", 1 / STRESS)],
    "": [],
    "()": [],
}


@pytest.mark.parametrize(("prompt", "expected"), CASES.items())
def test_weights_are_read(prompt: str, expected: list[tuple[str, float]]) -> None:
    found = weighted(prompt)
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


def test_a_weight_that_would_drown_everything_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"weight 50: the largest is 10, and from 0.5 to 1.5"):
        weighted("a (dog:50)")


@given(st.text(alphabet="ab ()[]:\\1.", max_size=40))
def test_any_text_has_a_meaning_and_its_letters_stay_in_order(prompt: str) -> None:
    try:
        found = weighted(prompt)
    except InvalidInput:
        return
    letters = [letter for letter in prompt if letter in "ab"]
    assert [letter for text, _ in found for letter in text if letter in "ab"] == letters
    assert all(0 <= weight <= 10 for _, weight in found)


@given(st.lists(st.floats(0.1, 2.0), max_size=200))
def test_chunks_hold_every_token_once_between_begin_and_end(weights: list[float]) -> None:
    tokens = list(enumerate(weights, start=100))
    ids, rows = chunks(tokens, length=77, begin=1, end=2, pad=3)
    assert len(ids) == max(1, -(-len(tokens) // 75))
    assert [token for row in ids for token in row if token >= 100] == [t for t, _ in tokens]
    for row, stress in zip(ids, rows, strict=True):
        assert len(row) == len(stress) == 77
        assert row[0] == 1
        assert row.count(2) == 1
        inner = row.index(2) - 1
        assert all(token >= 100 for token in row[1 : inner + 1])
        assert set(row[inner + 2 :]) <= {3}
        given_weights = [weights[token - 100] for token in row[1 : inner + 1]]
        assert stress == [1.0, *given_weights, *[1.0] * (76 - inner)]
