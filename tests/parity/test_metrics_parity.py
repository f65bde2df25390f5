"""Our metrics against torch-fidelity, SciPy and Pillow."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from izograf.core.rng import seeded_layers
from izograf.metrics.extractors import open_extractor
from izograf.metrics.fid import frechet_distance
from izograf.metrics.inception import Inception, InceptionExtractor
from izograf.metrics.inception_resize import RESIZES
from izograf.metrics.kid import kernel_distance, squared_mmd
from izograf.metrics.neighbours import precision, recall
from izograf.metrics.statistics import FeatureStatistics


@pytest.fixture(scope="module")
def fidelity() -> Any:
    """A function that imports a module of torch-fidelity, which wants torchvision to exist."""
    pytest.importorskip("scipy")
    names = ["torchvision", "torchvision.datasets", "torchvision.transforms"]
    stubs = {name: mock.MagicMock(spec=ModuleType) for name in names}
    functional = mock.MagicMock(spec=ModuleType)
    for stub in stubs.values():
        stub.__path__ = []
    for dataset in ("CIFAR10", "STL10", "CIFAR100"):
        setattr(stubs["torchvision.datasets"], dataset, type(dataset, (), {}))
    stubs["torchvision.transforms"].functional = functional
    stubs["torchvision.transforms.functional"] = functional
    stubs["torchvision"].transforms = stubs["torchvision.transforms"]
    with mock.patch.dict(sys.modules, stubs), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("torch_fidelity")
        except ModuleNotFoundError as error:
            pytest.skip(f"needs torch-fidelity: {error}")
        yield lambda name: importlib.import_module(f"torch_fidelity.{name}")


def features(count: int, dim: int, *, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=rng) / dim**0.5
    return (torch.randn(count, dim, generator=rng) @ mixing).relu()


@pytest.mark.parametrize(("count", "dim"), [(500, 16), (300, 128)])
def test_fid(fidelity: Any, count: int, dim: int) -> None:
    real, fake = features(count, dim, seed=0), features(count, dim, seed=1)
    oracle = fidelity("metric_fid")
    expected = oracle.fid_statistics_to_metric(
        oracle.fid_features_to_statistics(real.double()),
        oracle.fid_features_to_statistics(fake.double()),
        verbose=False,
    )["frechet_inception_distance"]
    first, second = FeatureStatistics.of(real), FeatureStatistics.of(fake)
    ours = frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
    assert ours == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_by_matrix_root() -> None:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, 20, 30))
    first, second = factors[0] @ factors[0].T / 30, factors[1] @ factors[1].T / 30
    mean = rng.normal(size=20)
    root = scipy.linalg.sqrtm(first @ second)
    expected = mean @ mean + np.trace(first + second - 2 * np.real(root))
    ours = frechet_distance(np.zeros(20), first, mean, second)
    assert ours == pytest.approx(expected, rel=1e-9)


def test_kid(fidelity: Any) -> None:
    real, fake = features(120, 32, seed=0), features(120, 32, seed=1)
    options = {
        "kid_kernel": "poly",
        "kid_kernel_poly_degree": 3,
        "kid_kernel_poly_gamma": None,
        "kid_kernel_poly_coef0": 1,
    }
    oracle = fidelity("metric_kid")
    expected = oracle.kernel_mmd(real.double().numpy(), fake.double().numpy(), **options)
    assert squared_mmd(real, fake) == pytest.approx(expected, rel=1e-6)
    single = kernel_distance(real, fake, torch.Generator().manual_seed(0), num_subsets=1)
    assert single.mean == pytest.approx(expected, rel=1e-6)

    subsets = {"kid_subsets": 60, "kid_subset_size": 60, "rng_seed": 0, "verbose": False}
    published = oracle.kid_features_to_metric(real.double(), fake.double(), **options, **subsets)
    ours = kernel_distance(
        real, fake, torch.Generator().manual_seed(0), num_subsets=60, subset_size=60
    )
    assert ours.std == pytest.approx(published["kernel_inception_distance_std"], rel=0.4)
    assert ours.mean == pytest.approx(
        published["kernel_inception_distance_mean"], abs=4 * ours.std / 60**0.5
    )


def test_precision_and_recall(fidelity: Any) -> None:
    real, fake = features(150, 8, seed=0), features(130, 8, seed=1) * 1.2
    expected = fidelity("metric_prc").calculate_precision_recall_full(fake, real, 3, 1000)
    rng = torch.Generator()
    assert precision(real, fake, rng) == pytest.approx(expected[0])
    assert recall(real, fake, rng) == pytest.approx(expected[1])


def seeded_inception() -> Inception:
    """Random weights and batch statistics with which activations stay of order one."""
    with seeded_layers("parity"):
        network = Inception()
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.bias)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.8, 1.2)
                nn.init.normal_(module.bias, std=0.1)
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.2)
    return network


def test_inception_taps(fidelity: Any, tmp_path: Path) -> None:
    state = seeded_inception().state_dict()
    save_file(state, tmp_path / "inception.safetensors")
    torch.save(state, tmp_path / "inception.pth")
    taps = ["64", "192", "768", "2048", "logits_unbiased", "logits"]
    oracle = fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3(
        "inception-v3-compat", taps, str(tmp_path / "inception.pth")
    )
    extractor = open_extractor("inception-2015", tmp_path / "inception.safetensors")
    assert isinstance(extractor, InceptionExtractor)
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 3, 37, 64), generator=rng, dtype=torch.uint8)
    ours = extractor.taps(pictures)
    with torch.no_grad():
        theirs = oracle(pictures)
    pairs = zip(
        (ours.pool1, ours.pool2, ours.grid_17, ours.pool3, ours.logits_unbiased, ours.logits),
        theirs,
        strict=True,
    )
    for mine, expected in pairs:
        assert expected.std() > 0.05, "the comparison says nothing about vanished features"
        assert float((mine - expected).abs().max()) < 1e-4
    assert torch.equal(extractor(pictures), ours.pool3)


@pytest.mark.parametrize("size", [32, 299, 340])
def test_legacy_tf_resize(fidelity: Any, size: int) -> None:
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (1, 3, size, size + 5), generator=rng, dtype=torch.uint8)
    oracle = fidelity("interpolate_compat_tensorflow")
    expected = oracle.interpolate_bilinear_2d_like_tensorflow1x(
        pictures.float(), size=(299, 299), align_corners=False
    )
    torch.testing.assert_close(
        RESIZES["legacy_tf"](pictures), (expected - 128) / 128, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("size", [64, 299, 512])
def test_clean_resize_is_pillows_bicubic_on_floats(size: int) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (size, size), dtype=np.uint8)
    image = Image.fromarray(picture.astype(np.float32))
    resized = np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
    ours = RESIZES["clean"](torch.from_numpy(picture).expand(1, 3, size, size))
    np.testing.assert_allclose(ours[0, 1].numpy(), (resized - 128) / 128, atol=3e-5)


def test_the_three_resizes_differ_only_in_the_filter() -> None:
    flat = torch.full((1, 3, 50, 50), 64, dtype=torch.uint8)
    assert RESIZES["legacy_tf"](flat).unique().tolist() == [-0.5]
    assert RESIZES["clean"](flat).mean() == pytest.approx(-0.5, abs=1e-6)
    assert RESIZES["legacy_torch"](flat).mean() == pytest.approx(64 / 127.5 - 1, abs=1e-6)
