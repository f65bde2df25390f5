"""The upscaler's network: starts as bicubic, takes any size, and sees no further than it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from izograf.core.pixels import to_float, to_uint8
from izograf.core.rng import generator, seeded_layers
from izograf.models.upscaler import Upscaler, UpscalerConfig, bicubic

SMALL = UpscalerConfig(width=8, depth=1)


def perturbed(config: UpscalerConfig) -> Upscaler:
    with seeded_layers("tests", "upscaler"):
        network = Upscaler(config).eval().requires_grad_(False)
    rng = generator("tests", "upscaler", "perturbation")
    for parameter in network.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, generator=rng)
    return network


def pictures(height: int, width: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=generator("tests", height, width)) * 2 - 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 12), (16, 5)])
def test_untrained_it_is_bicubic_at_any_size(height: int, width: int) -> None:
    image = pictures(height, width, 2)
    with seeded_layers("tests"):
        network = Upscaler(SMALL)
    with torch.no_grad():
        assert torch.equal(network(image), bicubic(image))


@pytest.mark.parametrize("factor", [2, 4])
def test_bicubic_is_pillows(factor: int) -> None:
    pixels = to_uint8(pictures(11, 14) / 2)  # Pillow clips what overshoots between its passes
    ours = to_uint8(bicubic(to_float(pixels), factor))[0].permute(1, 2, 0).numpy()
    small = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    theirs = small.resize((14 * factor, 11 * factor), Image.Resampling.BICUBIC)
    assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 1  # they round twice


@pytest.mark.parametrize("depth", [0, 2])
def test_a_pixel_changes_the_result_as_far_as_the_config_says_and_no_further(depth: int) -> None:
    config = UpscalerConfig(width=8, depth=depth)
    network, side = perturbed(config), 31
    image = pictures(side, side)
    changed = image.clone()
    changed[..., side // 2, side // 2] = 3.0
    moved = (network(changed) != network(image)).any(dim=1)[0].nonzero()
    middle, reach = side // 2, config.reach
    assert moved.min() >= 2 * (middle - reach)
    assert moved.max() <= 2 * (middle + reach) + 1
    assert moved.min() <= 2 * (middle - reach) + 2, "it sees less than it says"


def test_in_half_precision_the_result_is_float32_and_keeps_the_pictures_own_digits() -> None:
    with seeded_layers("tests"):
        network = Upscaler(SMALL).to(torch.bfloat16)
    image = pictures(6, 6)
    with torch.no_grad():
        assert torch.equal(network(image), bicubic(image))


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        UpscalerConfig(width=0)
    with pytest.raises(ValueError, match="depth must not be negative, got -1"):
        UpscalerConfig(depth=-1)
