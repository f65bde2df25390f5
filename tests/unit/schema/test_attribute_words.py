"""The table of attributes: both languages say all of it, and every name has one meaning."""

from __future__ import annotations

import pytest

from izograf.schema.attributes import (
    attributes,
    phrase,
    resolve_attribute,
    resolve_attributes,
    value_names,
)
from izograf.schema.errors import InvalidInput
from izograf.schema.labels import LANGUAGES, normalise


@pytest.mark.parametrize("attribute", attributes().values(), ids=lambda a: a.name)
def test_every_form_of_every_value_is_resolved(attribute) -> None:  # type: ignore[no-untyped-def]
    for names in attribute.names.values():
        for value in attribute.values.values():
            for language in LANGUAGES:
                for form in value.words[language].forms:
                    for name in names:
                        found = resolve_attribute(f"{name}={form.upper()}")
                        assert found == (attribute.name, value.name), (name, form)


def test_no_two_attributes_share_a_name() -> None:
    names = [
        {normalise(name), *(normalise(n) for ns in attribute.names.values() for n in ns)}
        for name, attribute in attributes().items()
    ]
    assert sum(map(len, names)) == len(set().union(*names))


def test_every_value_can_be_said_in_both_languages() -> None:
    for attribute in attributes().values():
        for value in attribute.values:
            for language in LANGUAGES:
                assert phrase({attribute.name: (value,)}, language)


def test_phrases() -> None:
    chosen = {"sky": ("orange",), "light": ("warm",), "colours": ("blue", "green")}
    assert phrase(chosen, "en") == "with an orange sky, in warm light, mostly blue and green"
    assert phrase(chosen, "ru") == "с оранжевым небом, в тёплом свете, цвета: голубой и зелёный"
    assert phrase({}, "en") == ""


def test_several_attributes_are_resolved_together() -> None:
    asked = ["небо=оранжевое", "colours=blue", "цвет=зелёный", "sky=orange"]
    assert resolve_attributes(asked) == {"sky": ("orange",), "colours": ("blue", "green")}
    with pytest.raises(InvalidInput, match="sky"):
        resolve_attributes(["sky=orange", "sky=blue"])


@pytest.mark.parametrize(
    ("text", "hint"),
    [("sky", "name=value"), ("sky=plaid", "orange"), ("smell=good", "sky"), ("=blue", "sky")],
)
def test_unknown_ones_are_told_with_the_known(text: str, hint: str) -> None:
    with pytest.raises(InvalidInput, match=hint):
        resolve_attribute(text)


def test_phrases_of_unknown_things_are_refused() -> None:
    with pytest.raises(InvalidInput, match="plaid"):
        phrase({"sky": ("plaid",)}, "en")
    with pytest.raises(InvalidInput, match="language"):
        phrase({"sky": ("blue",)}, "de")


def test_codes_count_the_values() -> None:
    assert value_names("greyscale") == ("yes", "no")
    assert value_names("brightness") == ("dark", "normal", "bright")
    assert len(value_names("colours")) == 11
