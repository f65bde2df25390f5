"""`izograf bench` and `--fast`: what is drawn, what is said of it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from izograf.core.types import Condition
from izograf.experiments.ladder import climb, distance, rungs_of
from izograf.generators.render import read_png
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.library import read_card
from izograf.schema.options import OptionSpec

Trained = Callable[[str], Path]
FP32 = ("--device", "cpu", "--precision", "fp32")
STEPS = OptionSpec("num_inference_steps", "integer", 18, minimum=1, maximum=1000)


@pytest.mark.parametrize(
    ("task", "recipe"), [("class-to-image", "diffusion-unet"), ("text-to-image", "text-to-image")]
)
def test_each_setting_is_timed_and_compared_with_the_first(
    task: str, recipe: str, izograf: Any, trained: Trained
) -> None:
    given = () if task == "class-to-image" else ("--prompt", "forest")
    outcome = izograf("bench", task, "-m", trained(recipe), "--rounds", 1, *given, "--json")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)
    assert rows[0]["setting"] == "textbook"
    assert rows[0]["distance"] == 0
    assert rows[0]["times_faster"] == 1
    assert "50 steps" in rows[0]["changed"]
    assert [row["setting"] for row in rows].count("reuse") == 1
    assert all(row["seconds"] > 0 for row in rows)
    assert all(0 < row["distance"] < 128 for row in rows[1:])


def test_a_model_without_steps_has_a_ladder_too(izograf: Any, trained: Trained) -> None:
    outcome = izograf("bench", "class-to-image", "-m", trained("dcgan"), "--rounds", 2)
    assert outcome.code == 0, outcome.err
    assert "float32, torch\n" in outcome.out
    assert "levels away" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("text-to-speech",), "choose text-to-image or class-to-image"),
        (("text-to-image", "-m", "scenes"), "does not read prompts"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: tuple[str, ...], expected: str, refused: Any
) -> None:
    assert expected in refused("bench", *arguments)


def test_fast_takes_the_options_of_the_preset_under_those_given(
    izograf: Any, refused: Any, trained: Trained, here: Path
) -> None:
    model = trained("diffusion-unet")
    fast = read_card(model).fast
    assert fast
    draw = ("generate", "-m", model, "-c", "sea", *FP32, "-o")
    for name, given in {"fast.png": ("--fast",), "own.png": ("--fast", "--steps", 3)}.items():
        outcome = izograf(*draw, here / name, *given)
        assert outcome.code == 0, outcome.err
    read = {
        name: read_png(here / name)[1]["request"]["options"] for name in ("fast.png", "own.png")
    }
    assert {key: read["fast.png"][key] for key in fast} == fast
    assert read["own.png"]["num_inference_steps"] == 3
    assert "no fast preset" in refused("generate", "-m", trained("dcgan"), "--fast", "-o", "x.png")


def test_a_preset_that_the_options_do_not_allow_is_refused_with_the_card() -> None:
    card = ModelCard("m", "f", {}, 8, options=(STEPS,), fast={"num_inference_steps": 5})
    assert ModelCard.loads(card.dumps()).faster({"num_inference_steps": 7}) == {
        "num_inference_steps": 7
    }
    for fast in ({"num_inference_steps": 0}, {"steps": 3}, {"num_inference_steps": "x"}):
        wrong = card.dumps().replace('"num_inference_steps": 5', json.dumps(fast)[1:-1])
        with pytest.raises(CardError, match="fast preset"):
            ModelCard.loads(wrong)
    with pytest.raises(InvalidInput, match="no fast preset"):
        ModelCard("m", "f", {}, 8).faster({})


class Drawn:
    """A generator whose picture is as bright as its steps are few."""

    card = ModelCard(
        "m", "f", {}, 8, options=(STEPS, OptionSpec("sampler", "choice", "plms", choices=("plms",)))
    )

    def sample(self, condition: Condition, seeds: Any, *, options: Any, **_: Any) -> torch.Tensor:
        del condition
        return torch.full((len(seeds), 3, 2, 2), 1.0 / options.get("num_inference_steps", 18))


def test_every_rung_draws_once_a_round_and_is_measured_against_the_first() -> None:
    rungs = rungs_of(Drawn.card, fast_backend="eager")
    assert [rung.name for rung in rungs] == ["textbook", "bf16", "default"]
    told: list[tuple[int, int]] = []
    made = climb(
        lambda _: Drawn(),  # type: ignore[arg-type,return-value]
        rungs, lambda _: Condition(), rounds=2, on_progress=lambda *now: told.append(now),
    )  # fmt: skip
    assert told == [(n, 6) for n in range(1, 7)]
    assert all(len(each.seconds) == 2 for each in made)
    assert made[1].distance == 0
    assert made[2].distance == pytest.approx(127.5 * (1 / 18 - 1 / 50))
    assert distance(torch.ones(3), -torch.ones(3)) == 255
