"""Stable Diffusion checkpoints: what is refused, and what their generators promise."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra stable-diffusion is not installed")
pytest.importorskip("transformers", reason="the extra stable-diffusion is not installed")

from izograf.checkpoints.load import load_generator
from izograf.core.rng import generator as random
from izograf.core.types import Condition, TextConditioned
from izograf.diffusion.reuse import INTERVAL
from izograf.generators.stable_diffusion import extra, memory
from izograf.generators.stable_diffusion.card import checkpoint_card
from izograf.generators.stable_diffusion.checkpoint import read_checkpoint
from izograf.generators.stable_diffusion.generator import (
    StableDiffusionGenerator,
    load_checkpoint,
)
from izograf.generators.stable_diffusion.lora import parse_lora
from izograf.generators.stable_diffusion.network import PLAIN_LENGTH
from izograf.schema.errors import CardError, InvalidInput, MissingExtra, NotFound, UnsafeFile
from izograf.schema.library import find_model, read_card
from izograf.schema.options import parse_options
from stable_diffusion_support import loaded, saved, single_file

LONG = ", ".join(["a red dog eats the carrot"] * 20)
FEW = {"num_inference_steps": 2}

Checkpoints = Callable[[str], Path]
Loaded = Callable[[str], StableDiffusionGenerator]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """checkpoints("1" | "2" | "xl") -> its folder, made once; not to be changed."""

    @functools.cache
    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(f"kind-{kind}")
        saved(kind, folder)
        return folder / "checkpoint"

    return make


@pytest.fixture(scope="module")
def generators(checkpoints: Checkpoints) -> Loaded:
    return functools.cache(lambda kind: loaded(checkpoints(kind)))


@pytest.fixture
def copy(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """A copy of a checkpoint of SD 1, to be changed."""
    return Path(shutil.copytree(checkpoints("1"), tmp_path / "copy"))


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_pickled_weights_are_refused_unread_with_how_to_convert(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UnsafeFile, match=r"model\.bin is a pickle.*safe_serialization=True"):
        read_checkpoint(copy)
    single = copy / "model.ckpt"
    single.write_bytes(b"anything")
    with pytest.raises(UnsafeFile, match="is a pickle"):
        read_checkpoint(single)


def test_half_precision_weights_are_taken_where_there_are_no_others(copy: Path) -> None:
    for part in ("unet", "vae"):
        weights = copy / part / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    found = read_checkpoint(copy)
    assert found.weights["unet"].variant == "fp16"
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in found.files
    assert loaded(copy).sample(Condition(), [1], options=FEW).shape == (1, 3, 16, 16)


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("unet/config.json", {"in_channels": 9}, "made for inpainting or editing only"),
    ("unet/config.json", {"time_cond_proj_dim": 256}, "more than levels and text"),
    ("unet/config.json", {"_class_name": "FluxTransformer"}, "Stable Diffusion 1, 2 or XL"),
    ("unet/config.json", {"addition_embed_type": "image"}, "addition_embed_type"),
    ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "unknown prediction_type"),
    ("scheduler/scheduler_config.json", {"beta_schedule": "odd"}, "unknown beta_schedule"),
]


@pytest.mark.parametrize(("file", "changes", "sentence"), BROKEN)
def test_other_kinds_of_networks_are_refused(
    copy: Path, file: str, changes: dict[str, Any], sentence: str
) -> None:
    rewrite(copy / file, **changes)
    with pytest.raises(CardError, match=sentence):
        checkpoint_card(read_checkpoint(copy), "tiny")


def test_missing_files_are_named(copy: Path, tmp_path: Path) -> None:
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CardError, match=r"vae.diffusion_pytorch_model\.safetensors is missing"):
        read_checkpoint(copy)
    (copy / "unet" / "config.json").write_text("[]")
    with pytest.raises(CardError, match="a JSON object was expected"):
        read_checkpoint(copy)
    with pytest.raises(NotFound, match=r"a folder with model_index\.json was expected"):
        read_checkpoint(tmp_path)


def test_a_refiner_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "text_encoder")
    with pytest.raises(CardError, match="refiners"):
        read_checkpoint(copy)


def test_without_the_extra_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extra.importlib, "import_module", absent)
    with pytest.raises(
        MissingExtra, match=r'needs peft: pip install "izograf\[stable-diffusion\]"'
    ):
        extra.required.__wrapped__("peft")


def test_a_folder_is_a_model_by_its_path(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its card is made once, in the cache, and made anew when the files change."""
    monkeypatch.setenv("IZOGRAF_CACHE", str(tmp_path / "cache"))
    folder = find_model(str(checkpoints("1")))
    assert folder == find_model(str(checkpoints("1")))
    card = read_card(folder)
    assert card.conditions == ("text",)
    assert card.image_size == 16
    made, placement = load_generator(str(checkpoints("1")), device="cpu", precision="fp32")
    assert isinstance(made, TextConditioned)
    assert placement.device == "cpu"
    assert made.card.fingerprint == card.fingerprint
    moved = Path(shutil.copytree(checkpoints("1"), tmp_path / "moved"))
    other = find_model(str(moved))
    assert other != folder
    shutil.rmtree(moved)
    with pytest.raises(CardError, match="is no longer there"):
        load_generator(str(other))


