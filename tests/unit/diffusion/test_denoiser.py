"""The denoiser: coefficients in the caller's precision, the network in its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from izograf.core.rng import generator
from izograf.core.types import Condition
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.precondition import EDM, Flow


class Recorder(nn.Module):
    """Returns its input, and remembers what it was called with."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1, dtype=dtype))
        self.seen: tuple[Tensor, Tensor, Condition] | None = None

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        self.seen = (x, c_noise, condition)
        return x


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=generator("tests", "x"))


def test_denoiser_is_skip_plus_scaled_network(x: Tensor) -> None:
    sigma = torch.tensor([0.3, 4.0])
    result = Denoiser(Recorder(torch.float32), EDM())(x, sigma, Condition())
    scalars = EDM()(sigma)
    for i in range(2):
        expected = (scalars.c_skip[i] + scalars.c_out[i] * scalars.c_in[i]) * x[i]
        torch.testing.assert_close(result[i], expected)


def test_network_sees_scaled_input_c_noise_and_the_condition(x: Tensor) -> None:
    network, sigma = Recorder(torch.float32), torch.tensor([0.3, 4.0])
    condition = Condition(class_ids=torch.tensor([1, 0]))
    Denoiser(network, Flow())(x, sigma, condition)
    assert network.seen is not None
    scaled, c_noise, seen = network.seen
    torch.testing.assert_close(scaled, x / (1 + sigma)[:, None, None, None])
    torch.testing.assert_close(c_noise, sigma / (1 + sigma))
    assert seen is condition


@pytest.mark.parametrize("inner", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("outer", [torch.float32, torch.float64])
def test_network_computes_in_its_own_dtype_and_the_result_keeps_that_of_x(
    x: Tensor, inner: torch.dtype, outer: torch.dtype
) -> None:
    network = Recorder(inner)
    sigma = torch.tensor([0.3, 4.0], dtype=outer)
    result = Denoiser(network, EDM())(x.to(outer), sigma, Condition())
    assert network.seen is not None
    assert network.seen[0].dtype == inner
    assert network.seen[0].is_contiguous(memory_format=torch.channels_last)
    assert result.dtype == outer


def test_low_noise_survives_a_low_precision_network(x: Tensor) -> None:
    """Only the network rounds: at small sigma its error is multiplied by c_out, about sigma."""
    sigma = torch.tensor([1e-3, 1e-3])
    coarse = Denoiser(Recorder(torch.bfloat16), EDM())(x, sigma, Condition())
    fine = Denoiser(Recorder(torch.float32), EDM())(x, sigma, Condition())
    assert float((coarse - fine).abs().max()) < 2e-5
    assert not torch.equal(coarse, fine)
