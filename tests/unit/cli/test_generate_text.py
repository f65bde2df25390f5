"""`izograf generate PROMPT`: file names, what is told where, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from izograf.core.devices import Placement
from izograf.generators.render import read_png
from izograf.schema.library import read_card

QUICK = ("--steps", 2, "--device", "cpu", "--precision", "fp32")


@pytest.fixture
def text_model(trained: Callable[[str], Path]) -> Path:
    return trained("text-to-image")


@pytest.fixture
def generate(izograf: Any, text_model: Path, here: Path) -> Callable[..., Any]:
    del here

    def call(*arguments: object) -> Any:
        return izograf("generate", *arguments, "-m", text_model, *QUICK)

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def condition_of(path: Path) -> Any:
    return read_png(path)[1]["request"]["condition"]


@pytest.mark.parametrize(
    ("prompt", "stem"),
    [
        ("A sea, under: the BLUE sky!", "a-sea-under-the-blue-sky"),
        ("Море над лесом", "море-над-лесом"),
        ("one two three four five six seven", "one-two-three-four-five-six"),
        ("../../etc/passwd", "etc-passwd"),
        ("…!", "image"),
        ("m" * 300, "m" * 100),
    ],
)
def test_pictures_are_called_by_the_first_words_and_the_seed(
    generate: Callable[..., Any], here: Path, prompt: str, stem: str
) -> None:
    outcome = generate(prompt, "--seed", 7, "-o", "out")
    assert outcome.code == 0, outcome.err
    assert names(here) == [f"{stem}-7.png"]
    assert outcome.out.split() == [f"out/{stem}-7.png"]
    assert condition_of(here / "out" / f"{stem}-7.png")["prompt"] == prompt


def test_of_a_style_the_files_have_the_name_of_what_was_asked(
    generate: Callable[..., Any], here: Path
) -> None:
    outcome = generate("море", "--style", "noir", "-a", "небо=оранжевое", "-o", "out")
    assert outcome.code == 0, outcome.err
    (name,) = names(here)
    assert name == "море-с-оранжевым-небом-0.png"
    condition = condition_of(here / "out" / name)
    assert condition["style"] == "noir"
    assert condition["asked"] == "море, с оранжевым небом"


def test_attributes_alone_are_a_prompt(generate: Callable[..., Any], here: Path) -> None:
    outcome = generate("--attribute", "sky=orange", "-o", "a.png")
    assert outcome.code == 0, outcome.err
    assert condition_of(here / "a.png")["prompt"] == "with an orange sky"


def test_what_the_model_does_not_know_is_told_beside_the_json(
    generate: Callable[..., Any], here: Path
) -> None:
    asked = ("sea with a hippogriff", "--negative", "forest", "-n", 2, "--json", "-o", "out")
    outcome = generate(*asked)
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)
    assert [row["seed"] for row in rows] == [0, 1]
    assert {row["condition"]["negative_prompt"] for row in rows} == {"forest"}
    assert "«hippogriff»" in outcome.err
    assert len(names(here)) == 2


def test_a_picture_of_a_prompt_can_be_verified(
    generate: Callable[..., Any], izograf: Any, text_model: Path
) -> None:
    assert generate("sea", "--negative", "forest", "-o", "a.png").code == 0
    outcome = izograf("verify", "a.png", "-m", text_model)
    assert (outcome.code, outcome.out) == (0, "a.png: bit-exact\n")


def test_the_best_are_numbered_by_rank_and_are_some_of_those_drawn(
    generate: Callable[..., Any], here: Path
) -> None:
    kept = generate("sea", "--best-of", 4, "-n", 2, "--json", "-o", "kept")
    assert kept.code == 0, kept.err
    assert names(here / "kept") == ["sea-best-1.png", "sea-best-2.png"]
    drawn = generate("sea", "-n", 4, "--json", "-o", "all")
    every = {row["seed"]: row["pixels_sha256"] for row in json.loads(drawn.out)}
    rows = json.loads(kept.out)
    assert all(every[row["seed"]] == row["pixels_sha256"] for row in rows)
    assert len({row["seed"] for row in rows}) == 2


def test_of_as_many_as_are_kept_none_is_the_best(generate: Callable[..., Any], here: Path) -> None:
    assert generate("sea", "--best-of", 2, "-n", 2, "-o", "out").code == 0
    assert names(here) == ["sea-0.png", "sea-1.png"]


def test_a_strip_between_seeds_goes_under_one_prompt(
    generate: Callable[..., Any], here: Path
) -> None:
    outcome = generate("sea", "--to-seed", 5, "-n", 3, "-o", "out")
    assert outcome.code == 0, outcome.err
    assert names(here) == ["sea-0-0.png", "sea-0-1.png", "sea-0-2.png"]


def test_without_a_prompt_a_text_model_draws_without_condition(
    generate: Callable[..., Any], here: Path
) -> None:
    assert generate("-o", "out").code == 0
    assert names(here) == ["image-0.png"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sea", "--class", "sea"), "say the same thing twice"),
        (("sea", "-n", 3, "--best-of", 2), "--best-of must be from the number of pictures, 3, to"),
        (("sea", "--best-of", 0), "--best-of must be from the number of pictures, 1, to 64, got 0"),
        (("sea", "--best-of", 65), "to 64, got 65"),
        (("sea", "-n", 3, "--best-of", 4, "--to-seed", 5), "a strip needs them all"),
        (("sea", "-n", 3, "--to-class", "sea"), "must start from a class"),
        (("sea", "--style", "noire"), "Unknown style 'noire': did you mean noir"),
        (("sea", "-a", "sky=plaid"), "Unknown value 'plaid' of sky"),
        (("sea", "-a", "sky"), "name=value"),
        (("  ",), "The prompt is empty"),
        (("",), "The prompt is empty"),
        (("w" * 2001,), "The prompt has 2,001 characters"),
        (("--negative", "sea"), "go with a prompt: give one"),
        (("--style", "noir"), "go with a prompt: give one"),
        (("--best-of", 3), "go with a prompt: give one"),
        (("--class", "sea"), "has no classes: leave out --class"),
        (("sea", "--option", "negative_class=sea"), "has no option 'negative_class'"),
    ],
)
def test_refusals_are_one_sentence(
    refused: Callable[..., str], text_model: Path, arguments: tuple[object, ...], sentence: str
) -> None:
    assert sentence in refused("generate", *arguments, "-m", text_model, "-o", "out")


def test_a_model_of_classes_refuses_a_prompt(
    refused: Callable[..., str], trained: Callable[[str], Path]
) -> None:
    sentence = refused("generate", "sea", "-m", trained("dcgan"), "-o", "out")
    assert sentence.endswith("does not read prompts. It takes classes: use --class.")


class Mute:
    """A model that reads prompts and knows nothing of pictures."""

    def __init__(self, folder: Path) -> None:
        self.card = read_card(folder)

    def text_condition(self, *_: object) -> None:
        raise AssertionError("nothing is to be read")

    def sample(self, *_: object, **__: object) -> None:
        raise AssertionError("nothing is to be drawn")


def test_a_model_that_cannot_rank_refuses_before_it_draws(
    refused: Callable[..., str], text_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> tuple[Mute, Placement]:
        return Mute(text_model), Placement("cpu", "fp32")

    monkeypatch.setattr("izograf.checkpoints.load.load_generator", load)
    sentence = refused("generate", "sea", "--best-of", 3, "-m", text_model, *QUICK, "-o", "out")
    assert sentence.endswith("cannot compare pictures with a prompt: leave out --best-of.")


def test_existing_files_are_kept(generate: Callable[..., Any], here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "sea-best-1.png").write_text("mine")
    outcome = generate("sea", "--best-of", 3, "-o", "out")
    assert outcome.code != 0
    assert "sea-best-1.png exists already" in outcome.err
    assert (here / "out" / "sea-best-1.png").read_text() == "mine"


def test_a_name_of_the_hub_is_not_downloaded_unasked_and_says_how(refused) -> None:
    sentence = refused(
        "generate", "a hare", "-m", "CompVis/stable-diffusion-v1-4", "-o", "hare.png"
    )
    assert "`izograf import CompVis/stable-diffusion-v1-4` downloads it" in sentence
