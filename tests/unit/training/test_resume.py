"""Killed, interrupted or out of space: the same command with --resume ends in the same model."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from izograf.core.storage import file_sha256
from izograf.objectives.adversarial import AdversarialObjective
from izograf.objectives.denoising import DenoisingObjective
from izograf.training.run import _RunWatcher

FAMILIES = ["diffusion-unet", "dcgan"]
INTERVALS = ("--log-every", 8, "--checkpoint-every", 16, "--evaluate-every", 48)
OPTIONS = ("--images", 320, *INTERVALS, "--sample-every", "1k")
EARLY = {"diffusion-unet": ("--early-snapshot", 0.06), "dcgan": ()}  # at 24, after a checkpoint


def model_hash(folder: Path) -> str:
    return file_sha256(folder / "weights.safetensors")


def counts(folder: Path) -> list[int]:
    return sorted(int(p.name.split("-")[1]) for p in (folder / "checkpoints").glob("images-*"))


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """whole(recipe) -> the run with OPTIONS and EARLY that nothing interrupted."""
    folders: dict[str, Path] = {}

    def call(recipe: str) -> Path:
        if recipe not in folders:
            folders[recipe] = tmp_path_factory.mktemp("whole") / "run"
            outcome = train(recipe, folders[recipe], *OPTIONS, *EARLY[recipe])
            assert outcome.code == 0, outcome.err
        return folders[recipe]

    return call


@pytest.fixture
def interrupt_at(monkeypatch):
    """interrupt_at(count) -> SIGINT arrives at the step that reaches `count` images, once."""

    def arm(count: int) -> None:
        original = _RunWatcher.__call__
        fired = []

        def watch(self, state, stats) -> None:
            if state.images_seen >= count and not fired:
                fired.append(state.images_seen)
                signal.raise_signal(signal.SIGINT)
            original(self, state, stats)

        monkeypatch.setattr(_RunWatcher, "__call__", watch)

    return arm


@pytest.mark.parametrize("recipe", FAMILIES)
def test_a_killed_run_resumes_to_the_same_weights_bit_by_bit(
    recipe, train, whole, tmp_path, pictures
) -> None:
    reference = whole(recipe)
    folder = tmp_path / reference.name
    asked = json.loads((reference / "run.json").read_text())
    command = [
        "train", recipe, "--data", pictures, "--out", folder, "--image-size", 16,
        "--device", "cpu", "--precision", "fp32", "--batch-size", 8,
        *(word for s in asked["hyperparameters"]["settings"] for word in ("--set", s)),
        *OPTIONS, *EARLY[recipe],
    ]  # fmt: skip
    program = "import sys; from izograf.cli.main import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, command)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not list(folder.glob("checkpoints/images-*")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    reached = counts(folder)[-1]
    assert reached < 320, "it was killed too late to show anything"

    outcome = train(recipe, folder, *OPTIONS, *EARLY[recipe], "--resume")
    assert outcome.code == 0, outcome.err
    assert model_hash(folder) == model_hash(reference)
    weights = [
        json.loads((run / "card.json").read_text())["weights"] for run in (folder, reference)
    ]
    assert weights[0] == weights[1]
    assert ("guide.safetensors" in weights[0]) is (recipe == "diffusion-unet")
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [entry["images_seen"] for entry in logged if any("loss" in k for k in entry)]
    expected = [json.loads(line) for line in (reference / "log.jsonl").read_text().splitlines()]
    assert losses == [e["images_seen"] for e in expected if any("loss" in k for k in e)]


@pytest.mark.parametrize("recipe", FAMILIES)
def test_ctrl_c_saves_and_says_how_to_go_on(recipe, train, whole, tmp_path, interrupt_at) -> None:
    interrupt_at(100)
    folder = tmp_path / "run"
    outcome = train(recipe, folder, *OPTIONS)
    assert outcome.code == 130
    assert "run the same command with --resume" in outcome.err
    assert "Traceback" not in outcome.err
    assert counts(folder)[-1] == 104
    card = json.loads((folder / "card.json").read_text())
    assert card["recipe"]["images_seen"] == 104

    assert train(recipe, folder, *OPTIONS, "--resume").code == 0
    assert model_hash(folder) == model_hash(whole(recipe))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("recipe", FAMILIES)
def test_every_optimiser_resumes_exactly(recipe, optimizer, train, tmp_path, interrupt_at) -> None:
    options = ("--images", 64, "--optimizer", optimizer, "--sample-every", "1k")
    assert train(recipe, tmp_path / "a" / "run", *options).code == 0
    interrupt_at(32)
    assert train(recipe, tmp_path / "b" / "run", *options).code == 130
    assert train(recipe, tmp_path / "b" / "run", *options, "--resume").code == 0
    assert model_hash(tmp_path / "b" / "run") == model_hash(tmp_path / "a" / "run")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--learning-rate", 0.5), "learning_rate: was None, now 0.5"),
        (("--seed", 1), "seed: was 0, now 1"),
        (("--images", 400), "images: was 320, now 400"),
        (("--set", "dropout=0.1"), "settings: was "),
        (("--licence", "CC0"), "licence: was 'not stated', now 'CC0'"),
        (("--early-snapshot", 0.1), "early_snapshot: was 0.06, now 0.1"),
    ],
)
def test_resuming_with_other_settings_is_refused_by_name(whole, train, options, named) -> None:
    folder = whole("diffusion-unet")
    before = model_hash(folder)
    outcome = train(
        "diffusion-unet", folder, *OPTIONS, *EARLY["diffusion-unet"], *options, "--resume"
    )
    assert outcome.code == 2
    assert named in outcome.err
    assert model_hash(folder) == before


def test_resuming_another_recipe_or_other_data_is_refused(whole, refused, pictures) -> None:
    folder = whole("dcgan")
    sentence = refused("train", "classifier", "--data", pictures, "--out", folder, "--resume")
    assert "recipe: was 'dcgan', now 'classifier'" in sentence


def test_resuming_a_finished_run_changes_nothing(whole, train, tmp_path) -> None:
    folder = shutil.copytree(whole("dcgan"), tmp_path / "run")
    before, card = model_hash(folder), json.loads((folder / "card.json").read_text())
    outcome = train("dcgan", folder, *OPTIONS, "--resume")
    assert outcome.code == 0, outcome.err
    assert model_hash(folder) == before
    after = json.loads((folder / "card.json").read_text())
    assert after["recipe"]["evaluated"]["kid"] == pytest.approx(card["recipe"]["evaluated"]["kid"])


@pytest.mark.parametrize("recipe", FAMILIES)
def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    recipe, train, tmp_path, monkeypatch
) -> None:
    objective = DenoisingObjective if recipe == "diffusion-unet" else AdversarialObjective
    name = "_loss" if recipe == "diffusion-unet" else "_generator_loss"
    original, calls = getattr(objective, name), []

    def spoiled(self, batch, rng):
        loss, stats = original(self, batch, rng)
        calls.append(1)
        return (loss * torch.nan if len(calls) == 10 else loss), stats

    monkeypatch.setattr(objective, name, spoiled)
    folder = tmp_path / "run"
    options = ("--images", 96, *INTERVALS, "--sample-every", "1k")
    outcome = train(recipe, folder, *options)
    assert outcome.code == 8
    (sentence,) = [line for line in outcome.err.splitlines() if line.startswith("Error: ")]
    assert "Training diverged after 80 images" in sentence
    assert str(folder / "checkpoints" / "images-000000000064") in sentence
    assert "lower learning rate" in sentence
    assert "Traceback" not in outcome.err
    monkeypatch.undo()
    assert train(recipe, folder, *options, "--resume").code == 0


def test_an_absurd_learning_rate_is_called_divergence(train, tmp_path) -> None:
    options = ("--optimizer", "sgd", "--learning-rate", 9.9, "--gradient-clip", 0)
    outcome = train("diffusion-unet", tmp_path / "run", *OPTIONS, *options, "--warmup", 0)
    assert outcome.code == 8, outcome.err
    assert "Training diverged" in outcome.err


def test_a_write_the_system_refuses_leaves_the_earlier_checkpoint_unharmed(
    train, whole, tmp_path, interrupt_at
) -> None:
    folder = tmp_path / "run"
    interrupt_at(40)
    assert train("diffusion-unet", folder, *OPTIONS).code == 130
    kept = counts(folder)
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # less than a checkpoint
    try:
        outcome = train("diffusion-unet", folder, *OPTIONS, "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert outcome.code == 7
    (sentence,) = [line for line in outcome.err.splitlines() if line.startswith("Error: ")]
    assert "Cannot write" in sentence
    assert "Traceback" not in outcome.err
    assert counts(folder) == kept
    assert train("diffusion-unet", folder, *OPTIONS, "--resume").code == 0
    assert model_hash(folder) == model_hash(whole("diffusion-unet"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence_that_says_what_to_do(train, tmp_path, interrupt_at) -> None:
    folder = tmp_path / "run"
    options = ("--images", 64, "--checkpoint-every", 16, "--sample-every", 32)
    interrupt_at(16)
    assert train("dcgan", folder, *options).code == 130
    (folder / "samples").mkdir()
    (folder / "samples" / "000000000032.png").symlink_to("/dev/full")
    outcome = train("dcgan", folder, *options, "--resume")
    assert outcome.code == 7
    (sentence,) = [line for line in outcome.err.splitlines() if line.startswith("Error: ")]
    assert "The disk is full" in sentence
    assert "free some space and run the same command again" in sentence
    assert counts(folder) == [16]
