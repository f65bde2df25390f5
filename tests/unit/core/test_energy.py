"""Joules are the counters' where there are any, and never called measured where there are none."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from izograf.core import energy
from izograf.core.energy import Energy, RAPLMeter, measure_energy

RANGE = 262_143_328_850


def zone(powercap: Path, name: str, kind: str, microjoules: int) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(kind + "\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder


def count_to(folder: Path, microjoules: int) -> None:
    """At once, as a counter does: somebody may be reading."""
    (folder / "next").write_text(f"{microjoules}\n")
    (folder / "next").replace(folder / "energy_uj")


def test_packages_and_memory_are_summed_and_nothing_twice(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    cores = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 5_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    platform = zone(tmp_path, "intel-rapl:2", "psys", 0)
    again = zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    with measure_energy(powercap=tmp_path) as reading:
        count_to(first, 4_000_000)
        count_to(memory, 5_500_000)
        count_to(second, 2_000_000)
        for inside in (cores, platform, again):
            count_to(inside, 90_000_000)
    assert reading.energy.joules == pytest.approx(3 + 0.5 + 2)
    assert reading.energy.measured
    assert "RAPL" in reading.energy.method
    assert reading.energy.watts == pytest.approx(5.5 / reading.energy.seconds)


def test_a_counter_may_wrap_between_two_looks(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 2_000_000)
    meter = RAPLMeter(tmp_path)
    count_to(package, 3_000_000)
    meter.update()
    assert meter.joules == pytest.approx(5)


def test_a_long_measurement_looks_often_enough_to_see_every_wrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    looks: list[float] = []
    update = RAPLMeter.update
    monkeypatch.setattr(RAPLMeter, "period", 0.001)
    monkeypatch.setattr(RAPLMeter, "update", lambda self: (looks.append(0), update(self))[1])
    with measure_energy(powercap=tmp_path) as reading:
        for counter in (RANGE - 1_000_000, 1_000_000):  # nearly a whole turn, then over the top
            count_to(package, counter)
            seen = len(looks)
            deadline = time.monotonic() + 10
            while len(looks) < seen + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
    assert reading.energy.joules == pytest.approx(RANGE / 1e6 + 1)


@pytest.mark.parametrize("trouble", ["absent", "unreadable", "no package", "breaks"])
def test_without_a_counter_the_figure_is_an_estimate_and_says_so(
    tmp_path: Path, trouble: str
) -> None:
    if trouble != "absent":
        kind = "psys" if trouble == "no package" else "package-0"
        folder = zone(tmp_path, "intel-rapl:0", kind, 7)
        if trouble == "unreadable":  # to everybody: a test may run as root
            (folder / "energy_uj").unlink()
    busy = time.process_time()
    with measure_energy(powercap=tmp_path, watts_per_core=20) as reading:
        sum(range(300_000))
        if trouble == "breaks":
            (folder / "energy_uj").unlink()
    busy = time.process_time() - busy
    told = reading.energy
    assert not told.measured
    assert told.method == "estimated: processor seconds x 20 W per core"
    assert told.joules is not None
    assert 0 < told.joules <= 20 * busy


def test_waiting_costs_nothing_by_the_estimate(tmp_path: Path) -> None:
    with measure_energy(powercap=tmp_path) as reading:
        time.sleep(0.2)
    assert reading.energy.seconds >= 0.2
    assert reading.energy.joules is not None
    assert reading.energy.joules < 0.1 * energy.WATTS_PER_CORE


def test_what_failed_is_measured_too(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with suppress(ZeroDivisionError), measure_energy(powercap=tmp_path) as reading:
        count_to(package, 1_000_000)
        raise ZeroDivisionError
    assert reading.energy.joules == pytest.approx(1)


def test_power_of_a_gpu_is_integrated(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    watts = iter([100.0, 300.0, 300.0])
    clock = iter([10.0, 11.0, 13.0])
    monkeypatch.setattr(torch.cuda, "power_draw", lambda _: next(watts) * 1000)
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(clock))
    meter = energy.GPUMeter("cuda:0")
    meter.update()
    meter.update()
    assert meter.joules == pytest.approx(200 * 1 + 300 * 2)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_an_unreadable_gpu_is_unknown_never_estimated(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def refuse(_: object) -> int:
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "power_draw", refuse)
    with measure_energy(device) as reading:
        sum(range(100_000))
    assert reading.energy.joules is None
    assert reading.energy.watts is None
    assert reading.energy.method.startswith("unknown")
    assert reading.energy.per_image(4) == {}


def test_an_entry_for_a_card() -> None:
    told = Energy(20.0, 2.0, energy.RAPL).per_image(8)
    assert told == {"joules_per_image": 2.5, "method": energy.RAPL}


def test_a_processor_is_measured_without_torch() -> None:
    program = (
        "import sys; from izograf.core.energy import measure_energy\n"
        "with measure_energy() as reading: pass\n"
        "assert reading.energy.joules is not None; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
