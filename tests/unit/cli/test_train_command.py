"""`izograf train`: what a run leaves in its folder, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from izograf.cli.verbs.train import NEXT
from izograf.schema.library import read_card

RECIPES = ["diffusion-unet", "dcgan", "classifier"]


@pytest.fixture(scope="session", params=RECIPES)
def run_folder(request, trained) -> Path:
    return trained(request.param)


def card_of(folder: Path) -> dict:
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))


def log_of(folder: Path) -> list[dict]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def test_a_run_logs_at_its_intervals(run_folder) -> None:
    logged = [line for line in log_of(run_folder) if any(k.endswith("/loss") for k in line)]
    assert [line["images_seen"] for line in logged] == [16, 32, 48, 64]
    seconds = [line["seconds"] for line in logged]
    assert seconds == sorted(seconds)
    assert logged[-1]["images_per_second"] > 0


@pytest.mark.parametrize(
    ("recipe", "hint"),
    [("classifier", "izograf evaluate MODEL --data DATA --judge {out}"),
     ("upscaler", "izograf upscale PICTURE --model {out} -o large.png"),
     ("dcgan", "izograf generate --model {out}")],
)  # fmt: skip
def test_what_a_finished_model_is_for_is_said(train, tmp_path, recipe, hint) -> None:
    outcome = train(recipe, tmp_path / "run", "--images", 8)
    assert outcome.out.strip().endswith("try: " + hint.format(out=tmp_path / "run"))


def test_every_task_of_a_card_has_its_hint(trained) -> None:
    tasks = {read_card(trained(recipe)).task for recipe in RECIPES}
    assert {*tasks, "upscale", "autoencode", "rank"} == set(NEXT)


def test_a_run_evaluates_on_held_out_pictures(run_folder) -> None:
    names = {"diffusion-unet": "validation_loss", "dcgan": "kid", "classifier": "validation_error"}
    name = names[run_folder.name]
    scored = [line["images_seen"] for line in log_of(run_folder) if name in line]
    assert scored == [32, 64]
    assert name in card_of(run_folder)["recipe"]["evaluated"]


def test_a_run_keeps_the_newest_checkpoints_and_the_best(run_folder) -> None:
    kept = {int(path.name.split("-")[1]) for path in (run_folder / "checkpoints").iterdir()}
    states = [json.loads(p.read_text()) for p in run_folder.glob("checkpoints/*/state.json")]
    newest = max(states, key=lambda state: state["images_seen"])
    assert kept == {48, 64} | {newest["extra"]["best_images"]}


def test_a_run_draws_a_sheet_at_its_intervals(trained) -> None:
    for recipe in ("diffusion-unet", "dcgan"):
        sheets = sorted((trained(recipe) / "samples").iterdir())
        assert [path.name for path in sheets] == ["000000000032.png", "000000000064.png"]
        with Image.open(sheets[0]) as sheet:
            assert sheet.width > 6 * 16
            assert sheet.height > 2 * 16


def test_the_card_tells_how_the_model_came_to_be(run_folder) -> None:
    card = card_of(run_folder)
    assert card["name"] == run_folder.name
    assert card["image_size"] == 16
    assert [label["name"] for label in card["classes"]] == ["forest", "sea"]
    assert "лес" in card["classes"][0]["forms"]["ru"]
    assert card["data"] == {
        "name": "two", "licence": "CC0-1.0", "num_train": 40, "num_held_out": 16,
        "resize": card["data"]["resize"],
    }  # fmt: skip
    recipe = card["recipe"]
    assert recipe["name"] == run_folder.name
    assert recipe["paper"]
    assert recipe["images_seen"] == 64
    assert recipe["seconds"] > 0
    assert recipe["hyperparameters"]["batch_size"] == 8
    assert recipe["hyperparameters"]["learning_rate"] > 0
    assert {"device", "precision", "processor", "torch"} <= set(recipe["machine"])


def test_settings_land_on_the_card(run_folder) -> None:
    config = card_of(run_folder)["network"]["config"]
    width = {"diffusion-unet": 16, "dcgan": 8, "classifier": 16}[run_folder.name]
    assert config["width"] == width
    assert config["image_size"] == 16
    assert config["num_classes"] == 2


def test_a_model_may_be_read_by_whoever_may_read_its_card(run_folder) -> None:
    modes = {(run_folder / name).stat().st_mode for name in ("card.json", "weights.safetensors")}
    assert len(modes) == 1


def test_no_recipe_takes_the_recommended_one_and_says_why(izograf, pictures) -> None:
    # an impossible picture size ends it right after the choice was announced
    outcome = izograf("train", "--data", pictures, "--out", "x", "--image-size", 13)
    first = outcome.err.splitlines()[0]
    assert first.startswith("No recipe named: taking diffusion-unet, ")
    assert "best pictures" in first
    assert "image_size must be a multiple of" in outcome.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [(("--dropout", 0.25), 0.25), (("--set", "dropout=0.5"), 0.5)],
)
def test_dropout_goes_through_its_option_and_through_set(
    train, tmp_path, options, expected
) -> None:
    outcome = train("diffusion-unet", tmp_path / "run", "--images", 8, *options)
    assert outcome.code == 0, outcome.err
    assert card_of(tmp_path / "run")["network"]["config"]["dropout"] == expected


def test_any_field_of_the_network_can_be_set(train, tmp_path) -> None:
    options = ("--set", "activation=leaky_relu", "--set", "depth=2", "--name", "mine")
    outcome = train("dcgan", tmp_path / "run", "--images", 8, *options)
    assert outcome.code == 0, outcome.err
    card = card_of(tmp_path / "run")
    assert card["network"]["config"]["activation"] == "leaky_relu"
    assert card["network"]["config"]["depth"] == 2
    assert card["name"] == "mine"


def test_l1_pushes_weights_towards_zero(train, tmp_path) -> None:
    def size(folder: Path, *options: object) -> float:
        outcome = train(
            "classifier", folder, "--images", 160, "--ema-share", 0, "--weight-decay", 0,
            "--evaluate-every", "1k", "--gradient-clip", 0, *options,
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        weights = load_file(folder / "weights.safetensors")
        return sum(float(w.float().abs().sum()) for w in weights.values() if w.ndim > 1)

    assert size(tmp_path / "l1", "--l1", 0.1) < 0.8 * size(tmp_path / "plain")


def test_early_stopping_ends_after_patience_evaluations(train, tmp_path) -> None:
    options = ("--learning-rate", 1e-12, "--evaluate-every", 8, "--ema-share", 0)
    outcome = train("classifier", tmp_path / "run", "--images", 800, "--patience", 3, *options)
    assert outcome.code == 0, outcome.err
    assert "has not improved for 3 evaluations (best " in outcome.out
    scored = [line["images_seen"] for line in log_of(tmp_path / "run")]
    assert scored[-1] == 32
    assert (tmp_path / "run" / "checkpoints" / "images-000000000008").is_dir()


def test_tensorboard_logs_beside_the_run(train, tmp_path) -> None:
    pytest.importorskip("tensorboard")
    outcome = train("dcgan", tmp_path / "run", "--images", 16, "--log-every", 8, "--tensorboard")
    assert outcome.code == 0, outcome.err
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"discriminator/loss" in events.read_bytes()


def test_pictures_without_classes_make_an_unconditional_model(izograf, here, pictures) -> None:
    data = shutil.copytree(pictures / "train" / "sea", here / "sea")
    outcome = izograf(
        "train", "dcgan", "--data", data, "--out", "run", "--image-size", 16, "--images", 16,
        "--batch-size", 8, "--set", "width=8", "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "cannot be conditioned on classes" in outcome.err
    assert card_of(here / "run")["classes"] == []
    assert izograf("generate", "-m", "run", "-o", "out").code == 0
    assert (here / "out" / "image-0.png").is_file()


def test_one_class_is_refused_with_both_ways_out(izograf, here, pictures) -> None:
    for split in ("train", "test"):
        shutil.copytree(pictures / split / "sea", here / "data" / split / "sea")
    outcome = izograf("train", "dcgan", "--data", "data", "--out", "run", "--image-size", 16)
    assert outcome.code != 0
    assert "There is one class only, sea" in outcome.err
    assert "add classes, or leave out the class folder" in outcome.err
    assert not (here / "run").exists()


def test_spaces_and_russian_letters_in_paths_are_fine(izograf, here, pictures) -> None:
    data = shutil.copytree(pictures, here / "мои фото")
    outcome = izograf(
        "train", "dcgan", "--data", data, "--out", "мой прогон/один", "--image-size", 16,
        "--images", 8, "--batch-size", 8, "--set", "width=8", "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert card_of(here / "мой прогон" / "один")["name"] == "один"
    assert izograf("generate", "-m", "мой прогон/один", "-c", "МОРЕ", "-o", "a b").code == 0
    assert (here / "a b" / "sea-0.png").is_file()


def test_one_picture_is_too_few(refused, here) -> None:
    for name in ("train/a", "test/a"):
        (here / "data" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(here / "data" / name / "1.png")
    sentence = refused("train", "--data", "data", "--out", "run", "--image-size", 16)
    assert "one picture" in sentence


def test_a_judge_needs_two_classes(refused, pictures) -> None:
    data = pictures / "train" / "sea"
    sentence = refused("train", "classifier", "--data", data, "--out", "run", "--image-size", 16)
    assert "at least two classes" in sentence


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("image_size", [1, 2, 7, 13])
def test_a_picture_size_the_network_cannot_have_is_refused(
    refused, pictures, recipe, image_size
) -> None:
    sentence = refused(
        "train", recipe, "--data", pictures, "--out", "run", "--image-size", image_size
    )
    assert "image_size must be" in sentence


def test_an_unknown_objective_is_refused_before_the_data_is_read(refused) -> None:
    sentence = refused(
        "train", "dcgan", "--data", "nowhere.zip", "--out", "run", "--objective", "hing"
    )
    assert "Unknown objective of dcgan 'hing'" in sentence
    assert sentence.endswith("Did you mean hinge?")


def test_ctrl_c_saves_says_how_to_go_on_and_nothing_else(pictures, tmp_path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "izograf", "train", "dcgan", "--data", pictures, "--out", out,
        "--image-size", 16, "--device", "cpu", "--precision", "fp32", "--batch-size", 8,
        *("--set", "width=8", "--set", "latent_dim=8", "--set", "class_dim=8"),
        *("--images", "1M", "--log-every", 8),
    ]  # fmt: skip
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (out / "log.jsonl").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "the run never logged a step"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.endswith("To go on exactly here, run the same command with --resume.\n")
    assert "Interrupted" not in err
    assert "Traceback" not in err
    assert (out / "card.json").is_file()


def test_two_runs_do_not_share_a_folder(refused, here, trained) -> None:
    run = shutil.copytree(trained("dcgan"), here / "run")
    sentence = refused("train", "dcgan", "--data", "anything", "--out", run)
    assert "is not empty" in sentence
    assert "--resume" in sentence


def test_a_run_is_not_started_over_foreign_files(refused, here, pictures) -> None:
    (here / "thesis").mkdir()
    (here / "thesis" / "final.txt").write_text("years of work")
    assert "not empty" in refused("train", "dcgan", "--data", pictures, "--out", "thesis")
    (here / "file").write_text("text")
    assert "file" in refused("train", "dcgan", "--data", pictures, "--out", "file")


def test_out_below_a_file_cannot_be_written(izograf, here, pictures) -> None:
    (here / "file").write_text("text")
    outcome = izograf(
        "train", "dcgan", "--data", pictures, "--out", "file/run", "--image-size", 16,
        "--images", 8, "--set", "width=8", "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == 7
    assert "Error: Cannot write" in outcome.err
