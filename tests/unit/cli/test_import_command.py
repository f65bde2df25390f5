"""`izograf import`: a checkpoint becomes one of your models, and draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers", reason="the extra stable-diffusion is not installed")
pytest.importorskip("transformers", reason="the extra stable-diffusion is not installed")

from izograf.engine.worker import _expected_bytes
from izograf.generators.registry import weight_files
from izograf.generators.stable_diffusion import hub
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.library import find_model, list_models, read_card
from stable_diffusion_support import saved

PLACED = ("--device", "cpu", "--precision", "fp32", "--backend", "eager")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd")
    saved("1", folder)
    return folder / "checkpoint"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IZOGRAF_MODELS", str(tmp_path / "library"))
    return tmp_path / "library"


def test_an_imported_checkpoint_is_listed_and_draws(
    izograf: Any, checkpoint: Path, library: Path, here: Path
) -> None:
    done = izograf("import", checkpoint, "--name", "Tiny SD", "--json")
    assert done.code == 0, done.err
    (made,) = json.loads(done.out)
    assert made["name"] == "tiny-sd"
    assert Path(made["folder"]) == library / "tiny-sd"
    assert [path.name for path in (library / "tiny-sd").iterdir()] == ["card.json"]
    assert "tiny-sd" in {model.name for model in list_models()}
    card = read_card(find_model("tiny-sd"))
    assert set(card.weights) == {
        "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }  # fmt: skip
    drawn = izograf(
        "generate", "a dog eats a carrot", "-m", "tiny-sd", "--negative", "cat", "--steps", 2,
        "-o", here / "dog.png", *PLACED,
    )  # fmt: skip
    assert drawn.code == 0, drawn.err
    verified = izograf("verify", here / "dog.png")
    assert "bit-exact" in verified.out, verified.out + verified.err
    again = izograf("import", checkpoint, "--name", "tiny-sd")
    assert again.code == 11
    assert "choose another --name, or add --overwrite" in again.err
    assert izograf("import", checkpoint, "--name", "tiny-sd", "--overwrite").code == 0


def test_the_files_of_a_checkpoint_are_counted_where_they_lie(
    izograf: Any, checkpoint: Path, library: Path
) -> None:
    """By what is expected to be loaded a worker makes room for it."""
    assert izograf("import", checkpoint, "--name", "tiny-sd").code == 0
    folder = find_model("tiny-sd")
    files = weight_files(folder, read_card(folder))
    assert len(files) == 3
    assert all(file.is_relative_to(checkpoint) for file in files)
    assert _expected_bytes(folder) == 2 * sum(file.stat().st_size for file in files) > 0
    assert library.is_dir()


def test_a_folder_draws_without_being_imported(
    izograf: Any, checkpoint: Path, library: Path, here: Path
) -> None:
    drawn = izograf(
        "generate", "the sea", "-m", checkpoint, "--steps", 2, "-o", here / "sea.png", *PLACED
    )
    assert drawn.code == 0, drawn.err
    assert (here / "sea.png").is_file()
    assert not library.exists()


def test_one_file_needs_a_folder_with_its_tokenizer(
    izograf: Any, checkpoint: Path, library: Path
) -> None:
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    done = izograf("import", weights)
    assert done.code == 3
    assert "no tokenizer and no configuration: add --config FOLDER" in done.err
    assert not library.exists()


class Hub:
    """huggingface_hub with one checkpoint, or without a network."""

    def __init__(self, folder: Path, failure: Exception | None = None) -> None:
        self.folder, self.failure = folder, failure
        self.patterns: list[str] = []

    def HfApi(self) -> Hub:  # noqa: N802
        return self

    def list_repo_files(self, name: str) -> list[str]:
        assert name == "owner/tiny-v1"
        if self.failure is not None:
            raise self.failure
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [*(path.relative_to(self.folder).as_posix() for path in files), "v1.ckpt"]

    def snapshot_download(self, name: str, *, allow_patterns: list[str]) -> str:
        del name
        self.patterns = allow_patterns
        return str(self.folder)


def use(fake: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hub.required
    monkeypatch.setattr(
        hub, "required", lambda name: fake if name == "huggingface_hub" else real(name)
    )


def test_a_name_of_the_hub_is_downloaded_and_said(
    izograf: Any, checkpoint: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Hub(checkpoint)
    use(fake, monkeypatch)
    done = izograf("import", "owner/tiny-v1")
    assert done.code == 0, done.err
    assert "Downloading owner/tiny-v1" in done.err
    assert (library / "tiny-v1" / "card.json").is_file()
    assert "unet/diffusion_pytorch_model.safetensors" in fake.patterns
    assert not any(pattern.endswith((".ckpt", ".bin")) for pattern in fake.patterns)


def test_no_network_is_one_helpful_sentence(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    import httpx

    use(Hub(here, httpx.ConnectError("Name or service not known")), monkeypatch)
    with pytest.raises(InvalidInput, match=r"owner/tiny-v1 could not be downloaded .*network"):
        hub.download("owner/tiny-v1")


def test_what_the_hub_does_not_have_is_not_found(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    import httpx
    from huggingface_hub.errors import RepositoryNotFoundError

    answer = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))
    use(Hub(here, RepositoryNotFoundError("404", response=answer)), monkeypatch)
    with pytest.raises(NotFound, match="The hub has no checkpoint owner/tiny-v1"):
        hub.download("owner/tiny-v1")


def test_only_what_is_needed_is_downloaded() -> None:
    files = [
        "model_index.json", "README.md", "v1-5.safetensors", "v1-5.ckpt",
        "unet/config.json", "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin",
        "vae/diffusion_pytorch_model-00001-of-00002.safetensors", "tokenizer/vocab.json",
        "tokenizer/merges.txt",
    ]  # fmt: skip
    assert set(hub.wanted(files)) == {
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.fp16.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt",
        "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "named"), [("owner/model", True), ("./sd-v1-4", False), ("a/b/c", False)]
)
def test_a_name_of_the_hub_is_told_from_a_path(
    text: str, named: bool, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    assert hub.is_hub_name(text) is named
    (here / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert not hub.is_hub_name("owner/model")


def test_a_checkpoint_repaints_a_photograph_where_the_mask_says(
    izograf: Any, checkpoint: Path, here: Path
) -> None:
    Image.new("RGB", (48, 40), "red").save("photo.png")
    mask = Image.new("L", (48, 40))
    mask.paste(255, (0, 0, 48, 20))
    mask.save("mask.png")
    asked = ("edit", "photo.png", "a boat", "-m", checkpoint, "--mask", "mask.png", "--steps", 2,
             "--strength", 1, "-o", "boat.png", *PLACED)  # fmt: skip
    done = izograf(*asked)
    assert done.code == 0, done.err
    with Image.open(here / "boat.png") as made:
        pixels = np.asarray(made.convert("RGB"))
    half = len(pixels) // 2
    assert (pixels[half:] == (255, 0, 0)).all()
    assert (pixels[: half - 1] != (255, 0, 0)).any()
    again = izograf("verify", "boat.png", "--original", "photo.png", "--mask", "mask.png")
    assert again.code == 0, again.out
