"""Energy of a computation: counters of the machine where it has them, else a stated estimate.

    with measure_energy(device) as reading:
        compute()
    reading.energy.joules, reading.energy.method

Nothing here needs torch unless the device is a GPU.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
WATTS_PER_CORE = 6.0
"""Assumed power of one busy core with its share of the package, about a server's thermal design
power over its cores; without a counter only ratios on one machine mean much."""

RAPL = "measured: RAPL counters of packages and memory, whole machine"
GPU = "measured: power of the GPU board, integrated"
RAPL_PERIOD = 30.0  # seconds; a 32-bit counter of 15.3 uJ wraps after 65 s at 1 kW
GPU_PERIOD = 0.1


@dataclass(frozen=True)
class Energy:
    """What a computation took.

    Attributes:
        joules: None where the device can neither be measured nor estimated.
        seconds: wall-clock time.
        method: how `joules` came about; begins with `measured`, `estimated` or `unknown`.
    """

    joules: float | None
    seconds: float
    method: str

    @property
    def measured(self) -> bool:
        return self.method.startswith("measured")

    @property
    def watts(self) -> float | None:
        """Mean power."""
        return None if self.joules is None or self.seconds <= 0 else self.joules / self.seconds

    def per_image(self, num_images: int) -> dict[str, Any]:
        """An entry for a card's `energy`; empty where nothing is known."""
        if self.joules is None:
            return {}
        return {"joules_per_image": self.joules / num_images, "method": self.method}


class Reading:
    """The result of `measure_energy`, there once its block has ended, however it ended."""

    energy: Energy


class Meter(Protocol):
    """A running sum of joules; `update` is to be called at least every `period` seconds."""

    method: str
    period: float
    joules: float

    def update(self) -> None:
        """Brings `joules` up to date; any error means that the meter is of no use any more."""
        ...


@contextmanager
def measure_energy(
    device: str = "cpu",
    *,
    watts_per_core: float = WATTS_PER_CORE,
    powercap: Path = POWERCAP,
) -> Iterator[Reading]:
    """Measures the block that computes on `device` (`cpu`, `cuda`, `cuda:1`, `mps`).

    On a CPU: the RAPL counters, which hold whatever else the machine does meanwhile; where they
    cannot be read (they are root's on most systems), the processor seconds of this process, all
    its threads, times `watts_per_core`. On a GPU: the power of its board as torch reads it, through
    `nvidia-ml-py` or `amdsmi`; the sensor averages over up to a second, so shorter blocks are
    rough, and the host's own power is not in it. A GPU is never estimated from processor seconds.
    """
    kind = device.partition(":")[0]
    reading = Reading()
    meter = _meter(device, powercap)
    watch = None if meter is None else _Watch(meter)
    busy, start = time.process_time(), time.perf_counter()
    try:
        yield reading
    finally:
        if kind == "cuda":
            _wait_for(device)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        if watch is not None and watch.stop():
            reading.energy = Energy(watch.meter.joules, seconds, watch.meter.method)
        elif kind == "cpu":
            method = f"estimated: processor seconds x {watts_per_core:g} W per core"
            reading.energy = Energy(busy * watts_per_core, seconds, method)
        else:
            reading.energy = Energy(None, seconds, f"unknown: no power reading of {device}")


def _meter(device: str, powercap: Path) -> Meter | None:
    try:
        if device.startswith("cuda"):
            return GPUMeter(device)
        return RAPLMeter(powercap) if device == "cpu" else None
    except Exception:  # no counter, no right to read it, no driver's library: then there is none
        return None


class RAPLMeter:
    """Joules of all processor packages and the memory beside them (Linux powercap).

    Zones inside a package other than its memory are part of it, and `psys` is all of it once more.

    Raises:
        OSError, ValueError: no package whose counter can be read.
    """

    method = RAPL
    period = RAPL_PERIOD

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self.joules = 0.0
        self._zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _counts(zone)]
        if not any(_named(zone).startswith("package") for zone in self._zones):
            raise OSError(f"no processor package in {powercap}")
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = self._read()

    def update(self) -> None:
        now = self._read()
        for before, after, span in zip(self._last, now, self._ranges, strict=True):
            self.joules += (after - before + (span if after < before else 0)) / 1e6
        self._last = now

    def _read(self) -> list[int]:
        return [_number(zone / "energy_uj") for zone in self._zones]


def _counts(zone: Path) -> bool:
    return _named(zone).startswith(("package", "dram"))


def _named(zone: Path) -> str:
    return (zone / "name").read_text().strip()


def _number(path: Path) -> int:
    return int(path.read_text())


class GPUMeter:
    """Joules of one GPU: its power at every `period`, summed by the trapezoidal rule.

    Raises:
        Exception: whatever torch raises where it cannot read the power.
    """

    method = GPU
    period = GPU_PERIOD

    def __init__(self, device: str) -> None:
        self.joules = 0.0
        self._device = device
        _wait_for(device)
        self._time, self._watts = time.perf_counter(), self._read()

    def update(self) -> None:
        now, watts = time.perf_counter(), self._read()
        self.joules += (now - self._time) * (self._watts + watts) / 2
        self._time, self._watts = now, watts

    def _read(self) -> float:
        import torch

        return torch.cuda.power_draw(torch.device(self._device)) / 1000


def _wait_for(device: str) -> None:
    """Until the GPU has done what it was told; it computes behind its caller's back."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize(device)


class _Watch:
    """Updates a meter from a thread of its own."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._ending = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """The last update; whether all of them succeeded."""
        self._ending.set()
        self._thread.join()
        self._update()
        return not self._failed

    def _run(self) -> None:
        while not self._ending.wait(self.meter.period):
            self._update()

    def _update(self) -> None:
        try:
            self.meter.update()
        except Exception:
            self._failed = True
