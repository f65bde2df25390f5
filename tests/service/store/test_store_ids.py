"""Identifiers and paths: sortable, recognisable, and never made of a client's text (P10)."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from izograf.schema.errors import InvalidInput, NotFound
from izograf.store import ids
from izograf.store.files import PATTERN, ImageFiles
from izograf.store.text import checked_text, cleaned_text, containing


@given(st.lists(st.floats(0, 2**38), min_size=2, max_size=30), st.sampled_from(sorted(ids.KINDS)))
def test_ids_increase_whatever_the_clock_does(times: list[float], kind: str) -> None:
    clock = iter(times)
    make = ids.Ids(lambda: next(clock), lambda n: b"\xff" * n)
    made = [make.new(kind) for _ in times]
    assert made == sorted(set(made))
    assert all(re.fullmatch(rf"{kind}_[0-9a-z]{{26}}", one) for one in made)


def test_ids_of_two_makers_sort_by_time() -> None:
    early, late = (ids.Ids(lambda t=t: t).new("job") for t in (1.0, 1.5))
    assert early < late


HOSTILE = ["../../etc/passwd", "job_../../../../../../etc/pass", "job_" + "0" * 26 + "\n", "", "\0"]


@pytest.mark.parametrize(
    "text", [*HOSTILE, "job_" + "0" * 25, "job_" + "A" * 26, "img_" + "0" * 26]
)
def test_what_is_no_job_id_is_not_found(text: str) -> None:
    with pytest.raises(NotFound, match="There is no job"):
        ids.require_id(ids.JOB, text)


@given(st.text())
@example("a" * 63 + "/")
@example("../" + "a" * 61)
@example("a" * 64 + "\n")
def test_p10_only_a_digest_becomes_a_path(text: str) -> None:
    files = ImageFiles(Path("/pictures"))
    if PATTERN.fullmatch(text):
        assert files.path(text).is_relative_to("/pictures")
    else:
        with pytest.raises(ValueError, match="64 hexadecimal"):
            files.path(text)


@given(st.text(st.characters(codec=None), max_size=30))
@example("\0")
@example("\ud800")
def test_text_is_storable_or_refused(text: str) -> None:
    cleaned_text(text, longest=50).encode()
    assert "\0" not in cleaned_text(text, longest=50)
    try:
        checked_text("x", text, longest=50).encode()
    except InvalidInput:
        assert "\0" in text or any("\ud800" <= c <= "\udfff" for c in text)


def test_a_search_term_is_taken_literally() -> None:
    assert containing("50%_\\") == r"%50\%\_\\%"


def test_an_unknown_kind_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="kind of identifier"):
        ids.Ids().new("cat")


def test_kinds_do_not_overlap() -> None:
    one = ids.Ids().new("img")
    assert [ids.is_id(kind, one) for kind in ids.KINDS].count(True) == 1
    assert not any(a.startswith(b) for a, b in itertools.permutations(ids.KINDS, 2))