def test_weights_that_are_not_the_cards_are_refused(copy: Path) -> None:
    made = loaded(copy)
    text = copy / "text_encoder" / "model.safetensors"
    text.write_bytes(text.read_bytes()[:-1] + b"\1")
    with pytest.raises(CardError, match=r"text_encoder.model\.safetensors.*import the checkpoint"):
        load_checkpoint(made.card, made.placement)


@pytest.mark.parametrize("kind", ["1", "2", "xl"])
def test_a_picture_depends_on_its_seed_alone(kind: str, generators: Loaded) -> None:
    generator = generators(kind)
    condition = generator.text_condition(["a dog", "the sea", LONG])
    together = generator.sample(condition, [1, 2, 3], options=FEW)
    assert together.shape == (3, 3, 16, 16)
    assert bool(together.isfinite().all())
    for index in range(3):
        alone = generator.sample(
            generator.text_condition([["a dog", "the sea", LONG][index]]), [index + 1], options=FEW
        )
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-4)


def test_large_batches_are_computed_in_parts_and_count_their_steps(
    generators: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from izograf.generators.stable_diffusion import generator as module

    generator = generators("1")
    whole = generator.sample(generator.text_condition(["a dog"] * 3), [1, 2, 3], options=FEW)
    monkeypatch.setitem(module.AT_ONCE, "cpu", 2 * 8 * 8)
    steps: list[tuple[int, int]] = []
    parts = generator.sample(
        generator.text_condition(["a dog"] * 3), [1, 2, 3], options=FEW,
        on_step=lambda step, total, preview: steps.append((step, total)),  # noqa: ARG005
    )  # fmt: skip
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("kind", ["1", "xl"])
def test_weights_of_words_and_further_chunks_matter(kind: str, generators: Loaded) -> None:
    generator = generators(kind)
    plain, stressed, same = (
        generator.text_condition([prompt]).text
        for prompt in ("a red dog", "a (red:1.4) dog", "a (red:1.0) dog")
    )
    assert plain is not None
    assert stressed is not None
    assert same is not None
    torch.testing.assert_close(same, plain)
    assert plain.shape[1] == PLAIN_LENGTH
    assert float((plain - stressed).abs().max()) > 0.01
    first = generator.networks.prompts.encoders[0].encode
    assert float(first("a (red:1.4) dog")[0].norm()) == pytest.approx(
        float(first("a red dog")[0].norm()), rel=1e-4
    )
    long = generator.text_condition([LONG]).text
    assert long is not None
    assert long.shape[1] == 2 * PLAIN_LENGTH
    shorter = generator.text_condition([LONG.rpartition(",")[0]])
    drawn = generator.sample(generator.text_condition([LONG]), [5], options=FEW)
    assert not torch.equal(drawn, generator.sample(shorter, [5], options=FEW))


def test_rows_without_text_are_ignored(generators: Loaded) -> None:
    """A negative prompt longer than the prompt changes nothing by its length alone."""
    generator = generators("1")
    condition = generator.text_condition(["a dog"])
    other = generator.text_condition([LONG])
    assert condition.text is not None
    guided = {**FEW, "guidance_scale": 1.0}  # the negative prompt then plays no part
    alone = generator.sample(condition, [1], options=guided)
    beside = generator.sample(replace(condition, negative=other), [1], options=guided)
    torch.testing.assert_close(alone, beside, rtol=0, atol=1e-4)
    assert not torch.equal(
        generator.sample(replace(condition, negative=other), [1], options=FEW),
        generator.sample(condition, [1], options=FEW),
    )


@pytest.mark.parametrize("prompt", ["a dog", LONG], ids=["short", "long"])
@pytest.mark.parametrize("kind", ["1", "2", "xl"])
@torch.inference_mode()
def test_the_deep_layers_of_the_unet_can_be_reused(
    kind: str, prompt: str, generators: Loaded
) -> None:
    """Exactly at the same latents and level, sizes and masked rows included."""
    network = generators(kind).networks.unet
    condition = generators(kind).text_condition([prompt] * 2)
    if condition.attributes is not None:
        sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 2)
        condition = replace(condition, attributes=torch.cat([condition.attributes, sizes], dim=1))
    x = torch.randn(2, 4, 8, 8, generator=random("reuse", kind))
    level = torch.tensor([500.0, 500.0])
    plain = network(x, level, condition)
    predicted, kept = network.keeping(x, level, condition)
    assert torch.equal(predicted, plain)
    torch.testing.assert_close(network.reusing(x, level, condition, kept), plain)
    outer = network.reusing(x, level, condition, torch.zeros_like(kept))
    assert (outer - plain).norm() > 0.01 * plain.norm()


