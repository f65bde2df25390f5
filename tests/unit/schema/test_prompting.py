"""From what was typed to a text condition: language, attributes, style, remarks, refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from izograf.schema.attributes import phrase
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.labels import ClassLabel
from izograf.schema.prompting import (
    compose_prompt,
    known_attributes,
    remarks_of,
    remarks_on,
    vocabulary_of,
)
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import MAX_PROMPT, resolve_request
from izograf.schema.styles import bundled_styles

ORANGE = {"en": "with an orange sky", "ru": "с оранжевым небом"}
WORDS = (
    "a", "an", "sea", "under", "with", "sky", "orange", "blue",
    "море", "над", "закат", "оранжевым", "небом", "с", "и", "голубым",
)  # fmt: skip


def card_of(*words: str, max_words: int = 12) -> ModelCard:
    text = {
        "network": {"name": "clip", "config": {"max_words": max_words}},
        "vocabulary": " ".join(words),
    }
    return ModelCard(
        "reader", "text-to-image", {}, 16, conditions=("text",), sampling={"text": text}
    )


READER = card_of(*WORDS)
READS_ALL = ModelCard("wide", "stable-diffusion", {}, 16, conditions=("text",))
CLASSES = ModelCard(
    "scenes", "diffusion", {}, 16, conditions=("class",), classes=(ClassLabel("sea"),)
)
BLIND = ModelCard("plain", "diffusion", {}, 16)


def test_a_plain_prompt_is_its_words_with_tidy_space() -> None:
    prompted = compose_prompt(READER, "  a \n sea\t", negative="")
    assert prompted.condition == {"type": "text", "prompt": "a sea"}
    assert prompted.remarks == ()


@pytest.mark.parametrize(
    ("prompt", "language"), [("sea", "en"), ("море", "ru"), ("море IKEA над", "ru"), ("", "en")]
)
def test_attributes_are_said_in_the_language_of_the_prompt(prompt: str, language: str) -> None:
    said = compose_prompt(READS_ALL, prompt, given=["sky=orange"]).condition["prompt"]
    assert said == ", ".join(part for part in (prompt, ORANGE[language]) if part)
    assert phrase({"sky": ("orange",)}, language) == ORANGE[language]


def test_an_attribute_may_be_asked_in_either_language() -> None:
    english, russian = (
        compose_prompt(READER, "море", given=[text]).condition
        for text in ("sky=orange", "Небо = оранжевое")
    )
    assert english == russian


def test_a_negative_prompt_is_kept_and_an_empty_one_left_out() -> None:
    assert compose_prompt(READER, "sea", negative="blue").condition["negative_prompt"] == "blue"
    assert "negative_prompt" not in compose_prompt(READER, "sea").condition
    blank = compose_prompt(READER, "sea", negative="  ").condition
    assert "negative_prompt" not in resolve_request(READER, GenerationRequest("m", blank)).condition


@pytest.mark.parametrize(("prompt", "negative"), [("a sea", "people"), ("море", "люди")])
def test_a_style_is_put_around_and_what_was_asked_is_kept(prompt: str, negative: str) -> None:
    style = bundled_styles()["noir"]
    prompted = compose_prompt(READS_ALL, prompt, negative=negative, style=style.name)
    words, away = style.apply(prompt, negative)
    assert prompted.condition == {
        "type": "text", "prompt": words, "negative_prompt": away, "style": "noir", "asked": prompt,
    }  # fmt: skip
    assert prompted.remarks == ()
    request = GenerationRequest("m", prompted.condition)
    assert request.label == prompt
    assert resolve_request(READS_ALL, request).condition == prompted.condition


def test_a_style_may_be_called_by_its_title_and_keeps_attributes_in_what_was_asked() -> None:
    titled = compose_prompt(READS_ALL, "море", given=["sky=orange"], style="Лубок").condition
    assert titled["style"] == "lubok"
    assert titled["asked"] == "море, " + ORANGE["ru"]
    assert titled["asked"] in titled["prompt"]


def test_unknown_words_are_told_with_near_ones_in_the_language_of_the_prompt() -> None:
    english = compose_prompt(READER, "a seа_ river")  # the а is Cyrillic
    assert any("«river»" in remark for remark in english.remarks)
    (russian,) = compose_prompt(READER, "море с хоботом").remarks
    assert russian.startswith("Модель не знает слова «хоботом»")
    assert compose_prompt(READS_ALL, "xyzzy хобот").remarks == ()


def test_unknown_words_of_the_negative_prompt_and_a_cut_are_told_too() -> None:
    remarks = compose_prompt(READER, "sea", negative="xyzzy").remarks
    assert remarks == ("The model does not know «xyzzy».",)
    (cut,) = compose_prompt(READER, "sea " * 14).remarks
    assert "after 12 words, words left out: 2" in cut


def test_a_style_of_unknown_words_is_told_once_and_not_word_by_word() -> None:
    prompted = compose_prompt(card_of("sea"), "sea", style="noir")
    assert prompted.remarks == (
        "The model knows no word of this style, which therefore changes nothing.",
    )
    assert compose_prompt(card_of("море"), "море", style="noir").remarks == (
        "Модель не знает ни одного слова этого стиля, и он ничего не меняет.",
    )


def test_the_remarks_of_a_stored_condition_are_those_of_its_author() -> None:
    for negative, style in (("xyzzy", None), ("", "noir"), ("", None)):
        prompted = compose_prompt(READER, "a river", negative=negative, style=style)
        assert prompted.remarks
        assert remarks_of(READER, prompted.condition) == prompted.remarks
    styled = compose_prompt(card_of("sea"), "sea", style="noir")
    assert remarks_of(card_of("sea"), styled.condition) == styled.remarks
    assert remarks_of(card_of("sea"), {**styled.condition, "style": "gone"}) == ()


@pytest.mark.parametrize("prompt", ["", "  \n ", "\t"])
def test_an_empty_prompt_is_refused_and_attributes_alone_are_not(prompt: str) -> None:
    with pytest.raises(InvalidInput, match="The prompt is empty: say in a few words"):
        compose_prompt(READER, prompt, style="noir")
    said = compose_prompt(READER, prompt, given=["sky=orange"]).condition["prompt"]
    assert said == ORANGE["en"]


def test_a_model_that_reads_no_prompts_says_what_it_takes() -> None:
    with pytest.raises(InvalidInput, match=r"^scenes does not read prompts\. It takes classes"):
        compose_prompt(CLASSES, "sea")
    with pytest.raises(InvalidInput, match=r"^plain does not read prompts\.$"):
        compose_prompt(BLIND, "sea")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["sky=plaid"], "Unknown value 'plaid' of sky"),
        (["mood=calm"], "Unknown attribute 'mood'"),
        (["orange"], "name=value"),
        (["sky=blue", "sky=orange"], "Too many values of sky"),
    ],
)
def test_unknown_attributes_and_values_are_refused(given: list[str], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        compose_prompt(READER, "sea", given=given)


def test_an_unknown_style_is_refused_with_a_near_one() -> None:
    with pytest.raises(NotFound, match="Unknown style 'noire': did you mean noir"):
        compose_prompt(READER, "sea", style="noire")


def test_attributes_are_offered_where_the_model_has_words_for_every_value() -> None:
    assert known_attributes(READS_ALL) == ()
    assert known_attributes(card_of("sea")) == ()
    said = [phrase({"light": (value,)}, "en") for value in ("warm", "neutral", "cold")]
    words = sorted({word for text in said for word in text.split()})
    assert [each.name for each in known_attributes(card_of(*words))] == ["light"]
    assert known_attributes(card_of(*words[1:])) == ()
    text = card_of(*words).sampling["text"]
    said = {
        str(listed): [
            each.name
            for each in known_attributes(
                replace(card_of(*words), sampling={"text": {**text, "attributes": listed}})
            )
        ]
        for listed in ([], ["light"], None, 3, "l")
    }
    assert said.pop("[]") == []
    assert list(said.values()) == [["light"]] * 4, "what is no list is as if it were not there"


def test_a_card_without_a_vocabulary_reads_anything() -> None:
    assert vocabulary_of(READS_ALL) is None
    assert remarks_on(READS_ALL, ("xyzzy",), "en") == ()
    known = vocabulary_of(READER)
    assert known is not None
    assert known.words == WORDS


@settings(max_examples=30)
@given(prompt=st.text(max_size=40), negative=st.text(max_size=20), styled=st.booleans())
def test_whatever_is_typed_survives_the_way_through_a_record(
    prompt: str, negative: str, styled: bool
) -> None:
    style = "noir" if styled else None
    try:
        condition = compose_prompt(READS_ALL, prompt, negative=negative, style=style).condition
    except InvalidInput:
        assert not prompt.split()
        return
    request = resolve_request(READS_ALL, GenerationRequest("m", condition))
    again = GenerationRequest.from_json(json.loads(json.dumps(request.to_json())))
    assert again == request
    assert resolve_request(READS_ALL, again) == request
    assert request.label == " ".join(prompt.split())


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"prompt": "a" * (MAX_PROMPT + 1)}, "The prompt has 2,001 characters"),
        ({"prompt": "a", "negative_prompt": "b" * 3000}, "The negative prompt has 3,000"),
        ({"prompt": "a", "mood": "calm"}, "A text condition has no 'mood'"),
        ({}, "does not take the condition"),
    ],
)
def test_a_text_condition_is_checked_against_the_card(
    condition: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        resolve_request(READER, GenerationRequest("m", {"type": "text", **condition}))


def test_a_text_condition_is_refused_by_a_model_of_classes() -> None:
    for card, takes in ((CLASSES, "a class"), (BLIND, "no condition at all")):
        with pytest.raises(InvalidInput, match=f"does not read prompts, it takes {takes}"):
            resolve_request(card, GenerationRequest("m", {"type": "text", "prompt": "sea"}))


def test_a_strip_towards_a_class_cannot_start_from_a_prompt() -> None:
    condition = {"type": "text", "prompt": "sea"}
    request = GenerationRequest("m", condition, 3, 0, {}, {"class": "sea"})
    with pytest.raises(InvalidInput, match="must start from a class"):
        resolve_request(READER, request)
