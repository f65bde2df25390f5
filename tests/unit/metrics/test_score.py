"""Scores: written and read back, placed between floor and ceiling, compared only like with like."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from izograf.metrics.score import Score, compare
from izograf.schema.errors import CardError, InvalidInput

SCORE = Score(
    name="FD-squeezenet1.1",
    value=30.0,
    extractor_id="squeezenet1.1",
    sha256="ab" * 32,
    num_real=1000,
    num_fake=500,
    split="scenes-64/train",
    resize="lanczos-64 > bilinear-antialias-227",
    seed=0,
    ci95=(28.0, 32.0),
    floor=10.0,
    ceiling=110.0,
)


def test_round_trip_through_json() -> None:
    assert Score.from_json(json.loads(json.dumps(SCORE.to_json()))) == SCORE


def test_whole_numbers_are_read_as_floats() -> None:
    read = Score.from_json(SCORE.to_json() | {"value": 30})
    assert type(read.value) is float


def test_relative() -> None:
    assert SCORE.relative == pytest.approx(0.2)
    with pytest.raises(InvalidInput, match="floor and ceiling"):
        _ = dataclasses.replace(SCORE, ceiling=10.0).relative


def test_compare_is_the_difference() -> None:
    assert compare(SCORE, dataclasses.replace(SCORE, value=32.5, seed=1)) == -2.5


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("name", "KD-squeezenet1.1"),
        ("extractor_id", "judge"),
        ("sha256", "cd" * 32),
        ("num_real", 999),
        ("num_fake", 501),
        ("split", "scenes-64/test"),
        ("resize", "clean"),
    ],
)
def test_unlike_scores_are_not_compared(field: str, other: object) -> None:
    changes: dict[str, Any] = {field: other}
    with pytest.raises(InvalidInput, match=field):
        compare(SCORE, dataclasses.replace(SCORE, **changes))


@pytest.mark.parametrize(
    "change",
    [
        {"value": "30"},
        {"value": float("nan")},
        {"value": True},
        {"ci95": [1.0]},
        {"ci95": None},
        {"num_fake": 1.5},
        {"num_fake": True},
        {"split": None},
        {"extra": 1},
    ],
)
def test_malformed_scores_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(CardError, match="malformed"):
        Score.from_json(SCORE.to_json() | change)


def test_a_missing_field_is_named() -> None:
    raw = SCORE.to_json()
    del raw["floor"]
    with pytest.raises(CardError, match="floor"):
        Score.from_json(raw)
