"""The eighteen promises of the service, and that each has a test of its own number.

A test keeps a promise when its name says so: `test_p4_...` keeps P4, `test_p3_p4_p6_...` all three.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROMISES = {
    1: "an accepted job (202) is never lost",
    2: "a job whose worker dies is run again at once, at most three attempts, then it is dead",
    3: "exactly one visible result",
    4: "cancel takes effect within one step and is final",
    5: "no owner waits behind more than one job of each other owner of the same priority",
    6: "events are gap-free: each is seen once and in order, wherever a client reconnects",
    7: "the same request and fingerprint give the same pixels, and verify says which",
    8: "bad input never gives a 5xx nor takes more than 256 MB",
    9: "every route denies without credentials unless it is on an explicit list",
    10: "no text of a client reaches a file path",
    11: "no pickle is reachable",
    12: "upgrades keep queue and gallery; a kill during a migration is safe",
    13: "disk full, database locked, storage down: typed error, retry, no partial image",
    14: "memory is flat over 500 model switches",
    15: "one job's lack of memory does not fail its neighbours",
    16: "PNG metadata -> request -> the same pixels; A1111 infotext imports",
    17: "no serious axe violation; keyboard only; 360 px; parity of English and Russian",
    18: "submitting stays fast with 10,000 queued rows",
}
TESTS = Path(__file__).parents[1]
_KEPT = re.compile(r"test((?:_p\d+)+)_")


def kept_by(name: str) -> list[int]:
    """The numbers of the promises that a test of this name keeps."""
    found = _KEPT.match(name)
    return [] if found is None else [int(number) for number in re.findall(r"\d+", found[1])]


def named_tests() -> Iterator[tuple[int, str]]:
    """(promise, where its test is)."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for number in kept_by(node.name):
                    yield number, f"{path.relative_to(TESTS)}::{node.name}"


@pytest.mark.parametrize("number", PROMISES)
def test_every_promise_has_a_test(number: int) -> None:
    found = [place for promise, place in named_tests() if promise == number]
    assert found, f"no test is named test_p{number}_...: {PROMISES[number]}"


def test_no_test_keeps_a_promise_that_nobody_made() -> None:
    assert {number for number, _ in named_tests()} <= set(PROMISES)


def test_names_are_read_as_meant() -> None:
    assert kept_by("test_p3_p4_p6_the_store_is_what_the_model_says") == [3, 4, 6]
    assert kept_by("test_p18_ten_thousand") == [18]
    assert kept_by("test_page_of_p4_x") == []
