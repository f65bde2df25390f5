"""What every backend promises of every network: to be called, and to answer, like torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_networks import REUSING, arguments_of, build
from torch import Tensor, nn

from izograf.core.backends import BACKENDS, EAGER, OPENVINO_INT8, Calibrated
from izograf.core.devices import Placement, Precision
from izograf.core.types import Condition
from izograf.models.registry import NETWORKS

KINDS = ("denoiser", "generator", "autoencoder", "codec")  # what generators call
CALLED = [name for name in NETWORKS if NETWORKS[name].kind in KINDS]
CONDITIONED = [name for name in CALLED if NETWORKS[name].kind != "codec"]
SLOW = ("compile",)  # half a minute of C++ for every network


def usable(names: list[str]) -> list[Any]:
    marks = {
        name: [
            pytest.mark.skipif(bool(reason := BACKENDS[name].missing()), reason=reason),
            *([pytest.mark.slow] if name in SLOW else []),
        ]
        for name in names
    }
    return [pytest.param(name, marks=marks[name]) for name in names]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IZOGRAF_CACHE", str(tmp_path_factory.getbasetemp() / "backends"))


def place(name: str, backend: str, precision: Precision) -> nn.Module:
    network = build(name).eval().requires_grad_(False)
    placement = Placement("cpu", precision, backend)
    return BACKENDS[backend].place(
        network, placement, kind=NETWORKS[name].kind, identity=f"tests {name}"
    )


@torch.inference_mode()
def output(network: nn.Module, *arguments: Any) -> Tensor:
    """As generators call a network: in its precision, but for noise levels, and channels last."""
    dtype = next(network.parameters()).dtype
    given = [a.to(dtype) if isinstance(a, Tensor) and a.ndim > 1 else a for a in arguments]
    if given[0].ndim == 4:
        given[0] = given[0].to(memory_format=torch.channels_last)
    answer: Tensor = network(*given)
    return answer.float()


def distance(one: Tensor, other: Tensor) -> float:
    """Relative to the size of `other`, root mean square."""
    return float((one - other).norm() / other.norm())


OTHERS = usable([name for name in BACKENDS if name not in (EAGER, OPENVINO_INT8)])
EIGHT_BITS = usable([OPENVINO_INT8])  # which is near, not equal, and only after a look at inputs


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("name", CALLED)
def test_float32_is_that_of_torch(name: str, backend: str) -> None:
    arguments = arguments_of(name)
    expected = output(build(name).eval(), *arguments)
    made = output(place(name, backend, "fp32"), *arguments)
    assert made.shape == expected.shape
    assert (made - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("name", CALLED)
def test_bfloat16_is_as_near_to_float32_as_that_of_torch(name: str, backend: str) -> None:
    """The noise level included, whose angles mean nothing in bfloat16."""
    arguments = arguments_of(name)
    expected = output(build(name).eval(), *arguments)
    eager = distance(output(place(name, EAGER, "bf16"), *arguments), expected)
    made = distance(output(place(name, backend, "bf16"), *arguments), expected)
    assert 1e-4 < made <= 1.5 * eager, f"torch is {eager:.4f} away from float32"


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("name", CONDITIONED)
def test_an_odd_batch_and_a_condition_of_another_kind_are_answered(name: str, backend: str) -> None:
    x, *others = arguments_of(name)
    network = place(name, backend, "fp32")
    plain = build(name).eval()
    for condition in (
        Condition(),
        Condition(
            class_ids=torch.tensor([0, 1, -1]),
            towards_ids=torch.tensor([1, -1, 0]),
            share=torch.tensor([0.0, 0.25, 1.0]),
        ),
    ):
        arguments = [x[:3], *(o[:3] for o in others[:-1]), condition]
        expected = output(plain, *arguments)
        assert (output(network, *arguments) - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("name", REUSING)
@torch.inference_mode()
def test_deep_layers_can_be_kept_and_reused(name: str, backend: str) -> None:
    """An odd batch: what is kept is put together from its parts."""
    x, c_noise, condition = (given[:3] for given in arguments_of(name))
    plain, network = build(name).eval(), place(name, backend, "fp32")
    expected, kept = plain.keeping(x, c_noise, condition)
    output, value = network.keeping(x, c_noise, condition)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    torch.testing.assert_close(value, kept, rtol=0, atol=1e-4 * float(kept.abs().max()))
    expected = plain.reusing(x + 0.1, c_noise, condition, kept)
    output = network.reusing(x + 0.1, c_noise, condition, value)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("backend", EIGHT_BITS)
@pytest.mark.parametrize("name", REUSING)
@torch.inference_mode()
def test_eight_bits_are_near_once_calibrated_and_stay_so(name: str, backend: str) -> None:
    arguments = arguments_of(name)
    expected = output(build(name).eval(), *arguments)
    network = place(name, backend, "fp32")
    assert isinstance(network, Calibrated)
    with pytest.raises(RuntimeError, match="not calibrated"):
        network(*arguments)
    assert network.needs_calibration
    with network.calibrating():
        assert distance(output(network, *arguments), expected) < 1e-4
    assert not network.needs_calibration
    made = output(network, *arguments)
    assert 1e-4 < distance(made, expected) < 0.25
    again = place(name, backend, "fp32")
    assert isinstance(again, Calibrated)
    assert not again.needs_calibration
    assert torch.equal(output(again, *arguments), made)
