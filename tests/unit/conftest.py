"""A tiny dataset, a tiny model of every family trained on it, and the command line in-process."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from izograf.cli.main import run

IMAGE_SIZE = 16
PLACED = ("--device", "cpu", "--precision", "fp32")
TRAIN = ("--image-size", IMAGE_SIZE, *PLACED, "--batch-size", 8)
TINY = {
    "diffusion-unet": (
        "width=16", "depth=1", "head_dim=16", "multipliers=1,2", "attention=4",
    ),
    "dcgan": ("width=8", "latent_dim=8", "class_dim=8"),
    "kl-autoencoder": ("width=8", "latent_channels=3"),
    "latent-diffusion": ("width=16", "depth=1", "head_dim=16"),
    "cvae": ("width=8", "latent_dim=8", "class_dim=8"),
    "classifier": ("width=16", "depth=1"),
    "upscaler": ("width=8", "depth=1", "crop=8"),
    "clip": (
        "width=32", "depth=1", "head_dim=16", "image_width=16", "image_depth=1", "embed_dim=16",
    ),
    "text-to-image": ("width=16", "depth=1", "head_dim=16"),
}  # fmt: skip
NEEDS = {"text-to-image": ("--text-encoder", "clip")}  # an option, and a recipe trained before
IMAGES = 64


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    code: int
    out: str
    err: str


Izograf = Callable[..., Outcome]
Refused = Callable[..., str]
Train = Callable[..., Outcome]


@pytest.fixture(scope="session")
def izograf() -> Izograf:
    """izograf("generate", "-m", folder, ...) -> Outcome, in this process."""

    def call(*arguments: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = run([str(argument) for argument in arguments])
        return Outcome(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that ./runs is not the developer's."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(izograf: Izograf, here: Path) -> Refused:
    """refused(arguments...) -> the one sentence, after checking how a refusal must look."""

    def call(*arguments: object) -> str:
        before = _everything(here)
        outcome = izograf(*arguments)
        errors = [line for line in outcome.err.splitlines() if line.startswith("Error: ")]
        assert outcome.code != 0, outcome
        assert len(errors) == 1, outcome.err
        assert outcome.err.rstrip().endswith(errors[0]), outcome.err
        assert "Traceback" not in outcome.err
        assert errors[0].endswith((".", "?")), errors[0]
        assert _everything(here) == before, "a refused command wrote something"
        return errors[0].removeprefix("Error: ")

    return call


def _everything(folder: Path) -> dict[str, tuple[int, int]]:
    files = {str(p): p.stat() for p in folder.rglob("*") if p.exists()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in files.items()}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Greenish forests and bluish seas, 20 of each to train on and 8 to test."""
    folder = tmp_path_factory.mktemp("data") / "two"
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 8)):
        for channel, name in ((1, "forest"), (2, "sea")):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def train(izograf: Izograf, pictures: Path) -> Train:
    """train(recipe, folder, options...) -> Outcome of a tiny run in that folder."""

    def call(recipe: str, out: Path, *options: object) -> Outcome:
        settings = [word for setting in TINY[recipe] for word in ("--set", setting)]
        return izograf(
            "train", recipe, "--data", pictures, "--out", out, *TRAIN, *settings, *options
        )

    return call


@pytest.fixture(scope="session")
def trained(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """trained(recipe) -> the folder of its tiny run, made once and not to be changed."""
    folders: dict[str, Path] = {}

    def call(recipe: str) -> Path:
        if recipe not in folders:
            folder = tmp_path_factory.mktemp("runs") / recipe
            intervals = ("--log-every", 16, "--checkpoint-every", 16, "--sample-every", 32)
            option, other = NEEDS.get(recipe, ("", ""))
            needed = (option, call(other), "--sample-every", IMAGES) if other else ()
            outcome = train(
                recipe, folder, "--images", IMAGES, *intervals, "--evaluate-every", 32, *needed,
                "--licence", "CC0-1.0", "--learning-rate", 0.01,
            )  # fmt: skip
            assert outcome.code == 0, outcome.err
            folders[recipe] = folder
        return folders[recipe]

    return call


@pytest.fixture(scope="session", params=["diffusion-unet", "dcgan", "cvae"])
def model(request: pytest.FixtureRequest, trained: Callable[[str], Path]) -> Path:
    """The folder of a tiny model, of every family in turn; not to be changed."""
    return trained(request.param)


@pytest.fixture
def own_model(model: Path, tmp_path: Path) -> Path:
    """A copy of `model` to damage."""
    folder = tmp_path / "models" / model.name
    folder.mkdir(parents=True)
    for name in ("card.json", "weights.safetensors"):
        shutil.copy(model / name, folder / name)
    return folder


@pytest.fixture
def gan(trained: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the fast tiny model to use or damage."""
    folder = tmp_path / "models" / "gan"
    folder.mkdir(parents=True)
    for name in ("card.json", "weights.safetensors"):
        shutil.copy(trained("dcgan") / name, folder / name)
    return folder
