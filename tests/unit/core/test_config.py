"""Configs to and from JSON and `name=value` settings."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from izograf.core.config import apply_settings, config_from_json, config_to_json
from izograf.schema.errors import CardError, InvalidInput, IzografError


@dataclass(frozen=True)
class Config:
    size: int = 8
    rate: float = 0.5
    wide: bool = False
    name: str = "plain"
    kind: Literal["a", "b"] = "a"
    levels: tuple[int, ...] = (1, 2)
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be positive, got {self.size}")


finite = st.floats(allow_nan=False, allow_infinity=False)
configs = st.builds(
    Config,
    size=st.integers(1, 10**9),
    rate=finite,
    wide=st.booleans(),
    name=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8),
    kind=st.sampled_from(["a", "b"]),
    levels=st.lists(st.integers(-9, 9), max_size=4).map(tuple),
    limit=st.none() | finite,
)


@given(configs)
def test_a_config_survives_json(config: Config) -> None:
    written = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(Config, written, source="a test") == config


def test_missing_fields_take_their_defaults() -> None:
    assert config_from_json(Config, {"size": 3}, source="a test") == Config(size=3)


def test_whole_numbers_are_accepted_where_a_float_is_expected() -> None:
    read = config_from_json(Config, {"rate": 2}, source="a test")
    assert read.rate == 2.0
    assert type(read.rate) is float


@pytest.mark.parametrize(
    "values",
    [
        {"size": 2.0}, {"size": "2"}, {"size": True}, {"size": None}, {"size": 0}, {"rate": "fast"},
        {"rate": True}, {"rate": float("nan")}, {"wide": 1}, {"name": 3}, {"kind": "c"},
        {"kind": 1}, {"levels": 3}, {"levels": ["1"]}, {"levels": [1.5]}, {"levels": "12"},
        {"colour": "red"}, {"limit": "x"}, {"rate": 10**400},
    ],
)  # fmt: skip
def test_a_wrong_value_is_a_card_error_that_names_its_source(values: dict[str, Any]) -> None:
    with pytest.raises(CardError, match=r"^the card of 'x': .*\.$"):
        config_from_json(Config, values, source="the card of 'x'")


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@given(configs)
def test_settings_written_out_give_the_config(config: Config) -> None:
    settings = [f"{key}={_written(value)}" for key, value in asdict(config).items()]
    assert apply_settings(Config(), settings) == config


def test_settings_change_only_what_they_name() -> None:
    assert apply_settings(Config(rate=0.1), ["size=4", " wide = TRUE "]) == Config(4, 0.1, True)
    assert apply_settings(Config(), []) == Config()
    assert apply_settings(Config(), ["levels=8, 16,"]).levels == (8, 16)
    assert apply_settings(Config(limit=1.0), ["limit=none"]).limit is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("size", "--set takes name=value, got 'size'"),
        ("sise=3", "has no field 'sise'; its fields are: size, .* Did you mean size?"),
        ("size=big", "size takes a whole number, got 'big'"),
        ("size=2.5", "size takes a whole number, got '2.5'"),
        ("size=0", "size must be positive, got 0."),
        ("rate=nan", "rate takes a number, got 'nan'"),
        ("rate=inf", "rate takes a number, got 'inf'"),
        ("wide=1", "wide takes true or false, got '1'"),
        ("kind=c", "kind takes one of a, b, got 'c'"),
        ("levels=1,x", "levels takes a comma-separated list of a whole number, got '1,x'"),
        ("limit=x", "limit takes a number or none, got 'x'"),
        ("size=" + "9" * 5000, "size takes a whole number"),
    ],
)
def test_a_wrong_setting_is_one_sentence(setting: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        apply_settings(Config(), [setting])


@settings(max_examples=50)
@given(st.text(max_size=20))
def test_any_text_as_a_setting_is_accepted_or_refused_with_a_sentence(text: str) -> None:
    for setting in (text, *(f"{name}={text}" for name in asdict(Config()))):
        with suppress(IzografError):
            assert isinstance(apply_settings(Config(), [setting]), Config)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(sorted(asdict(Config()))), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
)))  # fmt: skip
def test_any_json_as_a_config_is_read_or_refused_as_a_card(values: dict[str, Any]) -> None:
    try:
        config = config_from_json(Config, values, source="a test")
    except CardError:
        return
    assert json.loads(json.dumps(config_to_json(config))) == {**config_to_json(Config()), **values}
