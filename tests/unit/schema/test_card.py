"""The model card on disk."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from izograf.schema.card import CARD_VERSION, ModelCard
from izograf.schema.errors import CardError
from izograf.schema.labels import ClassLabel
from izograf.schema.options import OptionSpec

CARD = ModelCard(
    name="scenes",
    family="diffusion",
    network={"name": "unet", "config": {"width": 16, "multipliers": [1, 2]}},
    image_size=64,
    conditions=("class",),
    classes=(ClassLabel("лес", {"ru": ("лес", "леса")}), ClassLabel("sea")),
    options=(OptionSpec("num_inference_steps", "integer", 18, minimum=1, maximum=1000),),
    sampling={"sigma_min": 0.02},
    metrics=({"name": "FD", "value": 12.5},),
    weights={"b.safetensors": "22", "a.safetensors": "11"},
    parents=("teacher@33",),
    summary="photographs of six kinds",
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
objects = st.dictionaries(st.text(max_size=5), json_values, max_size=3)
cards = st.builds(
    ModelCard,
    name=st.text(max_size=8),
    family=st.text(max_size=8),
    network=objects,
    image_size=st.integers(1, 4096),
    conditions=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    classes=st.lists(
        st.builds(ClassLabel, st.text(max_size=5), st.just({"ru": ("а", "б")})), max_size=2
    ).map(tuple),
    options=st.lists(
        st.builds(OptionSpec, st.text(max_size=5), st.just("number"), st.integers(0, 9)), max_size=2
    ).map(tuple),
    sampling=objects,
    data=objects,
    recipe=objects,
    metrics=st.lists(objects, max_size=2).map(tuple),
    energy=objects,
    weights=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    parents=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    summary=st.text(max_size=8),
    notes=st.text(max_size=8),
    licence=st.text(max_size=8),
)


@settings(max_examples=60)
@given(cards)
def test_a_card_survives_its_text(card: ModelCard) -> None:
    assert ModelCard.loads(card.dumps()) == card
    assert ModelCard.loads(card.dumps()).dumps() == card.dumps()


def test_the_text_is_readable_in_any_language_and_ends_with_a_newline() -> None:
    text = CARD.dumps()
    assert "леса" in text
    assert text.endswith("}\n")
    assert text.count("\n") > 20


def test_numbers_that_json_does_not_have_are_refused() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            replace(CARD, metrics=({"value": value},)).dumps()


def test_the_fingerprint_is_that_of_all_weights_in_the_order_of_their_names() -> None:
    assert CARD.fingerprint == "11,22"
    reordered = {name: CARD.weights[name] for name in sorted(CARD.weights)}
    assert replace(CARD, weights=reordered).fingerprint == CARD.fingerprint


def test_a_card_of_a_newer_program_asks_for_an_update() -> None:
    newer = CARD.dumps().replace(f'"version": {CARD_VERSION}', f'"version": {CARD_VERSION + 1}')
    with pytest.raises(CardError, match=r"update izograf to use this model\."):
        ModelCard.loads(newer)


@pytest.mark.parametrize("version", [None, "1", 0, -1, 1.5, [1]])
def test_a_wrong_version_is_refused(version: Any) -> None:
    with pytest.raises(CardError, match="has card version"):
        ModelCard.from_json({**CARD.to_json(), "version": version})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"card"', "\x00", '{"a": 1}'])
def test_what_is_no_card_is_refused_by_the_name_of_its_file(text: str) -> None:
    with pytest.raises(CardError, match=r"^runs/mine/card\.json "):
        ModelCard.loads(text, source="runs/mine/card.json")


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    with pytest.raises(CardError):
        ModelCard.loads("[" * 100_000 + "]" * 100_000)


def test_a_missing_field_and_an_unknown_one_are_named() -> None:
    described = CARD.to_json()
    with pytest.raises(CardError, match="unknown fields: colour"):
        ModelCard.from_json({**described, "colour": "red"})
    del described["family"]
    with pytest.raises(CardError, match="family"):
        ModelCard.from_json(described)


WRONG: dict[str, list[Any]] = {
    "name": [None, 3, ["a"]],
    "family": [None, {}],
    "network": [None, [], "unet"],
    "image_size": ["64", 64.0, True, None, 0, -64],
    "conditions": ["class", None, {"class": 1}, [1]],
    "classes": ["ab", None, [3], [{}], [{"name": "a", "forms": []}],
                [{"name": "a", "forms": {"ru": 3}}]],
    "options": [None, [{}], [3], [{"name": "a", "kind": "number"}],
                [{"name": "a", "kind": "colour", "default": 1}],
                [{"name": "a", "kind": "number", "default": 1, "choices": 3}]],
    "sampling": [None, []],
    "metrics": ["FD", None, [3]],
    "energy": [3],
    "weights": [None, [], {"a": 3}],
    "parents": ["teacher", [1]],
    "summary": [None, 3],
    "notes": [[]],
    "licence": [None],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, v) for key, vs in WRONG.items() for v in vs])
def test_a_field_of_the_wrong_type_is_a_card_error(key: str, value: Any) -> None:
    with pytest.raises(CardError, match=r"card\.json"):
        ModelCard.from_json({**CARD.to_json(), key: value})


@settings(max_examples=60)
@given(st.sampled_from(sorted(CARD.to_json())), json_values)
def test_any_json_in_any_field_is_read_or_refused(key: str, value: Any) -> None:
    try:
        card = ModelCard.from_json({**CARD.to_json(), key: value})
    except CardError:
        return
    assert json.loads(card.dumps()).keys() == CARD.to_json().keys()