def test_a_picture_with_reused_layers_is_another_but_near(generators: Loaded) -> None:
    generator = generators("1")
    condition = generator.text_condition(["a dog"])
    options = {"num_inference_steps": 6}
    exact = generator.sample(condition, [1], options=options)
    assert torch.equal(exact, generator.sample(condition, [1], options=options | {INTERVAL: 1}))
    reused = generator.sample(condition, [1], options=options | {INTERVAL: 2})
    assert 0 < float((reused - exact).norm()) < 0.2 * float(exact.norm())


def test_sides_are_chosen_and_must_be_multiples(generators: Loaded) -> None:
    generator = generators("xl")
    wide = generator.sample(Condition(), [1], options={**FEW, "width": 24, "height": 16})
    assert wide.shape == (1, 3, 16, 24)
    with pytest.raises(InvalidInput, match="multiples of 2, got 17 x 16: 16 x 16 is the nearest"):
        generator.sample(Condition(), [1], options={**FEW, "width": 17})


def test_too_little_memory_is_said_before_it_is_tried(
    generators: Loaded, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = generators("1")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 20_000)  # noqa: ARG005
    with pytest.raises(
        InvalidInput, match=r"A picture of 16 x 16 needs about .* are free: ask for"
    ):
        generator.sample(Condition(), [1], options=FEW)
    with pytest.raises(InvalidInput, match=r"The weights of .* need .* are free on cpu"):
        loaded(checkpoints("1"))


def picture(side: int = 16) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=random("tests", "picture")) * 2 - 1


