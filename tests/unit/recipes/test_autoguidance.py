"""Autoguidance from the command line: an early snapshot is kept, exported, loaded and used."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from izograf.checkpoints.files import GUIDE, WEIGHTS, read_guide, read_weights
from izograf.checkpoints.load import load_generator
from izograf.core.backends import BACKENDS
from izograf.core.storage import file_sha256
from izograf.core.types import Condition
from izograf.generators.diffusion import DiffusionGenerator
from izograf.recipes.registry import RECIPES, Hyperparameters
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.library import read_card

ROOT = Path(__file__).resolve().parents[3]
FAST = (
    "--images", 64, "--log-every", 32, "--checkpoint-every", 64, "--evaluate-every", 64,
    "--sample-every", 64, "--learning-rate", 0.01, "--early-snapshot", 0.3,
)  # fmt: skip
CONDITION = Condition(class_ids=torch.tensor([0, 1]))
STRONG = {"autoguidance_scale": 3.0, "guidance_scale": 1.0, "num_inference_steps": 3}
PLAIN = {**STRONG, "autoguidance_scale": 1.0}


@pytest.fixture(scope="module")
def guided(train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a guide of 24 images; not to be changed."""
    folder = tmp_path_factory.mktemp("guided") / "run"
    outcome = train("diffusion-unet", folder, *FAST)
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def own(guided: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("card.json", WEIGHTS, GUIDE):
        shutil.copy(guided / name, folder / name)
    return folder


def loaded(folder: Path, **place: str) -> DiffusionGenerator:
    model, _ = load_generator(str(folder), **{"device": "cpu", "precision": "fp32", **place})
    assert isinstance(model, DiffusionGenerator)
    return model


def options_of(card: ModelCard) -> dict[str, Any]:
    return {option.name: option for option in card.options}


def test_the_card_names_the_guide_and_offers_it(guided: Path) -> None:
    card = read_card(guided)
    assert card.weights == {name: file_sha256(guided / name) for name in (WEIGHTS, GUIDE)}
    assert card.sampling["guide"] == {"images_seen": 24}
    assert card.recipe["hyperparameters"]["early_snapshot"] == 0.3
    assert "early_snapshot" not in card.recipe
    option = options_of(card)["autoguidance_scale"]
    assert (option.default, option.minimum) == (1, 1)


def test_the_guide_is_an_earlier_state_of_the_same_network_in_half_precision(guided: Path) -> None:
    own, guide = (load_file(guided / name) for name in (WEIGHTS, GUIDE))
    assert {key: value.shape for key, value in own.items()} == {
        key: value.shape for key, value in guide.items()
    }
    assert {value.dtype for value in guide.values() if value.is_floating_point()} == {torch.float16}
    assert any(not torch.equal(own[key], guide[key]) for key in own)
    card = read_card(guided)
    read = read_weights(guided, card)
    assert all(torch.equal(read[key], own[key].float()) for key in own), "not mixed with the guide"
    assert all(
        torch.equal(value, guide[key].float()) for key, value in read_guide(guided, card).items()
    )


def test_the_guide_changes_pictures_and_is_read_only_when_it_does(guided: Path) -> None:
    model = loaded(guided)
    plain = model.sample(CONDITION, [1, 2], options=PLAIN)
    assert model._guide is None, "memory was spent for nothing"
    strong = model.sample(CONDITION, [1, 2], options=STRONG)
    assert float((plain - strong).abs().mean()) > 1e-3
    below = {**STRONG, "guidance_high": 0.01}
    torch.testing.assert_close(model.sample(CONDITION, [1, 2], options=below), plain)
    assert torch.equal(model.sample(CONDITION, [1, 2], options=STRONG), strong)


@pytest.mark.parametrize("backend", ["eager", "openvino"])
def test_the_guide_is_computed_by_the_same_backend(guided: Path, backend: str) -> None:
    if BACKENDS[backend].missing():
        pytest.skip(BACKENDS[backend].missing())
    model = loaded(guided, backend=backend)
    found = model.sample(CONDITION, [1, 2], options=STRONG)
    assert type(model.guide.network) is type(model.denoiser.network)
    expected = loaded(guided, backend="eager").sample(CONDITION, [1, 2], options=STRONG)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_two_kinds_of_guidance_at_once_are_refused(guided: Path) -> None:
    with pytest.raises(InvalidInput, match=r"one kind of guidance, .* 3 and guidance_scale 2"):
        loaded(guided).sample(CONDITION, [1, 2], options={**STRONG, "guidance_scale": 2.0})


def test_a_damaged_guide_spoils_only_pictures_that_need_it(own: Path) -> None:
    content = bytearray((own / GUIDE).read_bytes())
    content[-1] ^= 1
    (own / GUIDE).write_bytes(content)
    model = loaded(own)
    model.sample(CONDITION, [1, 2], options=PLAIN)
    with pytest.raises(CardError, match="sha256 differs"):
        model.sample(CONDITION, [1, 2], options=STRONG)


def test_a_missing_guide_is_noticed_at_once(own: Path) -> None:
    (own / GUIDE).unlink()
    with pytest.raises(CardError, match=rf"{GUIDE} is missing"):
        loaded(own)


def test_a_card_that_offers_what_it_does_not_have_is_refused(own: Path) -> None:
    card = read_card(own)
    without = replace(card, weights={WEIGHTS: card.weights[WEIGHTS]})
    (own / "card.json").write_text(without.dumps())
    with pytest.raises(CardError, match="offers autoguidance and names no guide"):
        loaded(own)


def test_without_classes_autoguidance_has_its_interval(
    izograf: Any, pictures: Path, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted(pictures.rglob("train/*/*.png"))):
        shutil.copy(path, flat / f"{index}.png")
    outcome = izograf(
        "train", "dit", "--data", flat, "--out", tmp_path / "run", "--image-size", 16,
        "--device", "cpu", "--precision", "fp32", "--batch-size", 8, "--set", "width=32",
        "--set", "depth=2", "--set", "head_dim=16", *FAST,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    offered = options_of(read_card(tmp_path / "run"))
    assert {"autoguidance_scale", "guidance_low", "guidance_high"} <= set(offered)
    assert "guidance_scale" not in offered
    model = loaded(tmp_path / "run")
    pictures_of = [
        model.sample(Condition(), [1], options={"autoguidance_scale": s, "num_inference_steps": 3})
        for s in (1.0, 3.0)
    ]
    assert not torch.equal(*pictures_of)


def test_a_model_of_latents_has_a_guide_without_a_second_autoencoder(
    train: Any, trained: Any, tmp_path: Path
) -> None:
    eyes = trained("kl-autoencoder")
    outcome = train("latent-diffusion", tmp_path / "run", *FAST, "--autoencoder", eyes)
    assert outcome.code == 0, outcome.err
    assert not [key for key in load_file(tmp_path / "run" / GUIDE) if key.startswith("autoencoder")]
    model = loaded(tmp_path / "run")
    plain, strong = (model.sample(CONDITION, [1, 2], options=o) for o in (PLAIN, STRONG))
    assert not torch.equal(plain, strong)


def test_training_can_go_on_from_a_model_with_a_guide(
    guided: Path, train: Any, tmp_path: Path
) -> None:
    short = ("--images", 16, "--log-every", 16, "--sample-every", "1k")
    further = train("diffusion-unet", tmp_path / "on", *short, "--init-from", guided)
    assert further.code == 0, further.err
    assert set(read_card(tmp_path / "on").weights) == {WEIGHTS}


def test_bundling_carries_the_guide(
    guided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _bundle()
    monkeypatch.setattr(bundle, "ZOO", tmp_path)
    arguments = bundle.argparse.Namespace(
        folder=guided,
        summary="s",
        notes="n",
        example=[],
        default=["autoguidance_scale=2", "guidance_scale=1"],
    )
    target = bundle.copy_run(arguments)
    assert {path.name for path in target.iterdir()} == {"card.json", WEIGHTS, GUIDE}
    model = loaded(target)
    picture = model.sample(CONDITION, [1, 2], options={"num_inference_steps": 3})
    twice = loaded(guided).sample(CONDITION, [1, 2], options={**STRONG, "autoguidance_scale": 2.0})
    assert torch.equal(picture, twice)


def _bundle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle", ROOT / "tools" / "bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 7.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InvalidInput, match="--early-snapshot is a share"):
        RECIPES["dit"].check(Hyperparameters(early_snapshot=share))


@pytest.mark.parametrize("recipe", ["dcgan", "cvae", "consistency", "kl-autoencoder"])
def test_recipes_that_are_no_denoisers_have_no_early_snapshot(recipe: str) -> None:
    with pytest.raises(InvalidInput, match="leave out --early-snapshot"):
        RECIPES[recipe].check(Hyperparameters(early_snapshot=0.1))
