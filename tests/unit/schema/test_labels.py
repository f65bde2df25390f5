"""How a typed word finds its class."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from izograf.schema.errors import IzografError, NotFound
from izograf.schema.labels import (
    ClassLabel,
    both_languages,
    nearest_classes,
    normalise,
    resolve_class,
)

SCENES = (
    ClassLabel("buildings", {"en": ("buildings", "city"), "ru": ("здания", "город")}),
    ClassLabel("forest", {"en": ("forest", "woods"), "ru": ("лес",)}),
    ClassLabel("mountain", {"en": ("mountain",), "ru": ("горы", "гора")}),
    ClassLabel("fir_tree", {"en": ("fir tree",), "ru": ("ёлка", "ель")}),
    ClassLabel("fox", {}),
)
DIGITS = tuple(
    ClassLabel(str(digit), {"en": (name,)}) for digit, name in enumerate(["zero", "one"])
)


@pytest.mark.parametrize(
    ("index", "form"),
    [
        (index, form)
        for index, label in enumerate(SCENES)
        for form in (label.name, *(word for words in label.forms.values() for word in words))
    ],
)
def test_every_listed_form_finds_its_class(index: int, form: str) -> None:
    for typed in (form, form.upper(), f"  {form} ", form.replace(" ", "-"), form.replace(" ", "_")):
        assert resolve_class(typed, SCENES) == index


@pytest.mark.parametrize(
    ("typed", "index"),
    [
        ("building", 0), ("cities", 0), ("Forests", 1), ("mountains", 2), ("fir-trees", 3),
        ("елка", 3), ("ЁЛКА", 3), ("foxes", 4), ("ЛЕС", 1),
    ],
)  # fmt: skip
def test_plurals_singulars_and_russian_spellings_find_their_class(typed: str, index: int) -> None:
    assert resolve_class(typed, SCENES) == index


def test_a_number_is_an_index_unless_a_class_is_called_so() -> None:
    assert [resolve_class(str(i), SCENES) for i in range(5)] == list(range(5))
    swapped = DIGITS[::-1]
    assert resolve_class("0", swapped) == 1
    assert resolve_class("1", swapped) == 0


@pytest.mark.parametrize(
    "typed",
    ["5", "-1", "1.0", "99999999999999999999", "9" * 5000, "", "  ", "½", "²"],
    ids=lambda typed: repr(typed[:9]),
)
def test_what_is_no_index_is_not_found(typed: str) -> None:
    with pytest.raises(NotFound, match="Unknown class"):
        resolve_class(typed, SCENES)


def test_an_unknown_word_is_answered_with_the_nearest_in_both_languages() -> None:
    with pytest.raises(NotFound, match=r"'montain': did you mean mountain \(горы\)\?"):
        resolve_class("montain", SCENES)
    with pytest.raises(NotFound, match=r"did you mean forest \(лес\)"):
        resolve_class("лесс", SCENES)
    with pytest.raises(NotFound, match=r"known classes: buildings \(здания\), .*, fox\."):
        resolve_class("qqqqqqq", SCENES)


def test_a_long_list_of_classes_is_cut_short() -> None:
    many = tuple(ClassLabel(f"class{i:03}") for i in range(120))
    with pytest.raises(NotFound, match=r"class019 and 100 more\."):
        resolve_class("zzz", many)


def test_nearest_classes_are_the_likeliest_first_and_not_repeated() -> None:
    near = nearest_classes("mountian", SCENES)
    assert near[0].name == "mountain"
    assert len({label.name for label in near}) == len(near) <= 3


def test_display_is_the_first_form_or_the_name() -> None:
    assert SCENES[0].display("ru") == "здания"
    assert SCENES[4].display("ru") == "fox"
    assert both_languages(SCENES[4]) == "fox"
    assert both_languages(SCENES[0]) == "buildings (здания)"


words = st.text(st.sampled_from(string.ascii_letters + "абвгдеёжз -_"), min_size=1, max_size=10)
labels = st.builds(
    ClassLabel,
    words,
    st.dictionaries(st.sampled_from(["en", "ru"]), st.lists(words, max_size=3).map(tuple)),
)


@given(labels)
def test_a_label_accepts_its_forms_and_survives_json(label: ClassLabel) -> None:
    assert ClassLabel.from_json(label.to_json()) == label
    for form in (label.name, *(word for words in label.forms.values() for word in words)):
        assert resolve_class(form, [label]) == 0


@given(st.text(max_size=20))
def test_any_text_is_an_index_or_a_clear_refusal(text: str) -> None:
    try:
        assert 0 <= resolve_class(text, SCENES) < len(SCENES)
    except NotFound as error:
        assert str(error).startswith("Unknown class")  # noqa: PT017 - either outcome is right


@given(st.text(max_size=20))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_not_found_is_an_error_for_the_users_eyes() -> None:
    assert issubclass(NotFound, IzografError)
