"""Counting, comparing and measuring memory are right, or every ratio printed is wrong."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F


@pytest.fixture
def common() -> Any:
    return importlib.import_module("common")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_macs_of_single_layers_by_hand(common: Any, device: str) -> None:
    with torch.device(device):
        convolution = nn.Conv2d(6, 8, 3, padding=1)
        strided = nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2)
        linear = nn.Linear(10, 7)
        image, rows = torch.zeros(2, 6, 16, 12), torch.zeros(5, 10)
    assert common.count_macs(lambda: convolution(image)) == 2 * 16 * 12 * 8 * 6 * 9
    assert common.count_macs(lambda: strided(image)) == 2 * 8 * 6 * 8 * 3 * 9
    assert common.count_macs(lambda: linear(rows)) == 5 * 10 * 7


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_macs_of_attention_whether_fused_or_explicit(common: Any, device: str) -> None:
    q, k = torch.zeros(2, 3, 32, 16, device=device), torch.zeros(2, 3, 48, 16, device=device)
    by_hand = 2 * (2 * 3 * 32 * 48 * 16)  # q k', then weights times values
    assert common.count_macs(lambda: F.scaled_dot_product_attention(q, k, k)) == by_hand
    assert common.count_macs(lambda: (q @ k.mT).softmax(-1) @ k) == by_hand


def test_macs_add_up_and_cheap_operations_are_free(common: Any) -> None:
    block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 2, 1))
    x = torch.zeros(1, 4, 8, 8)
    assert common.count_macs(lambda: block(x)) == 64 * (4 * 4 + 4 * 2)


def test_every_opponent_costs_what_ours_costs() -> None:
    pytest.importorskip("diffusers")
    subjects = importlib.import_module("subjects")
    ours = subjects.size_of_ours().macs
    for opponent in subjects.OPPONENTS:
        assert abs(subjects.size_of_theirs(opponent).macs / ours - 1) < 0.03


def test_every_round_runs_every_subject_once_in_rotated_order(common: Any) -> None:
    calls: list[str] = []
    subjects = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    seconds = common.alternate(subjects, rounds=3, warm_ups=1)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(second > 0 for taken in seconds.values() for second in taken)


def test_ratio_is_taken_within_rounds(common: Any) -> None:
    # the third round ran on a disturbed machine: both sides slowed, the ratio did not
    assert common.ratio([2.0, 2.0, 200.0], [1.0, 1.0, 100.0]) == 2.0


def test_peak_memory_is_the_commands_own(common: Any) -> None:
    size = 200_000_000
    ballast = torch.ones(size, dtype=torch.uint8)  # this process is larger than what it measures
    small = common.peak_memory([sys.executable, "-S", "-c", "pass"])
    large = common.peak_memory([sys.executable, "-S", "-c", f"x = b'x' * {size}"])
    assert small < 100_000_000
    assert size <= large - small / 2 < 1.2 * size
    assert len(ballast) == size


def test_peak_memory_of_a_failing_command_is_an_error(common: Any) -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        common.peak_memory([sys.executable, "-S", "-c", "raise ValueError('no such thing')"])


def test_perturbed_network_is_alive(common: Any) -> None:
    network = nn.Linear(4, 4)
    nn.init.zeros_(network.weight)
    common.perturb(network)
    assert bool((network.weight != 0).all())


def test_a_check_knows_its_direction(common: Any) -> None:
    assert common.Check("speed", 1.6, 1.5).kept
    assert not common.Check("speed", 1.4, 1.5).kept
    assert common.Check("memory", 400, 1000, at_most=True, unit=" MB").kept
    assert "MISSED" in str(common.Check("memory", 1001, 1000, at_most=True, unit=" MB"))


def test_report_is_valid_json_and_fails_only_full_runs(
    common: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    report = common.Report("toy", "fp32", [common.Table("t", [{"s": 0.5}])])
    report.checks.append(common.Check("speed", 1.0, 2.0))
    namespace = common.argparse.Namespace
    assert report.show(namespace(json=True, quick=False)) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["tables"] == {"t": [{"s": 0.5}]}
    assert told["checks"][0]["kept"] is False
    assert {"torch", "threads", "waiting", "processor"} <= set(told["machine"])
    assert report.show(namespace(json=False, quick=True)) == 0
    assert "mean nothing" in capsys.readouterr().out
