"""Device, precision and threads, chosen by looking at the machine.

CUDA (ROCm answers through the same API), then MPS, then CPU. Whether bfloat16 pays off on a CPU
depends on the processor and on the width of the network, so it is timed, once per machine and
torch version, and remembered: the same machine must always choose the same precision, or equal
requests would give unequal pixels.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.core.backends import EAGER, describe_backend
from izograf.schema.errors import InvalidInput

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
HALF: Precision = "fp16"  # on accelerators only: a CPU has no arithmetic of it
PROBE_MARGIN = 1.15  # bf16 must win by this factor, so that noise cannot flip the choice


@dataclass(frozen=True)
class Placement:
    """Where, in which precision and by which backend to compute; see `fingerprint`."""

    device: str
    precision: Precision
    backend: str = EAGER

    @property
    def dtype(self) -> torch.dtype:
        return torch.float16 if self.precision == HALF else DTYPES[self.precision]

    @property
    def memory_format(self) -> torch.memory_format:
        """channels_last: what oneDNN and cuDNN convolve fastest in."""
        return torch.channels_last


def choose_device(wanted: str = "auto") -> str:
    """`cuda`, `mps` or `cpu`; a device asked for by name must be present.

    Raises:
        InvalidInput: the named device is unknown or absent.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if wanted == "auto":
        return available[0]
    if wanted.split(":")[0] not in available:
        raise InvalidInput(
            f"Device {wanted!r} is not available here: choose from auto, {', '.join(available)}."
        )
    return wanted


def choose_placement(
    device: str = "auto", precision: str = "auto", *, width: int = 128, half_on_mps: bool = False
) -> Placement:
    """The device and the faster precision for a network whose widest hot layers have `width`.

    fp16 has to be asked for, and not of a CPU; or MPS chooses it where `half_on_mps` says that
    the network bears its short range.

    Raises:
        InvalidInput: unknown device or precision.
    """
    chosen = choose_device(device)
    if precision == "auto" and half_on_mps and chosen == "mps":
        precision = HALF
    if precision == HALF and chosen != "cpu":
        return Placement(chosen, HALF)
    if precision not in ("auto", *DTYPES):
        raise InvalidInput(f"precision must be auto, {' or '.join(DTYPES)}, got {precision!r}.")
    if precision == "auto":
        precision = "bf16" if _prefers_bfloat16(chosen, width) else "fp32"
    return Placement(chosen, "bf16" if precision == "bf16" else "fp32")


def _prefers_bfloat16(device: str, width: int) -> bool:
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    bucket = 32 if width < 48 else 64 if width < 96 else 128
    return remembered_ratio(bucket) >= PROBE_MARGIN


def cache_folder() -> Path:
    """Where small machine facts are kept: `$IZOGRAF_CACHE`, else the user's cache folder."""
    if explicit := os.environ.get("IZOGRAF_CACHE"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "izograf"


def remembered_ratio(width: int) -> float:
    """fp32 time / bf16 time of a convolution of `width` channels on this CPU, measured once."""
    path = cache_folder() / "precision.json"
    key = f"{processor_name()}|torch {torch.__version__}|width {width}"
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError, RecursionError):
        read = json.loads(path.read_text())
        known = read if isinstance(read, dict) else {}
    if isinstance(known.get(key), float):
        return float(known[key])
    known[key] = round(measure_ratio(width), 3)
    with suppress(OSError):  # an unwritable cache only means measuring again
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known, indent=1))
        temporary.replace(path)
    return float(known[key])


def measure_ratio(width: int, *, repeats: int = 7) -> float:
    """Median fp32 / bf16 time of a 3x3 convolution at 16x16, batch 8, alternating."""

    def subject(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        kernel = torch.full((width, width, 3, 3), 0.01, dtype=dtype)
        image = torch.full((8, width, 16, 16), 0.5, dtype=dtype)
        layout = torch.channels_last
        return image.contiguous(memory_format=layout), kernel.contiguous(memory_format=layout)

    subjects = [subject(torch.float32), subject(torch.bfloat16)]
    ratios = []
    with torch.inference_mode():
        for image, kernel in subjects:
            F.conv2d(image, kernel, padding=1)
        for _ in range(repeats):
            times = []
            for image, kernel in subjects:
                start = time.perf_counter()
                F.conv2d(image, kernel, padding=1)
                times.append(time.perf_counter() - start)
            ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def processor_name() -> str:
    """The CPU's model name as the system reports it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def free_threads() -> int:
    """How many threads may compute: the affinity mask, the cgroup quota, `OMP_NUM_THREADS`.

    More threads than free cores is far slower than fewer (8x was seen), so a machine shared with
    other busy processes should say how many are free through `OMP_NUM_THREADS`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    allowed = max(1, min(cores or 1, _cgroup_cores()))
    if explicit := os.environ.get("OMP_NUM_THREADS"):
        with suppress(ValueError):
            return max(1, min(int(explicit), allowed))
    return allowed


def _cgroup_cores() -> int:
    """The CPU quota of cgroup v2 or v1, rounded up; a large number where there is none."""
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        if quota != "max":
            return max(1, -(-int(quota) // int(period)))
    with suppress(OSError, ValueError):
        folder = Path("/sys/fs/cgroup/cpu")
        limit = int((folder / "cpu.cfs_quota_us").read_text())
        if limit > 0:
            return max(1, -(-limit // int((folder / "cpu.cfs_period_us").read_text())))
    return 1 << 16


def configure_threads() -> int:
    """Sets torch's thread count to `free_threads()` and returns it; for program entry points."""
    threads = free_threads()
    torch.set_num_threads(threads)
    return threads


def fingerprint(placement: Placement) -> dict[str, str]:
    """What must be equal for equal requests to give bit-equal pixels."""
    name = torch.cuda.get_device_name() if placement.device.startswith("cuda") else processor_name()
    return {
        "torch": str(torch.__version__),  # plain: to unpickle its own type imports torch
        "device": placement.device,
        "device_name": name,
        "precision": placement.precision,
        "backend": describe_backend(placement.backend),
        "threads": str(torch.get_num_threads()),
    }
