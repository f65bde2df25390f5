"""Device, precision and threads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from izograf.core import devices
from izograf.core.devices import (
    Placement,
    choose_device,
    choose_placement,
    fingerprint,
    free_threads,
    measure_ratio,
    remembered_ratio,
)
from izograf.schema.errors import InvalidInput


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for machine facts."""
    monkeypatch.setenv("IZOGRAF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_unavailable_device_is_refused_with_the_available_ones() -> None:
    with pytest.raises(InvalidInput, match=r"'tpu' is not available here: choose from auto, .*cpu"):
        choose_device("tpu")
    assert choose_device("cpu") == "cpu"


def test_auto_takes_the_best_device_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device() == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    assert choose_device("cpu") == "cpu"


def test_precision_that_is_asked_for_is_given_without_measuring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(width: int) -> float:
        raise AssertionError(width)

    monkeypatch.setattr(devices, "remembered_ratio", refuse)
    assert choose_placement("cpu", "fp32") == Placement("cpu", "fp32")
    assert choose_placement("cpu", "bf16").dtype == torch.bfloat16
    with pytest.raises(InvalidInput, match="precision must be auto, fp32 or bf16, got 'fp16'"):
        choose_placement("cpu", "fp16")


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, "fp32"), (1.1, "fp32"), (2.0, "bf16")])
def test_bfloat16_must_win_clearly_to_be_chosen(
    monkeypatch: pytest.MonkeyPatch, ratio: float, expected: str
) -> None:
    monkeypatch.setattr(devices, "remembered_ratio", lambda width: ratio)  # noqa: ARG005
    assert choose_placement("cpu", "auto", width=128).precision == expected


def test_the_measurement_is_made_once_and_remembered(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(width: int) -> float:
        measured.append(width)
        return 1.5

    monkeypatch.setattr(devices, "measure_ratio", measure)
    assert [remembered_ratio(64), remembered_ratio(64), remembered_ratio(128)] == [1.5] * 3
    assert measured == [64, 128]
    assert len(json.loads((cache / "precision.json").read_text())) == 2
    assert [path.name for path in cache.iterdir()] == ["precision.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", '{"a": "b"}', "\udcff"])
def test_a_damaged_cache_only_means_measuring_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    cache.mkdir()
    (cache / "precision.json").write_bytes(content.encode(errors="surrogateescape"))
    monkeypatch.setattr(devices, "measure_ratio", lambda width: 1.25)  # noqa: ARG005
    assert remembered_ratio(64) == 1.25
    assert remembered_ratio(64) == 1.25


def test_an_unwritable_cache_only_means_measuring_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("IZOGRAF_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(devices, "measure_ratio", lambda width: 1.25)  # noqa: ARG005
    assert remembered_ratio(64) == 1.25


def test_a_measured_ratio_is_a_positive_number() -> None:
    assert 0.01 < measure_ratio(8, repeats=1) < 100


def test_measuring_draws_no_random_numbers_of_the_caller() -> None:
    before = torch.get_rng_state()
    measure_ratio(8, repeats=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_follow_the_affinity_mask_and_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)  # noqa: ARG005
    monkeypatch.setattr(devices, "_cgroup_cores", lambda: 1 << 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert free_threads() == 4
    for text, expected in (("2", 2), ("64", 4), ("0", 1), ("-3", 1), ("many", 4), ("", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert free_threads() == expected, text
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(devices, "_cgroup_cores", lambda: 3)
    assert free_threads() == 3


def test_the_fingerprint_is_made_of_texts_and_names_the_precision() -> None:
    facts = fingerprint(Placement("cpu", "bf16"))
    assert {"torch", "device", "device_name", "precision", "threads"} <= facts.keys()
    assert all(type(value) is str and value for value in facts.values())
    assert facts["precision"] == "bf16"
    assert facts != fingerprint(Placement("cpu", "fp32"))


def test_half_precision_is_for_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_placement("mps", "fp16").dtype == torch.float16
    assert choose_placement("auto", "auto", half_on_mps=True) == Placement("mps", "fp16")
    assert choose_placement("auto", "auto") == Placement("mps", "fp32")
    assert choose_placement("auto", "fp32", half_on_mps=True) == Placement("mps", "fp32")
    assert choose_placement("cpu", "fp32", half_on_mps=True) == Placement("cpu", "fp32")
