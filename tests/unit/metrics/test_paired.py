"""PSNR and SSIM against scikit-image, and their edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from izograf.core.pixels import to_float
from izograf.metrics.paired import psnr, ssim
from izograf.schema.errors import InvalidInput


def pair(noise: float, *, height: int = 33, width: int = 40) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    small = torch.rand(3, 3, 5, 5, generator=rng)
    first = torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear") * 255
    second = first + noise * torch.randn(first.shape, generator=rng)
    return first.clamp(0, 255).to(torch.uint8), second.clamp(0, 255).to(torch.uint8)


def array(picture: Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("noise", [1.0, 10.0, 80.0])
def test_scikit_image_agrees(noise: float) -> None:
    first, second = pair(noise)
    expected_psnr = [
        peak_signal_noise_ratio(array(a), array(b)) for a, b in zip(first, second, strict=True)
    ]
    expected_ssim = [
        structural_similarity(
            array(a),
            array(b),
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        for a, b in zip(first, second, strict=True)
    ]
    assert psnr(first, second).tolist() == pytest.approx(expected_psnr, rel=1e-9)
    assert ssim(first, second).tolist() == pytest.approx(expected_ssim, rel=1e-6)


def test_float_pictures_give_the_same_numbers() -> None:
    first, second = pair(10.0)
    torch.testing.assert_close(
        psnr(to_float(first), to_float(second)), psnr(first, second), rtol=1e-5, atol=0
    )


def test_equal_pictures() -> None:
    first, _ = pair(0.0)
    assert psnr(first, first).tolist() == [float("inf")] * 3
    assert ssim(first, first).tolist() == pytest.approx([1.0] * 3)


def test_symmetric_and_falling_with_noise() -> None:
    for metric in (psnr, ssim):
        values = [metric(*pair(noise)) for noise in (2.0, 20.0, 60.0)]
        assert (values[0] > values[1]).all()
        assert (values[1] > values[2]).all()
        first, second = pair(5.0)
        torch.testing.assert_close(metric(first, second), metric(second, first))


def test_unusable_pairs_are_refused() -> None:
    first, second = pair(1.0)
    with pytest.raises(InvalidInput, match="one size"):
        psnr(first, second[:, :, :-1])
    with pytest.raises(InvalidInput, match="both"):
        psnr(first, to_float(second))
    with pytest.raises(InvalidInput, match="11x11"):
        ssim(first[..., :10, :10], second[..., :10, :10])
