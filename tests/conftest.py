"""The closed-form world on which samplers are tested, and what holds for every test."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from izograf.core.devices import free_threads
from izograf.core.rng import generator
from izograf.core.types import NoiseSource
from izograf.diffusion.gaussian_mixture import GaussianMixture

# a busy machine is slow, not wrong; and the same commit must give the same verdict every time
settings.register_profile("izograf", deadline=None, derandomize=True)
settings.load_profile("izograf")

# of several test processes (pytest-xdist) each computes on its share of the cores, as do the
# programs that it starts: more threads than cores are far slower than fewer
if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    share = max(1, free_threads() // processes)
    os.environ["OMP_NUM_THREADS"] = str(share)
    torch.set_num_threads(share)

Noise = Callable[..., NoiseSource]


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache, or finds the user's models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IZOGRAF_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("IZOGRAF_MODELS", raising=False)
        yield


@pytest.fixture(autouse=True)
def _own_log_handlers() -> Iterator[None]:
    """Whoever sets up logging in a test takes the handlers along: their streams close with it."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in root.handlers[:]:
        if handler not in before and not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)


def _covariances(*shape: int) -> Tensor:
    """Random full covariances with deviations between about 0.1 and 0.5."""
    rng = generator("tests", "covariances")
    axes = torch.linalg.qr(torch.randn(*shape, generator=rng, dtype=torch.float64)).Q
    variances = 0.01 + 0.24 * torch.rand(*shape[:-1], generator=rng, dtype=torch.float64)
    return (axes * variances[..., None, :]) @ axes.mT


@pytest.fixture(scope="session")
def mixture() -> GaussianMixture:
    """Three well separated classes of pictures [3,2,2], one full Gaussian each."""
    rng = generator("tests", "means")
    means = torch.randn(3, 3, 2, 2, generator=rng, dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.2, 0.3, 0.5]), means, _covariances(3, 12, 12))


@pytest.fixture(scope="session")
def overlapping() -> GaussianMixture:
    """Two classes on a line, two components each, so close that their pictures mix."""
    return GaussianMixture(
        torch.tensor([0.25, 0.25, 0.3, 0.2]),
        torch.tensor([[-0.8], [-0.2], [0.1], [0.7]]),
        torch.tensor([0.04, 0.09, 0.09, 0.04]),
        classes=torch.tensor([0, 0, 1, 1]),
    )


@pytest.fixture(scope="session")
def batch_noise() -> Noise:
    """batch_noise(B, C, H, W, seed=0) -> float64 noise for the whole batch from one stream."""

    def make(*shape: int, seed: int = 0) -> NoiseSource:
        rng = generator("tests", "noise", seed)
        return lambda: torch.randn(*shape, generator=rng, dtype=torch.float64)

    return make
