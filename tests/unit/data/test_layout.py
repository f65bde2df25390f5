"""Class and split from paths; the hash split; names that must not leave their folder."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from izograf.data.layout import arrange, safe_name, split_of
from izograf.schema.errors import DataError


def placed(*names: str) -> list[tuple[str | None, str | None]]:
    return [(place.class_name, place.split) for place in arrange(names)]


def test_split_and_class():
    assert placed("train/sea/1.webp", "test/sea/2.webp") == [("sea", "train"), ("sea", "test")]
    assert placed("train/sea/1.webp", "Val/sea/2.webp") == [("sea", "train"), ("sea", "test")]


def test_class_outside_split():
    names = ("sea/train/1.webp", "sea/test/2.webp", "forest/train/3.webp")
    assert placed(*names) == [("sea", "train"), ("sea", "test"), ("forest", "train")]


def test_class_only():
    assert placed("a/1.jpg", "b/2.jpg", "b/deep/3.jpg") == [("a", None), ("b", None), ("b", None)]


def test_flat():
    assert placed("1.jpg", "2.jpg") == [(None, None), (None, None)]
    assert placed("train/1.jpg", "test/2.jpg") == [(None, "train"), (None, "test")]


@pytest.mark.parametrize("wrapper", ["scenes", "my data/export"])
@pytest.mark.parametrize(
    "names",
    [
        ("train/sea/1.webp", "test/forest/2.webp"),
        ("sea/1.jpg", "forest/2.jpg"),
        ("train/1.jpg", "test/2.jpg"),
    ],
)
def test_a_wrapping_folder_changes_nothing(wrapper, names):
    assert arrange([f"{wrapper}/{name}" for name in names]) == arrange(names)


def test_a_stray_picture_does_not_turn_splits_into_classes():
    names = ("w/train/sea/1.webp", "w/test/sea/2.webp", "w/logo.svg")
    assert placed(*names) == [("sea", "train"), ("sea", "test"), (None, None)]
    assert placed(*(name[2:] for name in names))[:2] == [("sea", "train"), ("sea", "test")]


def test_train_may_be_a_vehicle():
    assert placed("train/1.jpg", "bus/2.jpg") == [("train", None), ("bus", None)]


def test_one_class_folder_is_a_class_unless_its_name_is_generic():
    assert placed("cats/1.jpg", "cats/2.jpg") == [("cats", None)] * 2
    assert placed("images/1.jpg", "images/2.jpg") == [(None, None)] * 2
    assert placed("train/images/1.jpg") == [(None, "train")]


def test_decomposed_unicode_names_are_the_same_class():
    composed, decomposed = (unicodedata.normalize(form, "чай") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert {class_name for class_name, _ in placed(f"{composed}/1", f"{decomposed}/2", "б/3")} == {
        composed,
        "б",
    }


def test_nothing_at_all():
    assert arrange([]) == []


words = st.text("abcdefgh", min_size=1, max_size=6)


@given(st.sets(words, min_size=1), st.sets(words, min_size=1))
def test_adding_pictures_moves_none_to_the_other_split(first, more):
    def splits(names: set[str]) -> dict[str, str]:
        ordered = sorted(f"{label}/{name}.png" for name in names for label in ("x", "y"))
        return {place.key: split_of(place.key) for place in arrange(ordered)}

    before, after = splits(first), splits(first | more)
    assert all(after[key] == split for key, split in before.items())


def test_a_tenth_is_test_and_the_rule_is_frozen():
    tests = [i for i in range(10_000) if split_of(f"sea/{i}.jpg") == "test"]
    assert 900 < len(tests) < 1100
    assert tests[:5] == [0, 9, 14, 28, 35]


@pytest.mark.parametrize(
    "name", ["a.jpg", "a/b.jpg", "./a.jpg", "a\\b.jpg", "..a/b..jpg", "море/1"]
)
def test_names_inside(name):
    assert ".." not in safe_name(name, "here").split("/")


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "a/../../b",
        "/etc/passwd",
        "C:\\a.jpg",
        "..\\a",
        "\\\\host\\a",
        "",
        ".",
        "a/..",
        "a\0b",
    ],
)
def test_names_outside_are_refused(name):
    with pytest.raises(DataError, match=r"here names .* not a file inside its own folder"):
        safe_name(name, "here")
