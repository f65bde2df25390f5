"""Degradation and loss of restoration: what is done to a picture, and that it is reproducible."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from izograf.core.rng import generator
from izograf.objectives.restoration import (
    BLUR_REACH,
    CHARBONNIER_EPSILON,
    RESTORATION_LOSSES,
    Degradation,
    charbonnier,
    degrade,
    gaussian_blur,
    halved,
    random_crop,
)


def pictures(side: int = 16, count: int = 3) -> Tensor:
    return torch.rand(count, 3, side, side, generator=generator("tests", side)) * 2 - 1


@given(st.floats(-2, 2))
def test_charbonnier_is_the_absolute_difference_but_for_its_rounded_tip(d: float) -> None:
    picture = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    found = float(charbonnier(picture + d, picture))
    assert found == pytest.approx(math.hypot(d, CHARBONNIER_EPSILON))
    assert abs(d) <= found <= abs(d) + CHARBONNIER_EPSILON


@pytest.mark.parametrize("name", RESTORATION_LOSSES)
def test_every_loss_is_least_for_equal_pictures(name: str) -> None:
    loss, picture = RESTORATION_LOSSES[name], pictures()
    assert float(loss(picture, picture)) <= CHARBONNIER_EPSILON * 1.001
    assert float(loss(picture + 0.1, picture)) == pytest.approx(0.1, abs=1e-4)


def test_a_crop_is_a_square_of_its_own_picture_and_places_differ() -> None:
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    image = torch.stack([rows, columns, rows], 0).repeat(8, 1, 1, 1)
    image[:, 2] = torch.arange(8.0)[:, None, None]
    cut = random_crop(image, 6, generator("tests"))
    assert cut.shape == (8, 3, 6, 6)
    tops, lefts = cut[:, 0, 0, 0], cut[:, 1, 0, 0]
    steps = torch.arange(6.0)
    assert torch.equal(cut[:, 0], (tops[:, None] + steps)[:, :, None].expand(8, 6, 6))
    assert torch.equal(cut[:, 1], (lefts[:, None] + steps)[:, None, :].expand(8, 6, 6))
    assert torch.equal(cut[:, 2, 0, 0], torch.arange(8.0)), "pictures were mixed up"
    assert len(set(tops.tolist())) > 2
    assert len(set(lefts.tolist())) > 2


def test_a_picture_that_is_no_larger_is_taken_whole() -> None:
    image = pictures()
    assert torch.equal(random_crop(image, 16, generator("tests")), image)
    assert torch.equal(random_crop(image, 64, generator("tests")), image)


def test_degradation_is_drawn_from_its_generator_alone() -> None:
    image, how = pictures(), Degradation(crop=16)
    first, same, other = (degrade(image, how, generator("tests", s)) for s in (1, 1, 2))
    assert first.shape == (3, 3, 8, 8)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_without_blur_and_noise_only_the_mean_of_four_pixels_is_left() -> None:
    image = pictures()
    small = degrade(image, Degradation(blur=0, noise=0), generator("tests"))
    assert torch.equal(small, halved(image))
    four = image[..., 0:2, 0:2].mean(dim=(2, 3))
    torch.testing.assert_close(small[..., 0, 0], four)


def test_noise_is_at_most_what_was_asked_and_differs_between_pictures() -> None:
    grey = torch.zeros(64, 3, 32, 32)
    noise = degrade(grey, Degradation(blur=0, noise=0.1), generator("tests"))
    deviations = noise.std(dim=(1, 2, 3))
    assert 0.09 < float(deviations.max()) < 0.11
    assert float(deviations.min()) < 0.02


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.2])
def test_the_blur_is_scipys(sigma: float) -> None:
    image = pictures()
    sigmas = torch.tensor([sigma, 0.5, 0.0])
    ours = gaussian_blur(image, sigmas)
    theirs = gaussian_filter(
        image[0].double().numpy(), sigma, mode="nearest", radius=BLUR_REACH, axes=(1, 2)
    )
    torch.testing.assert_close(ours[0].double(), torch.from_numpy(theirs), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[2], image[2])
    assert not torch.allclose(ours[1], image[1], atol=1e-2)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"crop": 7}, "crop must be even and positive, got 7"),
        ({"crop": 0}, "crop must be even and positive, got 0"),
        ({"blur": -0.1}, "blur must be from 0 to 2, got -0.1"),
        ({"noise": 1.5}, "noise must be from 0 to 1, got 1.5"),
    ],
)
def test_an_impossible_degradation_is_refused(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Degradation(**values)  # type: ignore[arg-type]
