"""What the benchmarks share: alternating timings, MAC counting, machine peaks, memory, reports.

Import it before torch: it chooses how OpenMP threads wait as the command line does
(`izograf.cli.waiting`). That is the largest single effect on networks this small, so it is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from izograf.cli.waiting import choose_waiting

choose_waiting(os.environ)

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from izograf.core.devices import DTYPES, configure_threads, processor_name

Subject = Callable[[], object]
Timings = dict[str, list[float]]


def alternate(subjects: Mapping[str, Subject], *, rounds: int, warm_ups: int = 1) -> Timings:
    """Seconds of each subject in each round; a round runs every subject once.

    Neighbours in time see the same machine, so compare them with `ratio`. The order rotates from
    round to round: nobody always runs behind the same predecessor.
    """
    names = list(subjects)
    for _ in range(warm_ups):
        for name in names:
            subjects[name]()
    seconds: Timings = {name: [0.0] * rounds for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            subjects[name]()
            seconds[name][turn] = time.perf_counter() - start
    return seconds


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """How many times faster: the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def count_macs(run: Subject) -> int:
    """Multiply-accumulates of the convolutions, matrix products and attention that `run` executes.

    Counted where the operators are dispatched, whichever module or function called them, so it
    works on `meta` tensors as well. Norms, activations and sums are not counted.
    """
    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=attention) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def _attention_flops(
    q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object
) -> int:
    """FLOPs of q k' and weights v, from the shapes [B,heads,tokens,head_dim]."""
    batch, heads, queries, dim = q
    return 2 * batch * heads * queries * k[2] * (dim + v[3])


def machine_peaks(*, quick: bool) -> dict[str, float]:
    """FLOP/s of `matmul <precision>` and `convolution <precision>`: the rooflines of the tables."""
    size, channels, pixels = (256, 32, 16) if quick else (2048, 320, 64)
    subjects: dict[str, Subject] = {}
    for precision, dtype in DTYPES.items():
        subjects[f"matmul {precision}"] = _matmul(size, dtype)
        subjects[f"convolution {precision}"] = _convolution(channels, pixels, dtype)
    flops = {"matmul": 2 * size**3, "convolution": 2 * 2 * 9 * (channels * pixels) ** 2}
    with torch.inference_mode():
        seconds = alternate(subjects, rounds=2 if quick else 9)
    return {name: flops[name.split()[0]] / min(taken) for name, taken in seconds.items()}


def _matmul(size: int, dtype: torch.dtype) -> Subject:
    a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    return lambda: a @ b


def _convolution(channels: int, pixels: int, dtype: torch.dtype) -> Subject:
    """A 3x3 convolution of two pictures, channels last."""
    x = torch.ones(2, channels, pixels, pixels, dtype=dtype)
    kernel = torch.ones(channels, channels, 3, 3, dtype=dtype)
    x, kernel = (t.contiguous(memory_format=torch.channels_last) for t in (x, kernel))
    return lambda: F.conv2d(x, kernel, padding=1)


# Started afresh, so that the peak of the process that measures is not inherited: Linux keeps
# ru_maxrss across fork and exec.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak if sys.platform == "darwin" else 1024 * peak)
sys.exit(code)
"""


def peak_memory(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> int:
    """Largest resident size in bytes of the process that runs `command`.

    Raises:
        RuntimeError: the command failed; the message carries its standard error.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return int(done.stdout)


@torch.no_grad()
def perturb(network: nn.Module, *, seed: int = 0, deviation: float = 0.02) -> None:
    """Adds noise to every parameter, so that zero-initialised branches take part in the result."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=deviation)


def assert_finite(tensor: Tensor) -> None:
    """Guards a benchmark against timing infinities, whose arithmetic may be slower."""
    if not bool(tensor.isfinite().all()):
        raise RuntimeError("the benchmark's network gave NaN or infinity: its times mean nothing")


@dataclass(frozen=True)
class Check:
    """A measured figure and the bound it must keep."""

    name: str
    value: float
    required: float
    at_most: bool = False
    unit: str = "x"

    @property
    def kept(self) -> bool:
        return self.value <= self.required if self.at_most else self.value >= self.required

    def __str__(self) -> str:
        bound = f"{'at most' if self.at_most else 'at least'} {self.required:g}{self.unit}"
        verdict = "ok" if self.kept else "MISSED"
        return f"{self.name}: {self.value:.2f}{self.unit} (required {bound}): {verdict}"


@dataclass
class Table:
    """Rows of one kind, each with the same columns."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        columns = list(self.rows[0])
        lines = [columns] + [[_cell(row[column]) for column in columns] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([f"{self.title}:", *(f"  {line.rstrip()}" for line in text)])


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and value < 100 else _whole(value)


def _whole(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


@dataclass
class Report:
    """What a benchmark found out, as text for people or JSON for programs."""

    benchmark: str
    precision: str
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.machine = machine_facts()

    def show(self, options: argparse.Namespace) -> int:
        """Prints the report; returns the exit code: 1 when a bound was missed in a full run."""
        if options.json:
            print(json.dumps(self.to_json(), ensure_ascii=False, indent=1))
        else:
            facts = ", ".join(f"{key} {value}" for key, value in self.machine.items())
            print(f"{self.benchmark}: {facts}, precision {self.precision}\n")
            print("\n\n".join(map(str, self.tables)), end="\n\n")
            print("\n".join([*self.notes, *map(str, self.checks)]))
            if options.quick:
                print("--quick: the program runs; its figures mean nothing.")
        return int(not options.quick and not all(check.kept for check in self.checks))

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "machine": self.machine,
            "precision": self.precision,
            "tables": {table.title: table.rows for table in self.tables},
            "checks": [{**vars(check), "kept": check.kept} for check in self.checks],
            "notes": self.notes,
        }


def machine_facts() -> dict[str, Any]:
    """Machine, versions and threads; `load` is how many other processes wanted a core."""
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "waiting": _waiting(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    try:
        facts["diffusers"] = version("diffusers")
    except PackageNotFoundError:
        facts["diffusers"] = "absent"
    return facts


def _waiting() -> str:
    """How idle OpenMP threads wait: GOMP_SPINCOUNT, where set, overrides OMP_WAIT_POLICY."""
    if spins := os.environ.get("GOMP_SPINCOUNT"):
        return f"spin {spins}, then sleep"
    return os.environ["OMP_WAIT_POLICY"].lower()


def start(description: str | None, *, child: bool = False) -> argparse.Namespace:
    """Parses the options every benchmark has and sets the number of threads.

    `child` adds the option through which a benchmark starts itself to measure memory.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    if child:
        parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    configure_threads()
    return options
