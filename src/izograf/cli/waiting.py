"""How OpenMP threads wait for each other; to be chosen before torch is imported.

Threads that sleep between two small operations cost a factor of two on idle cores; threads that
spin beside another busy process cost a factor of three and more (benchmarks/README.md). So they
spin, briefly, only where nothing else runs when the program starts.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

BRIEF_SPIN = "1000"
LOADAVG = Path("/proc/loadavg")


def choose_waiting(environment: MutableMapping[str, str], loadavg: Path = LOADAVG) -> None:
    """Sets `OMP_WAIT_POLICY` and, alone on the machine, `GOMP_SPINCOUNT`, unless they are set."""
    if "OMP_WAIT_POLICY" in environment or "GOMP_SPINCOUNT" in environment:
        return
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    if runnable_threads(loadavg) <= 1:  # this one
        environment["GOMP_SPINCOUNT"] = BRIEF_SPIN


def runnable_threads(loadavg: Path = LOADAVG) -> int:
    """Threads of the whole machine that want a core now; many where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        return int(loadavg.read_text().split()[3].split("/")[0])
    return 1 << 16
