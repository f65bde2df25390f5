"""P16: what AUTOMATIC1111's WebUI and its relatives write is understood, or left alone."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from izograf.core.rng import SeededNoise
from izograf.core.types import Condition, ignore
from izograf.diffusion.samplers import SAMPLERS as OURS
from izograf.diffusion.schedules import SCHEDULES as OUR_SCHEDULES
from izograf.schema.errors import InvalidInput
from izograf.schema.infotext import (
    EQUAL,
    LONGEST,
    SAMPLERS,
    SCHEDULES,
    Infotext,
    parse_infotext,
)
from izograf.schema.request import MAX_SEED

WRITTEN = """a lighthouse at night, <lora:oil:0.8>, (sea: 1.2)
second line, Steps to the shore
Negative prompt: blurry, text: none
and more
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 42, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned, Clip skip: 2, \
Lora hashes: "oil: 1a, sea: \\"2b\\"", Version: v1.6.0"""


def test_a_text_of_a1111_is_read_whole() -> None:
    found = parse_infotext(WRITTEN)
    assert found.prompt.endswith("second line, Steps to the shore")
    assert found.negative_prompt == "blurry, text: none\nand more"
    assert found.options == {
        "num_inference_steps": 20,
        "guidance_scale": 7.5,
        "sampler": "dpm-solver++",
        "schedule": "karras",
    }
    assert (found.model, found.seed, found.width, found.height) == ("v1-5-pruned", 42, 512, 768)
    assert found.settings["Lora hashes"] == 'oil: 1a, sea: "2b"'
    assert found.settings["Clip skip"] == "2"


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ("Sampler: Euler a", {"sampler": "euler-ancestral"}),
        ("Sampler: DDIM", {"sampler": "ddim"}),
        ("Sampler: PLMS", {"sampler": "plms"}),
        ("Sampler: UniPC", {"sampler": "unipc"}),
        ("Sampler: DPM++ 2M SDE Karras", {"sampler": "dpm-solver++-sde", "schedule": "karras"}),
        ("Sampler: DPM++ 2S a Karras", {"sampler": "dpm-solver++-2s", "schedule": "karras"}),
        ("Sampler: DPM++ SDE, Schedule type: Exponential",
         {"sampler": "dpm-solver++-sde", "schedule": "exponential"}),
        ("Sampler: DPM++ 2M, Schedule type: Exponential",
         {"sampler": "dpm-solver++", "schedule": "exponential"}),
        ("Sampler: Heun, Schedule type: Automatic", {"sampler": "heun"}),
        ("Sampler: LMS", {}),
        ("CFG scale: nan", {}),
        ("CFG scale: 1e999", {}),
        ("Sampler: Restart Karras", {"schedule": "karras"}),
    ],
)  # fmt: skip
def test_samplers_are_ours_where_we_have_them(settings: str, options: dict[str, object]) -> None:
    assert parse_infotext(f"Steps: 5, {settings}").options == {"num_inference_steps": 5, **options}


def test_every_name_of_the_table_is_one_of_ours() -> None:
    every = {name for name, ours in OURS.items() if ours.any_model} - {"dpm-solver"}
    assert set(SAMPLERS.values()) == every
    assert set(SCHEDULES.values()) <= set(OUR_SCHEDULES)


@pytest.mark.parametrize(("name", "other"), EQUAL.items())
def test_methods_called_equal_draw_the_same_pictures(name: str, other: str) -> None:
    def drawn(sampler: str) -> torch.Tensor:
        noise = SeededNoise((1, 4, 4), [7])
        sigmas = OUR_SCHEDULES["karras"](8, 0.02, 80.0)
        return OURS[sampler](bend, noise() * sigmas[0], sigmas, Condition(), noise, ignore)

    def bend(x: torch.Tensor, sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        del condition
        return torch.tanh(x) / (1 + sigma[:, None, None, None])

    torch.testing.assert_close(drawn(name), drawn(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    ["Seed: -1", "Seed: 1e5", f"Seed: {MAX_SEED + 1}", f"Seed: {'9' * 5000}", "Seed: ٣", "Seed: "],
)
def test_a_seed_that_is_none_is_none(settings: str) -> None:
    assert parse_infotext(f"Steps: 5, {settings}").seed is None


@pytest.mark.parametrize("size", ["512", "x", "512x", "0x5", "-1x5", "512x768x3", "9999999x5"])
def test_a_size_that_is_none_is_none(size: str) -> None:
    found = parse_infotext(f"Steps: 5, Size: {size}")
    assert (found.width, found.height) == (None, None)


def test_settings_without_steps_are_found_by_what_they_know() -> None:
    assert parse_infotext("sea\nSeed: 7, Sampler: Euler, Size: 64x64").seed == 7


@pytest.mark.parametrize("text", ["", "\n\n", "a sea, at night", "Seed: 7", "x" * (LONGEST + 1)])
def test_what_is_no_such_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_infotext(text)


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30)


@given(
    prompt=words.filter(lambda text: not text.startswith(("Negative prompt:", "Steps:"))),
    negative=words.filter(lambda text: "Steps:" not in text),
    steps=st.integers(1, 1000),
    seed=st.integers(0, MAX_SEED),
    guidance=st.floats(0, 30),
    quoted=words,
)
def test_p16_what_was_written_is_read(
    prompt: str, negative: str, steps: int, seed: int, guidance: float, quoted: str
) -> None:
    text = (
        f"{prompt}\nNegative prompt: {negative}\nSteps: {steps}, CFG scale: {guidance}, "
        f"Seed: {seed}, Note: {json.dumps(quoted)}, Model: m"
    )
    found = parse_infotext(text)
    assert (found.prompt, found.negative_prompt) == (prompt.strip(), negative.strip())
    assert found.options == {"num_inference_steps": steps, "guidance_scale": guidance}
    assert (found.seed, found.model, found.settings["Note"]) == (seed, "m", quoted)


@given(st.text() | st.lists(st.sampled_from(
    ["Steps", ":", ",", '"', "\\", "\n", "Seed", "Size", "x", "7", "Negative prompt:", " "]
)).map("".join))  # fmt: skip
def test_p8_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_infotext(text)
    except InvalidInput:
        return
    assert isinstance(found, Infotext)
