"""What an engine is: it takes (job, attempt), computes somewhere, and reports events.

The dispatcher is the only caller. An engine keeps nothing that a restart would miss: the SQL rows
are the truth, and an event of an attempt that is no longer current is ignored by the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

from izograf.schema.job import Job

NO_INPUTS: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class Started:
    """A worker took the job up."""

    job_id: str
    attempt: int


@dataclass(frozen=True)
class Stepped:
    """`step` of `num_steps` is done; `preview` is a small PNG of the first pictures, or None."""

    job_id: str
    attempt: int
    step: int
    num_steps: int
    preview: bytes | None = None


@dataclass(frozen=True)
class OriginalFiles:
    """What an edited picture begins with: 8-bit RGB PNGs of one size, the mask white to repaint."""

    picture: bytes
    mask: bytes | None = None


@dataclass(frozen=True)
class EnginePicture:
    """One finished picture: its seed, the PNG with its record inside, and the record."""

    seed: int
    png: bytes
    width: int
    height: int
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a computation took: the pictures and their files, without queue and loading.

    Attributes:
        seconds: wall-clock time.
        joules: None where nothing tells.
        energy_method: how `joules` came about (see `core.energy`); begins with `measured`,
            `estimated` or `unknown`, empty where nobody looked.
    """

    seconds: float = 0.0
    joules: float | None = None
    energy_method: str = ""

    def part(self, share: float) -> Cost:
        """Of one of several that shared the computation: its joules, and the time of all."""
        return replace(self, joules=None if self.joules is None else share * self.joules)


@dataclass(frozen=True)
class Finished:
    """All pictures of the job, or what else it found out, and what that took."""

    job_id: str
    attempt: int
    pictures: tuple[EnginePicture, ...]
    cost: Cost
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The request cannot be carried out (`retry` False), or might be elsewhere (`retry` True).

    `code` is the stable name of the error (`InvalidInput`, `OutOfMemory`, ...); `reason` one
    sentence for the user.
    """

    job_id: str
    attempt: int
    code: str
    reason: str
    retry: bool = False


@dataclass(frozen=True)
class Stopped:
    """The job was cancelled, and its worker has stopped working on it."""

    job_id: str
    attempt: int


@dataclass(frozen=True)
class WorkerDied:
    """The worker that had these (job id, attempt) pairs is gone, with why as far as known."""

    jobs: tuple[tuple[str, int], ...]
    reason: str


EngineEvent = Started | Stepped | Finished | Failed | Stopped | WorkerDied


@dataclass(frozen=True)
class WorkerHealth:
    """One worker as an operator sees it; `starting` while it is not yet ready for its first job."""

    name: str
    device: str
    alive: bool
    busy: bool
    models: tuple[str, ...]
    memory_bytes: int
    jobs_done: int
    starting: bool = False


class Engine(Protocol):
    """Computes jobs in workers, on this machine or on many."""

    @property
    def capacity(self) -> int:
        """How many jobs may be submitted and unfinished at once to keep every worker busy."""
        ...

    def submit(self, job: Job, attempt: int, inputs: Mapping[str, bytes] = NO_INPUTS) -> None:
        """Takes the job, with the content of the files it reads, by the names of `job.inputs`.

        Never blocks for long, never raises for what the job contains.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """Stops the job within one step; unknown or finished jobs are ignored."""
        ...

    def poll(self, timeout: float) -> list[EngineEvent]:
        """Events since the last call, in order; waits up to `timeout` seconds for the first."""
        ...

    def health(self) -> tuple[WorkerHealth, ...]: ...

    def close(self, grace: float) -> None:
        """Lets running jobs finish for `grace` seconds, then stops every worker."""
        ...
