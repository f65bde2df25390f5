"""The moving average of the weights and its half-life in images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from izograf.training.ema import MovingAverage


def constant(value: float) -> nn.ModuleDict:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return nn.ModuleDict({"net": layer})


def weight(average: MovingAverage) -> float:
    return float(average.modules["net"].weight)


@pytest.mark.parametrize("batch_size", [1, 10, 50])
def test_the_old_weights_lose_half_their_share_in_one_half_life(batch_size) -> None:
    average = MovingAverage(constant(1.0), ["net"], share=0.05)
    target = constant(0.0)
    # at 10,000 images seen the half-life is 500 of them; held there to see one pass
    for _ in range(500 // batch_size):
        average.update(target, 10_000, batch_size)
    assert weight(average) == pytest.approx(0.5, rel=1e-4)


def test_the_half_life_grows_with_the_images_seen() -> None:
    early, late = (MovingAverage(constant(1.0), ["net"], share=0.1) for _ in range(2))
    early.update(constant(0.0), 1_000, 100)
    late.update(constant(0.0), 100_000, 100)
    assert weight(early) == pytest.approx(0.5)
    assert weight(late) == pytest.approx(0.5 ** (100 / 10_000))


def test_a_share_of_zero_follows_the_weights_exactly() -> None:
    average = MovingAverage(constant(1.0), ["net"], share=0.0)
    average.update(constant(0.25), 10, 10)
    assert weight(average) == 0.25


def test_statistics_are_averaged_and_counters_copied() -> None:
    modules = nn.ModuleDict({"net": nn.BatchNorm2d(2)})
    average = MovingAverage(modules, ["net"], share=0.1)
    modules["net"].running_mean.fill_(1.0)
    modules["net"].num_batches_tracked.fill_(7)
    average.update(modules, 1_000, 100)
    torch.testing.assert_close(average.modules["net"].running_mean, torch.full((2,), 0.5))
    assert int(average.modules["net"].num_batches_tracked) == 7


def test_only_the_named_modules_are_averaged_and_none_asks_for_gradients() -> None:
    modules = nn.ModuleDict({"net": nn.Linear(1, 1), "other": nn.Linear(1, 1)})
    average = MovingAverage(modules, ["net"], share=0.1)
    assert set(average.modules) == {"net"}
    assert not any(parameter.requires_grad for parameter in average.modules.parameters())
    assert not average.modules.training
