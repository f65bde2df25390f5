"""Words of known classes, in English and in every Russian case; the user's own words."""

from __future__ import annotations

import pytest

from izograf.data.catalog import catalogue, label_classes, parse_forms
from izograf.schema.errors import DataError
from izograf.schema.labels import normalise, resolve_class

SCENES = ("buildings", "forest", "glacier", "mountain", "sea", "street")
DIGITS = tuple("0123456789")
CLOTHING = (
    "blazer", "dress", "hat", "hoodie", "longsleeve", "outwear", "pants", "polo", "shirt", "shoes",
    "shorts", "skirt", "t-shirt", "undershirt",
)  # fmt: skip
CIFAR = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

SCENE_WORDS = {
    "buildings": "building Buildings здание здания зданию зданием здании зданий зданиям зданиями "
    "зданиях ЗДАНИЯ",
    "forest": "forests лес леса лесу лесом лесе лесов лесам лесами лесах",
    "glacier": "glaciers ледник ледника леднику ледником леднике ледники ледников ледникам "
    "ледниками ледниках",
    "mountain": "mountains MOUNTAIN гора горы горе гору горой горою гор горам горами горах Горы",
    "sea": "seas море моря морю морем морей морям морями морях",
    "street": "streets улица улицы улице улицу улицей улиц улицам улицами улицах",
}


@pytest.mark.parametrize("names", [SCENES, DIGITS, CLOTHING, CIFAR])
def test_every_known_class_has_both_languages_and_one_meaning_per_word(names):
    labels = label_classes(names)
    assert tuple(label.name for label in labels) == names
    for index, label in enumerate(labels):
        assert label.forms["en"]
        assert label.forms["ru"]
        for word in label.accepted():
            assert resolve_class(word, labels) == index, word


@pytest.mark.parametrize("name", SCENES)
def test_scene_words_in_all_cases(name):
    labels = label_classes(SCENES)
    for word in SCENE_WORDS[name].split():
        assert labels[resolve_class(word, labels)].name == name, word


def test_displayed_words_are_natural():
    labels = label_classes(SCENES)
    shown = [(label.display("en"), label.display("ru")) for label in labels]
    assert shown == [
        ("buildings", "здания"),
        ("forest", "лес"),
        ("glacier", "ледник"),
        ("mountain", "горы"),
        ("sea", "море"),
        ("street", "улица"),
    ]


DIGIT_WORDS = (
    ("zero", "нуля"), ("one", "одного"), ("two", "двух"), ("three", "трех"), ("four", "четверку"),
    ("five", "пятью"), ("six", "шестью"), ("seven", "семи"), ("eight", "восьмерка"),
    ("nine", "девяти"),
)  # fmt: skip


def test_digits_by_word_and_number():
    labels = label_classes(DIGITS)
    for index, (english, russian) in enumerate(DIGIT_WORDS):
        for word in (str(index), english, russian):
            assert resolve_class(word, labels) == index


def test_no_word_of_the_catalogue_has_two_meanings():
    labels = {label.name: label for label in catalogue().values()}
    for form, owner in catalogue().items():
        owners = [label.name for label in labels.values() if form in label.accepted()]
        assert owners == [owner.name], form


def test_a_russian_folder_name_is_understood_in_english():
    labels = label_classes(["горы", "лес"])
    assert [label.name for label in labels] == ["горы", "лес"]
    assert resolve_class("mountains", labels) == 0


def test_unknown_class_keeps_its_name():
    (label,) = label_classes(["теремки"])
    assert label.forms == {}
    assert resolve_class("Теремки", [label]) == 0


def test_a_word_claimed_twice_belongs_to_the_class_named_so():
    labels = label_classes(["hat", "cap"])
    assert resolve_class("cap", labels) == 1
    labels = label_classes(["mountain", "горы"])
    assert resolve_class("горы", labels) == 1
    assert resolve_class("mountain", labels) == 0


def test_own_words_come_before_the_catalogue():
    text = (
        'mountain = { en = ["peak"] }\n"T-Shirt" = { ru = ["тишка"] }\nteremok = { ru = ["терем"] }'
    )
    own = parse_forms(text, source="classes.toml")
    labels = label_classes(["mountain", "t_shirt", "teremok", "sea"], own)
    assert labels[0].display("en") == "peak"
    assert labels[0].display("ru") == "горы"
    assert labels[1].display("ru") == "тишка"
    assert labels[2].display("ru") == "терем"
    assert labels[3].display("ru") == "море"
    assert label_classes(["горы"], own)[0].display("en") == "peak"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mountain = [", "not valid TOML"),
        ('mountain = "гора"', "expected { en"),
        ('mountain = { de = ["Berg"] }', "only en and ru, got de"),
        ('mountain = { ru = "гора" }', "a list of words for ru"),
        ("mountain = { ru = [1] }", "a list of words for ru"),
    ],
)
def test_malformed_words_are_explained(text, message):
    with pytest.raises(DataError, match=message) as error:
        parse_forms(text, source="my/classes.toml")
    assert "my/classes.toml" in str(error.value)


def test_catalogue_keys_are_normalised():
    assert all(form == normalise(form) for form in catalogue())
