"""`izograf evaluate`: the table, the JSON, the card, and what cannot be measured."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from izograf.data.dataset import load_images
from izograf.experiments import evaluation
from izograf.schema.library import read_card

QUICK = (
    "--extractor",
    "random-conv",
    "--num-samples",
    24,
    "--device",
    "cpu",
    "--precision",
    "fp32",
)


@pytest.fixture
def evaluate(izograf, here, gan, pictures):
    """evaluate(options...) of a copy of the tiny GAN on the pictures it was trained on."""
    del here

    def call(*options: object):
        return izograf("evaluate", gan, "--data", pictures, *QUICK, *options)

    return call


def test_the_table_names_every_score_in_full(evaluate) -> None:
    outcome = evaluate()
    assert outcome.code == 0, outcome.err
    assert "FD-random-conv" in outcome.out
    assert "KD-random-conv" in outcome.out
    assert "24 samples, 40 pictures" in outcome.out
    assert "…" not in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


def test_json_holds_what_a_score_needs_to_be_compared(evaluate) -> None:
    outcome = evaluate("--json", "--seed", 3)
    rows = json.loads(outcome.out)
    assert [row["name"] for row in rows] == ["FD-random-conv", "KD-random-conv"]
    for row in rows:
        assert (row["num_real"], row["num_fake"], row["seed"]) == (40, 24, 3)
        assert row["split"] == "two-16/train"
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
        assert row["floor"] < row["ceiling"]
        assert row["precision"] == "fp32"
    assert json.loads(evaluate("--json", "--seed", 3).out) == rows


def test_nothing_is_recorded_unasked(evaluate, gan) -> None:
    before = (gan / "card.json").read_bytes()
    assert evaluate().code == 0
    assert (gan / "card.json").read_bytes() == before


def test_recording_writes_the_card_and_replaces_scores_of_the_same_name(evaluate, gan) -> None:
    for seed in (1, 2):
        assert evaluate("--record", "--seed", seed).code == 0
    metrics = json.loads((gan / "card.json").read_text())["metrics"]
    assert [(m["name"], m["seed"]) for m in metrics] == [
        ("FD-random-conv", 2),
        ("KD-random-conv", 2),
    ]


def test_a_recorded_model_still_generates_and_lists_its_scores(
    evaluate, izograf, here, gan
) -> None:
    assert evaluate("--record").code == 0
    shutil.copytree(gan, here / "runs" / "mine")
    assert "FD-random-conv" in izograf("models").out
    assert izograf("generate", "-m", "mine", "-c", "sea", "-o", "x.png").code == 0


def test_a_judge_names_classes_where_it_knows_them(evaluate, trained) -> None:
    outcome = evaluate("--judge", trained("classifier"), "--json")
    assert outcome.code == 0, outcome.err
    row = json.loads(outcome.out)[-1]
    assert row["name"] == "class agreement"
    assert set(row["per_class"]) == {"forest", "sea"}
    assert row["num_fake"] == 24
    assert row["held_out_real"] > 0.9  # green and blue are not hard to tell apart
    text = evaluate("--judge", trained("classifier")).out
    assert "The judge names the asked class in" in text


def test_the_judge_is_also_an_extractor(evaluate, trained) -> None:
    judge = trained("classifier")
    outcome = evaluate("--extractor", "judge", "--judge", judge, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)[0]["name"] == "FD-judge"


def test_diffusion_options_reach_the_sampler_and_the_score(izograf, trained, pictures) -> None:
    model = trained("diffusion-unet")
    outcome = izograf(
        "evaluate", model, "--data", pictures, *QUICK, "--steps", 2, "--guidance", 1, "--json"
    )
    assert outcome.code == 0, outcome.err
    sampling = json.loads(outcome.out)[0]["sampling"]
    assert sampling == {"num_inference_steps": 2, "guidance_scale": 1.0}


def test_a_model_that_reads_prompts_is_asked_with_captions(izograf, trained, pictures) -> None:
    """Of the pictures it is compared with, in both languages; not for nothing in particular."""
    model, few = trained("text-to-image"), ("--steps", 2, "--json")
    outcome = izograf("evaluate", model, "--data", pictures, *QUICK, *few)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)[0]["asked"] == "captions of the training pictures"
    train = load_images([pictures], 16, split="train")
    prompts = evaluation.asked_prompts(read_card(model), train, 40, seed=0)
    assert prompts is not None
    russian = [any("а" <= letter <= "я" for letter in prompt.lower()) for prompt in prompts]
    assert russian == [False, True] * 20
    about_sea = [any(word in p.lower() for word in ("sea", "ocean", "мор", "океан", "вод", "water"))
                 for p in prompts]  # fmt: skip
    assert sum(about_sea[20:]) > 10 > sum(about_sea[:20])
    assert evaluation.asked_prompts(read_card(trained("dcgan")), train, 4, seed=0) is None


def test_the_fast_preset_can_be_measured(izograf, trained, pictures) -> None:
    model = trained("diffusion-unet")
    outcome = izograf(
        "evaluate", model, "--data", pictures, *QUICK, "--fast", "--steps", 2, "--json"
    )
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)[0]["sampling"] == {
        **read_card(model).fast, "num_inference_steps": 2,
    }  # fmt: skip


def write(folder, classes: dict[str, int]) -> None:
    for split in ("train", "test"):
        for name, count in classes.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((16, 16, 3), 10 * index, np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")


def test_other_classes_are_refused_before_anything_is_generated(refused, here, gan) -> None:
    write(here / "data", {"forest": 3, "glacier": 3})
    sentence = refused("evaluate", gan, "--data", "data", *QUICK)
    assert "does not know these classes of the data: glacier" in sentence


def test_some_of_the_classes_will_do(izograf, here, gan) -> None:
    write(here / "data", {"sea": 3, "forest": 3})
    shutil.rmtree(here / "data" / "train" / "forest")
    shutil.rmtree(here / "data" / "test" / "forest")
    (here / "data" / "train" / "sea" / "0.png").rename(here / "data" / "train" / "extra.png")
    outcome = izograf("evaluate", gan, "--data", "data", *QUICK)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_held_out_pictures_are_a_sentence(refused, here, gan, pictures, count) -> None:
    shutil.copytree(pictures / "train", here / "data" / "train")
    for index in range(count):
        (here / "data" / "test" / "sea").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(here / "data" / "test" / "sea" / f"{index}.png")
    sentence = refused("evaluate", gan, "--data", "data", *QUICK)
    assert "test" in sentence


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--num-samples", 3), "At least 4 samples"),
        (("--num-samples", 0), "Expected a positive number"),
        (("--num-samples", -5), "Expected a positive number"),
        (("--num-samples", "many"), "Expected a positive number"),
        (("--extractor", "oracle"), "Unknown extractor"),
        (("--extractor", "judge"), "Unknown model 'scenes-judge'"),
        (("--extractor", "squeezenet1.1"), "weights"),
        (("--judge", "nobody"), "Unknown model 'nobody'"),
        (("--steps", 3), "has no option"),
        (("--option", "truncation=9"), "truncation must be from 0 to 2"),
        (("--device", "quantum"), "not available"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused(refused, gan, pictures, options, expected) -> None:
    if options == ("--extractor", "judge") and _bundled_judge():
        pytest.skip("there is a bundled judge")
    assert expected in refused("evaluate", gan, "--data", pictures, *QUICK, *options)


def _bundled_judge() -> bool:
    from izograf.schema.library import CARD, ZOO

    return (ZOO / "scenes-judge" / CARD).is_file()


def test_a_generator_is_no_judge_and_a_judge_no_generator(refused, gan, trained, pictures) -> None:
    data = ("--data", pictures, *QUICK)
    assert "generates no pictures" in refused("evaluate", trained("classifier"), *data)
    sentence = refused("evaluate", gan, *data, "--judge", gan)
    assert "judge" in sentence


def test_weights_that_are_no_weights_are_refused(refused, here, gan, pictures) -> None:
    (here / "w.safetensors").write_bytes(b"no")
    (here / "w.pth").write_bytes(b"\x80\x02")
    data = ("--data", pictures, *QUICK, "--extractor", "squeezenet1.1")
    assert refused("evaluate", gan, *data, "--extractor-weights", "w.safetensors")
    assert "pickle" in refused("evaluate", gan, *data, "--extractor-weights", "w.pth")
    assert refused("evaluate", gan, *data, "--extractor-weights", "nowhere.safetensors")


def test_a_card_that_cannot_be_written_still_shows_the_numbers(evaluate, gan, monkeypatch) -> None:
    def refuse(path: object, content: object) -> None:
        del content
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("izograf.core.storage.write_atomically", refuse)
    outcome = evaluate("--record")
    assert outcome.code == 7
    assert "FD-random-conv" in outcome.out
    assert outcome.err.strip() == f"Error: {gan / 'card.json'}: Permission denied."
