"""An upscaler in use: tiles, repeated doubling, memory, and pictures verified after it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from izograf.checkpoints.files import save_model
from izograf.checkpoints.load import load_generator
from izograf.core.devices import Placement, fingerprint
from izograf.core.pixels import to_float, to_uint8
from izograf.core.rng import generator, seeded_layers
from izograf.core.types import Condition
from izograf.generators import upscaler as module
from izograf.generators.render import read_png, render, save_png, upscaled, verify
from izograf.generators.upscaler import UpscalerModel, load_upscaler
from izograf.models.upscaler import Upscaler, UpscalerConfig, bicubic
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput, NotFound
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request

CONFIG = UpscalerConfig(width=8, depth=1)
CARD = ModelCard(
    "tiny", "upscaler", {"name": "upscaler", "config": {"width": 8, "depth": 1}}, 16, task="upscale"
)


def network() -> Upscaler:
    """With every weight perturbed: untrained it is bicubic, and sees little."""
    with seeded_layers("tests", "upscaler"):
        made = Upscaler(CONFIG).eval().requires_grad_(False)
    rng = generator("tests", "upscaler", "perturbation")
    for parameter in made.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=rng)
    return made


@pytest.fixture(scope="module")
def tiny() -> UpscalerModel:
    return UpscalerModel(CARD, network(), Placement("cpu", "fp32"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-upscaler"
    save_model(path, network().state_dict(), CARD, dtype=torch.float32)
    return path


def pictures(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=generator("tests", height, width)) - 0.5


@pytest.mark.parametrize(("height", "width"), [(23, 61), (40, 25), (90, 70)])
def test_in_tiles_the_picture_is_the_same_as_whole(
    tiny: UpscalerModel, height: int, width: int
) -> None:
    image = pictures(height, width)
    whole, tiled = tiny.enlarge(image, tile=1000), tiny.enlarge(image, tile=16)
    assert whole.shape == tiled.shape == (1, 3, 2 * height, 2 * width)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)
    assert not torch.allclose(whole, bicubic(image), atol=1e-2), "the network does nothing"


def test_more_is_doubling_again(tiny: UpscalerModel) -> None:
    image = pictures(5, 7)
    twice = tiny.enlarge(tiny.enlarge(image))
    assert torch.equal(tiny.enlarge(image, 4), twice)
    assert torch.equal(tiny.enlarge(image, 8), tiny.enlarge(twice))
    assert tiny.enlarge(image, 8).shape == (1, 3, 40, 56)


def test_a_picture_does_not_depend_on_its_batch_mates(tiny: UpscalerModel) -> None:
    images = pictures(9, 9, 3)
    assert torch.equal(tiny.enlarge(images)[1:2], tiny.enlarge(images[1:2]))


def test_values_stay_in_range_and_stored_pixels_go_the_same_way(tiny: UpscalerModel) -> None:
    pixels = to_uint8(2 * pictures(6, 6))[0]
    made = tiny.enlarge(to_float(pixels)[None], 4)
    assert float(made.abs().max()) <= 1
    assert torch.equal(tiny.enlarge_pixels(pixels, 4), to_uint8(made)[0])


@pytest.mark.parametrize("factor", [0, 1, 3, 16, True, 2.0])
def test_other_factors_are_refused(tiny: UpscalerModel, factor: int) -> None:
    with pytest.raises(InvalidInput, match=r"enlarged 2, 4 or 8 times, got \w+"):
        tiny.enlarge(pictures(4, 4), factor)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_tried(
    tiny: UpscalerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 1_000_000)
    assert tiny.enlarge(pictures(20, 20), 2).shape[-1] == 40
    with pytest.raises(InvalidInput, match=r"Enlarging 40 x 30 pixels 8 times needs about 3\.7 GB"):
        tiny.enlarge(pictures(30, 40).repeat(1000, 1, 1, 1), 8)


def test_it_draws_nothing_itself(folder: Path) -> None:
    generator_, _ = load_generator(str(folder), device="cpu", precision="fp32")
    with pytest.raises(InvalidInput, match="draws no pictures of its own: give it one with"):
        generator_.sample(Condition(), [0], options={})


def test_loading_checks_what_it_finds(folder: Path, trained, tiny: UpscalerModel) -> None:
    loaded = load_upscaler(str(folder), device="cpu", precision="fp32")
    image = pictures(6, 6)
    assert torch.equal(loaded.enlarge(image), tiny.enlarge(image))
    with pytest.raises(InvalidInput, match="is a classifier model, which enlarges no pictures"):
        load_upscaler(str(trained("classifier")))
    with pytest.raises(NotFound, match="Unknown model 'nothing-like-it'"):
        load_upscaler("nothing-like-it")
    card = (folder / "card.json").read_text().replace('"depth": 1', '"depth": 2')
    (folder / "card.json").write_text(card)
    with pytest.raises(CardError, match="do not fit its card"):
        load_upscaler(str(folder))


@pytest.fixture
def enlarged(trained, folder: Path, tmp_path: Path):
    """A picture of a tiny GAN, enlarged and written; its generator and environment."""
    generator_, placement = load_generator(str(trained("dcgan")), device="cpu", precision="fp32")
    asked = GenerationRequest("gan", {"type": "class", "class": "sea"}, 3, 5)
    environment = fingerprint(placement)
    made = list(render(generator_, resolve_request(generator_.card, asked), environment))
    upscaler = load_upscaler(str(folder), device="cpu", precision="fp32")
    path = tmp_path / "large.png"
    save_png(path, upscaled(made[1], upscaler, str(folder), 4))
    return path, generator_, environment


def test_an_enlarged_picture_is_verified_to_the_last_bit(enlarged) -> None:
    path, generator_, environment = enlarged
    pixels, record = read_png(path)
    assert tuple(pixels.shape) == (3, 64, 64)
    assert record["upscaled"]["factor"] == 4
    found = verify(pixels, record, generator_, environment)
    assert (found.verdict, found.remarks) == ("bit-exact", ())
    pixels[0, 0, 0] ^= 128
    found = verify(pixels, record, generator_, environment)
    assert found.verdict != "bit-exact"
    assert "the picture was changed after it was made" in found.remarks


def test_without_its_upscaler_it_cannot_be_verified(enlarged, folder: Path) -> None:
    path, generator_, environment = enlarged
    pixels, record = read_png(path)
    other = {**record, "upscaled": {**record["upscaled"], "sha256": "0" * 64}}
    with pytest.raises(InvalidInput, match="has other weights now"):
        verify(pixels, other, generator_, environment)
    shutil.rmtree(folder)
    with pytest.raises(NotFound, match="Unknown model"):
        verify(pixels, record, generator_, environment)
