"""Typed sampling options."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from izograf.schema.errors import InvalidInput
from izograf.schema.options import SHORT_FORMS, OptionSpec, OptionValue, parse_options

STEPS = OptionSpec("num_inference_steps", "integer", 18, "more is slower", 1, 1000)
SCALE = OptionSpec("guidance_scale", "number", 1.5, minimum=0, maximum=20)
TILED = OptionSpec("tiled", "boolean", False)
SAMPLER = OptionSpec("sampler", "choice", "euler", choices=("euler", "heun", "dpm-solver++"))
SPECS = (STEPS, SCALE, TILED, SAMPLER)


@pytest.mark.parametrize(
    ("spec", "value", "parsed"),
    [
        (STEPS, 20, 20), (STEPS, "20", 20), (STEPS, 20.0, 20), (STEPS, "1e2", 100), (STEPS, 1, 1),
        (STEPS, 1000, 1000), (SCALE, "2.5", 2.5), (SCALE, 0, 0.0), (SCALE, 20, 20.0),
        (TILED, True, True), (TILED, "yes", True), (TILED, "FALSE", False), (TILED, "no", False),
        (SAMPLER, "heun", "heun"),
    ],
)  # fmt: skip
def test_a_value_is_converted_to_the_kind_of_its_option(
    spec: OptionSpec, value: OptionValue, parsed: OptionValue
) -> None:
    result = spec.parse(value)
    assert result == parsed
    assert type(result) is type(parsed)


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (STEPS, 0, "num_inference_steps must be from 1 to 1000, got 0"),
        (STEPS, 1001, "from 1 to 1000"),
        (STEPS, 2.5, "must be a whole number from 1 to 1000, got 2.5"),
        (STEPS, "many", "must be a whole number"),
        (STEPS, True, "must be a whole number"),
        (STEPS, "inf", "must be a whole number"),
        (STEPS, "9" * 400, "num_inference_steps must be"),
        (STEPS, 10**400, "num_inference_steps must be"),
        (SCALE, "nan", "must be a number from 0 to 20, got 'nan'"),
        (SCALE, math.inf, "must be a number"),
        (SCALE, -0.1, "from 0 to 20"),
        (TILED, "maybe", "tiled must be true or false, got 'maybe'"),
        (TILED, 2, "tiled must be true or false"),
        (SAMPLER, "huen", r"must be one of euler, heun, dpm-solver\+\+. Did you mean heun\?"),
        (SAMPLER, 3, "must be one of"),
        (SAMPLER, "", "must be one of"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_value_is_one_sentence(spec: OptionSpec, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        spec.parse(value)


@pytest.mark.parametrize(
    ("minimum", "maximum", "message"),
    [(None, None, "finite"), (1, None, "at least 1"), (None, 2, "at most 2"), (1, 2, "1 to 2")],
)
def test_bounds_are_told(minimum: float | None, maximum: float | None, message: str) -> None:
    spec = OptionSpec("x", "number", 1, minimum=minimum, maximum=maximum)
    with pytest.raises(InvalidInput, match=message):
        spec.parse("nan")


def test_every_option_gets_its_given_or_default_value() -> None:
    values = parse_options({"sampler": "heun", "num_inference_steps": "4"}, SPECS)
    assert values == {
        "num_inference_steps": 4, "guidance_scale": 1.5, "tiled": False, "sampler": "heun",
    }  # fmt: skip
    assert parse_options({}, ()) == {}


@pytest.mark.parametrize("short", sorted(SHORT_FORMS))
def test_a_short_form_is_its_long_name(short: str) -> None:
    long = SHORT_FORMS[short]
    assert parse_options({short: 3}, SPECS) == parse_options({long: 3}, SPECS)
    assert parse_options({short: 3}, SPECS)[long] == 3


def test_an_unknown_option_is_answered_with_the_known() -> None:
    with pytest.raises(
        InvalidInput, match=r"no option 'eta'; its options are: num_inference_steps"
    ):
        parse_options({"eta": 1}, SPECS)
    with pytest.raises(InvalidInput, match="its options are: none"):
        parse_options({"eta": 1}, ())


numbers = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)
optional = st.none() | numbers
specs = st.one_of(
    st.builds(
        OptionSpec, st.text(min_size=1, max_size=8), st.sampled_from(["integer", "number"]),
        numbers, st.text(max_size=8), optional, optional,
    ),
    st.builds(OptionSpec, st.text(min_size=1, max_size=8), st.just("boolean"), st.booleans()),
    st.builds(
        OptionSpec, st.text(min_size=1, max_size=8), st.just("choice"), st.just("a"),
        choices=st.just(("a", "b")),
    ),
)  # fmt: skip


def _accepts_its_default(spec: OptionSpec) -> bool:
    try:
        spec.parse(spec.default)
    except InvalidInput:
        return False
    return True


@given(specs)
def test_an_option_survives_json(spec: OptionSpec) -> None:
    assume(_accepts_its_default(spec))
    assert OptionSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@given(
    st.sampled_from(SPECS),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
    | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=2), st.none()),
)  # fmt: skip
def test_any_json_value_is_parsed_within_bounds_or_refused(spec: OptionSpec, value: Any) -> None:
    """A request comes from anywhere: whatever JSON can say must not end in a traceback."""
    try:
        parsed = spec.parse(value)
    except InvalidInput:
        return
    assert spec.parse(parsed) == parsed, "what was parsed must parse again, as itself"
    if spec.kind in ("integer", "number"):
        assert spec.minimum is not None
        assert spec.maximum is not None
        assert spec.minimum <= parsed <= spec.maximum
