"""The generation request."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from izograf.schema.errors import InvalidInput
from izograf.schema.request import MAX_IMAGES, MAX_SEED, GenerationRequest

requests = st.builds(
    GenerationRequest,
    model=st.text(max_size=8),
    condition=st.just({"type": "none"}) | st.fixed_dictionaries(
        {"type": st.just("class"), "class": st.text(max_size=8)}
    ),
    num_images=st.integers(1, MAX_IMAGES),
    seed=st.integers(0, 2**62),
    options=st.dictionaries(
        st.text(max_size=8),
        st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        max_size=3,
    ),
)  # fmt: skip


@given(requests)
def test_a_request_survives_json(request: GenerationRequest) -> None:
    assert GenerationRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_image_i_has_seed_plus_i() -> None:
    assert GenerationRequest("scenes", num_images=3, seed=40).seeds == (40, 41, 42)


def test_a_single_image_of_a_request_is_a_request_for_its_seed() -> None:
    request = GenerationRequest("scenes", num_images=3, seed=40, options={"steps": 4})
    assert request.single(41).seeds == (41,)
    assert request.single(41).options == request.options


def test_the_label_is_the_class_or_image() -> None:
    assert GenerationRequest("scenes", {"type": "class", "class": "лес"}).label == "лес"
    assert GenerationRequest("scenes").label == "image"


@pytest.mark.parametrize("num_images", [0, -1, MAX_IMAGES + 1])
def test_an_impossible_number_of_images_is_refused(num_images: int) -> None:
    with pytest.raises(InvalidInput, match="num_images must be from 1 to 100,000, got"):
        GenerationRequest("scenes", num_images=num_images)


@pytest.mark.parametrize(("seed", "num_images"), [(-1, 1), (2**63, 1), (MAX_SEED, 2)])
def test_seeds_that_do_not_fit_63_bits_are_refused(seed: int, num_images: int) -> None:
    with pytest.raises(InvalidInput, match="seed must be from 0 to"):
        GenerationRequest("scenes", seed=seed, num_images=num_images)


@pytest.mark.parametrize(("seed", "num_images"), [(0, 1), (MAX_SEED, 1), (MAX_SEED - 2, 3)])
def test_the_largest_seeds_that_fit_are_accepted(seed: int, num_images: int) -> None:
    request = GenerationRequest("scenes", seed=seed, num_images=num_images)
    assert request.seeds[-1] == seed + num_images - 1 <= MAX_SEED


WHOLE = GenerationRequest("scenes", {"type": "class", "class": "sea"}, 2, 7, {"steps": 4}).to_json()


@pytest.mark.parametrize("key", sorted(WHOLE))
def test_a_missing_field_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match=f"The request is malformed: '{key}'"):
        GenerationRequest.from_json({k: v for k, v in WHOLE.items() if k != key})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from([*sorted(WHOLE), "towards"]), json_values)
def test_any_json_in_any_field_is_read_or_refused(key: str, value: Any) -> None:
    try:
        request = GenerationRequest.from_json({**WHOLE, key: value})
    except InvalidInput:
        return
    assert len(request.seeds) == request.num_images


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1.5), ("seed", True), ("seed", float("inf")), ("seed", "7"),
        ("num_images", 1.5), ("num_images", True), ("num_images", float("inf")), ("model", None),
        ("model", 3), ("model", ["scenes"]), ("condition", []), ("condition", None),
        ("options", [["steps", 4]]), ("options", None),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_and_not_bent_into_shape(key: str, value: Any) -> None:
    """A seed of 1.5 read as 1 would give another picture than its record says."""
    with pytest.raises(InvalidInput):
        GenerationRequest.from_json({**WHOLE, key: value})


towards = st.dictionaries(st.just("seed"), st.integers(0, MAX_SEED), max_size=1).flatmap(
    lambda seed: st.dictionaries(st.just("class"), st.text(max_size=8), max_size=1).map(
        lambda name: seed | name
    )
)


@given(requests, towards)
def test_a_strip_survives_json_and_all_its_images_have_one_seed(
    request: GenerationRequest, towards: dict[str, Any]
) -> None:
    raw = request.to_json()
    assert "towards" not in raw, "what is not asked is not written: old hashes stay"
    raw |= {"towards": towards, "num_images": max(2, request.num_images)}
    strip = GenerationRequest.from_json(json.loads(json.dumps(raw)))
    assert strip.towards == towards
    assert GenerationRequest.from_json(strip.to_json()) == strip
    assert ("towards" in strip.to_json()) == bool(towards)
    if towards:
        assert set(strip.seeds) == {strip.seed}
        assert strip.single(strip.seed).towards == {}


@given(st.integers(2, 1000))
def test_a_strip_goes_evenly_from_one_end_to_the_other(num_images: int) -> None:
    strip = GenerationRequest("scenes", num_images=num_images, towards={"seed": 3})
    shares = [strip.share(position) for position in range(num_images)]
    assert (shares[0], shares[-1]) == (0, 1)
    steps = [b - a for a, b in itertools.pairwise(shares)]
    assert steps == pytest.approx([1 / (num_images - 1)] * len(steps))
    assert GenerationRequest("scenes", num_images=num_images).share(1) == 0


def test_the_largest_seed_may_begin_a_strip() -> None:
    assert GenerationRequest("scenes", seed=MAX_SEED, num_images=9, towards={"seed": 0}).seeds


@pytest.mark.parametrize(
    ("towards", "num_images", "sentence"),
    [
        ({"sead": 1}, 2, "towards takes seed and class, not 'sead'"),
        ({"seed": 1, "truncation": 2}, 2, "not 'truncation'"),
        ({"seed": "1"}, 2, "seed of towards must be a whole number"),
        ({"seed": True}, 2, "seed of towards must be a whole number"),
        ({"seed": -1}, 2, "seed of towards must be a whole number"),
        ({"seed": MAX_SEED + 1}, 2, "seed of towards must be a whole number"),
        ({"class": 3}, 2, "class of towards must be the name of a class"),
        ({"seed": 1}, 1, "at least 2 images, num_images is 1"),
        ([1], 2, "towards must be an object"),
        (None, 2, "towards must be an object"),
    ],
)
def test_a_malformed_strip_is_refused_in_one_sentence(
    towards: Any, num_images: int, sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        GenerationRequest.from_json({**WHOLE, "num_images": num_images, "towards": towards})
