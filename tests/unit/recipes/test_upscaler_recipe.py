"""The recipe of upscalers: what is measured beside bicubic, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from izograf.core.rng import generator
from izograf.data.dataset import ImageSet
from izograf.data.scan import ScanReport
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.schema.errors import InvalidInput
from izograf.schema.labels import ClassLabel
from izograf.schema.library import read_card
from izograf.training.ema import MovingAverage
from izograf.training.run import Averaged, Job

TINY = Hyperparameters(
    images=16, batch_size=8, device="cpu", precision="fp32", settings=("width=8", "depth=1")
)


def image_set(size: int, count: int, split: str) -> ImageSet:
    """Smooth pictures: neighbouring pixels are alike, as in photographs."""
    rng = generator("tests", "smooth", split)
    coarse = 90 + 70 * torch.rand(count, 3, 6, 6, generator=rng)
    images = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    names = tuple(f"{split}-{i}.png" for i in range(count))
    ids, classes = torch.arange(count) % 2, (ClassLabel("one"), ClassLabel("two"))
    report = ScanReport(read=count)
    return ImageSet(images.byte(), ids, classes, names, "smooth", split, "none", report)


def request(size: int = 16, *, held_out: int = 5, **chosen: object) -> RunRequest:
    hyperparameters = replace(TINY, **chosen)  # type: ignore[arg-type]
    sets = image_set(size, 10, "train"), image_set(size, held_out, "test")
    return RunRequest("tiny", *sets, "made here", hyperparameters)


def averaged(job: Job) -> Averaged:
    return MovingAverage(job.objective.modules, job.objective.averaged, share=0.0).modules


def pillow_enlarged(picture: Tensor) -> np.ndarray:
    """The mean of each 2x2 pixels, rounded by nobody, enlarged by Pillow's bicubic filter."""
    small = picture.double().unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4)).numpy()
    side = picture.shape[-1], picture.shape[-2]
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize(side, Image.Resampling.BICUBIC)
        for plane in small
    ]
    return np.rint(np.clip(np.stack(planes), 0, 255)).astype(np.uint8)


def test_the_figures_are_scikit_images_and_those_of_an_untrained_network_are_bicubics() -> None:
    asked = request()
    job = RECIPES["upscaler"].build(asked)
    assert job.evaluate is not None
    scores = job.evaluate(averaged(job))
    real = asked.held_out.images
    pairs = [(np.asarray(picture), pillow_enlarged(picture)) for picture in real]
    psnr = np.mean([peak_signal_noise_ratio(a, b) for a, b in pairs])
    ssim = np.mean(
        [
            structural_similarity(
                a, b, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for a, b in pairs
        ]
    )
    assert scores["psnr_bicubic"] == pytest.approx(psnr, abs=0.05)
    assert scores["ssim_bicubic"] == pytest.approx(ssim, abs=2e-3)
    assert scores["psnr"] == pytest.approx(scores["psnr_bicubic"], rel=1e-9)
    assert scores["ssim"] == pytest.approx(scores["ssim_bicubic"], rel=1e-9)


def test_the_card_says_what_the_model_is_and_how_pictures_were_made_small(tmp_path: Path) -> None:
    asked = request(settings=("width=8", "depth=1", "crop=8", "noise=0"))
    job = RECIPES["upscaler"].build(asked)
    assert job.export is not None
    job.export(averaged(job), tmp_path, {"evaluated": {"psnr": 30.0, "psnr_bicubic": 29.0}})
    card = read_card(tmp_path)
    assert (card.family, card.task, card.conditions, card.classes) == (
        "upscaler", "upscale", (), (),
    )  # fmt: skip
    assert card.network == {"name": "upscaler", "config": {"width": 8, "depth": 1}}
    assert card.recipe["degradation"] == {"crop": 8, "blur": 0.8, "noise": 0.0}
    assert card.recipe["evaluated"]["psnr"] == 30.0


def test_a_run_can_start_from_another_upscaler_and_names_it(tmp_path: Path) -> None:
    first = RECIPES["upscaler"].build(request(seed=1))
    assert first.export is not None
    first.export(averaged(first), tmp_path / "first", {})
    second = RECIPES["upscaler"].build(request(seed=2, init_from=str(tmp_path / "first")))
    fresh = RECIPES["upscaler"].build(request(seed=2))
    theirs, ours, others = (
        job.objective.modules["upscaler"].state_dict() for job in (first, second, fresh)
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)  # float16 on disk
    assert not torch.allclose(theirs["head.weight"], others["head.weight"], atol=1e-3)
    assert second.export is not None
    second.export(averaged(second), tmp_path / "second", {})
    parent = read_card(tmp_path / "first")
    assert read_card(tmp_path / "second").parents == (f"tiny@{parent.fingerprint}",)


def test_without_held_out_pictures_a_sheet_is_still_shown(tmp_path: Path) -> None:
    job = RECIPES["upscaler"].build(request(held_out=0))
    assert job.evaluate is None
    assert job.preview is not None
    job.preview(averaged(job), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 6 * 16
        assert sheet.height > 3 * 16


def test_pictures_smaller_than_the_window_have_no_ssim() -> None:
    job = RECIPES["upscaler"].build(request(8))
    assert job.evaluate is not None
    assert set(job.evaluate(averaged(job))) == {"validation_loss", "psnr", "psnr_bicubic"}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (request(15), "Pictures of 15 pixels cannot be halved: choose an even --image-size"),
        (request(settings=("crop=7",)), "crop must be even and positive, got 7"),
        (request(settings=("width=0",)), "width must be at least 1, got 0"),
        (request(settings=("colour=1",)), "has no field 'colour'"),
    ],
)
def test_what_cannot_be_trained_is_refused(asked: RunRequest, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        RECIPES["upscaler"].build(asked)