def test_a_picture_is_where_sampling_starts(generators: Loaded) -> None:
    generator = generators("1")
    condition = replace(generator.text_condition(["a dog"]), image=picture())
    chosen = parse_options({"num_inference_steps": 20, "guidance_scale": 1}, generator.card.options)
    known = generator._codec(condition, chosen).encode(picture())
    near, middle, far = (
        float((generator.sample_latents(condition, [1], chosen | {"strength": s}) - known).std())
        for s in (0.05, 0.5, 1.0)
    )
    assert near < middle / 2
    assert middle < far / 2


def test_a_mask_keeps_its_part_exactly_whatever_the_size(generators: Loaded) -> None:
    generator = generators("2")
    mask = torch.zeros(1, 1, 21, 21)
    mask[..., :10] = 1
    condition = replace(generator.text_condition(["a dog"]), image=picture(21), mask=mask)
    made = generator.sample(condition, [1], options={**FEW, "strength": 1.0})
    assert made.shape == (1, 3, 20, 20)
    expected = torch.nn.functional.interpolate(
        picture(21), (20, 20), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(made[..., :9], expected[..., :9])
    assert float((made[..., 12:] - expected[..., 12:]).abs().mean()) > 0.05


def test_large_pictures_are_coded_in_tiles(generators: Loaded) -> None:
    """The tiny autoencoder's attention sees all of a tile: nearly, not exactly, the same."""
    generator = generators("1")
    sizes = {"height": 96, "width": 64}
    whole = generator._codec(Condition(), {**sizes, "tile": 1024})
    tiled = generator._codec(Condition(), {**sizes, "tile": 64})
    assert tiled.tile == 32
    image = torch.rand(1, 3, 96, 64, generator=random("tests", "tiles")) * 2 - 1
    latents = whole.encode(image)
    assert latents.shape == (1, 4, 48, 32)
    assert float((tiled.encode(image) - latents).abs().mean()) < 0.1 * float(latents.std())
    decoded = whole.decode(latents)
    assert decoded.shape == image.shape
    assert float((tiled.decode(latents) - decoded).abs().mean()) < 0.1 * float(decoded.std())


def test_previews_are_pictures(generators: Loaded) -> None:
    generator = generators("1")
    shown: list[torch.Tensor] = []
    generator.sample(
        Condition(), [1], options=FEW, on_step=lambda step, total, x: shown.append(x)  # noqa: ARG005
    )  # fmt: skip
    assert [x.shape for x in shown] == [(1, 3, 16, 16)] * 2
    assert all(bool(((x >= -1) & (x <= 1)).all()) for x in shown)


def test_a_lora_is_added_to_networks_and_text_encoder(
    checkpoints: Checkpoints, generators: Loaded, tmp_path: Path
) -> None:
    """The change is W + scale * (up @ down) * alpha / rank, in every layer it names."""
    from safetensors.torch import save_file

    plain = generators("1")
    rng = random("tests", "lora")
    unet = plain.networks.unet.backbone.unet  # type: ignore[union-attr]
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    weight = unet.get_submodule(name).weight
    text_name = "encoder.layers.0.self_attn.q_proj"
    down, up = (
        torch.randn(2, weight.shape[1], generator=rng),
        torch.randn(weight.shape[0], 2, generator=rng),
    )
    text_down, text_up = (torch.randn(*s, generator=rng) for s in ((2, 16), (16, 2)))
    tensors = {
        f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up,
        f"text_encoder.text_model.{text_name}.lora_A.weight": text_down,
        f"text_encoder.text_model.{text_name}.lora_B.weight": text_up,
    }  # fmt: skip
    path = tmp_path / "style.safetensors"
    save_file(tensors, path)
    lora = parse_lora(f"{path}:0.5")
    assert lora.scale == 0.5
    card = checkpoint_card(read_checkpoint(checkpoints("1")), "tiny", loras=[lora])
    assert "lora-0/style.safetensors" in card.weights
    changed = load_checkpoint(card, plain.placement)
    layer = changed.networks.unet.backbone.unet.get_submodule(name)  # type: ignore[union-attr]
    assert type(layer) is torch.nn.Linear
    torch.testing.assert_close(layer.weight, weight + 0.5 * up @ down)
    before, after = (
        dict(g.networks.prompts.encoders[0].model.named_parameters()) for g in (plain, changed)
    )
    (key,) = [key for key in before if key.endswith(f"{text_name}.weight")]
    torch.testing.assert_close(after[key], before[key] + 0.5 * text_up @ text_down)
    assert before.keys() == after.keys()


def test_what_is_no_fitting_lora_is_refused(checkpoints: Checkpoints, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    odd = tmp_path / "odd.safetensors"
    save_file(
        {f"{name}.lora_A.weight": torch.zeros(2, 5), f"{name}.lora_B.weight": torch.zeros(16, 2)},
        odd,
    )
    card = checkpoint_card(read_checkpoint(checkpoints("1")), "t", loras=[parse_lora(str(odd))])
    placement = loaded(checkpoints("1")).placement
    with pytest.raises(CardError, match="made for another kind of model"):
        load_checkpoint(card, placement)
    none = tmp_path / "none.safetensors"
    save_file({"weight": torch.zeros(2)}, none)
    card = checkpoint_card(read_checkpoint(checkpoints("1")), "t", loras=[parse_lora(str(none))])
    with pytest.raises(CardError, match=r"none\.safetensors"):
        load_checkpoint(card, placement)
    with pytest.raises(NotFound, match="There is no LoRA file"):
        parse_lora(str(tmp_path / "absent.safetensors:0.5"))
    with pytest.raises(InvalidInput, match="from -10 to 10"):
        parse_lora(f"{odd}:50")


def test_one_file_with_the_original_names_is_the_same_model(tmp_path: Path) -> None:
    """Configurations and the tokenizer come from a folder whose weights are not read."""
    pipeline = saved("1", tmp_path)
    folder = tmp_path / "checkpoint"
    single_file(pipeline, tmp_path / "v1.safetensors")
    whole = loaded(folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    card = checkpoint_card(read_checkpoint(tmp_path / "v1.safetensors", folder), "one")
    assert list(card.weights) == ["v1.safetensors"]
    single = load_checkpoint(card, whole.placement)
    drawn, expected = (
        made.sample(made.text_condition(["a dog eats a carrot"]), [1], options=FEW)
        for made in (single, whole)
    )
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-5)
    (tmp_path / "odd.safetensors").write_bytes((folder / "model_index.json").read_bytes())
    card = replace(
        card, sampling={**card.sampling, "checkpoint": str(tmp_path / "odd.safetensors")}
    )
    with pytest.raises(CardError, match="import the checkpoint again"):
        load_checkpoint(card, whole.placement)


class Suspicious(torch.nn.Module):
    """A safety checker's network that flags dark pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, clip_input: torch.Tensor, images: list[Any]) -> tuple[list[Any], list[bool]]:
        assert clip_input.shape[1:] == (3, 8, 8)
        return images, [bool(picture.mean() < 0) for picture in clip_input]


def test_flagged_pictures_come_out_black(caplog: pytest.LogCaptureFixture) -> None:
    from izograf.generators.stable_diffusion.safety import SafetyChecker

    config = {"crop_size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [1] * 3}
    checker = SafetyChecker(Suspicious(), config)
    pictures = torch.stack([torch.full((3, 16, 24), 0.5), torch.full((3, 16, 24), -0.5)])
    shown = checker(pictures)
    torch.testing.assert_close(shown[0], pictures[0])
    assert float(shown[1].max()) == -1
    assert "blackened 1 of 2 pictures" in caplog.text


@pytest.mark.parametrize(("value", "off"), [("off", True), ("", False), ("on", False)])
def test_the_safety_checker_is_switched_by_whoever_runs_the_program(
    value: str, off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from izograf.generators.stable_diffusion.safety import allowed_off

    monkeypatch.setenv("IZOGRAF_SAFETY_CHECKER", value)
    assert allowed_off() is off
