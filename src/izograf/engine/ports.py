"""What the dispatcher needs from the store, and no more; `store.JobStore`, `store.ImageStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from izograf.schema.job import Job, Status, StoredImage


class JobPage(Protocol):
    @property
    def items(self) -> tuple[Job, ...]: ...


class JobQueue(Protocol):
    """The rows of jobs. A report counts only while its attempt is the current, running one.

    Any method may raise `StorageError`. Its change is then either kept or not; to ask again is
    always safe, because a report that was kept makes the next one of its attempt not current.
    """

    def requeue_running(self) -> object:
        """Queues every running row again: whoever ran them is gone.

        Those that a worker had taken up are charged with a death.
        """
        ...

    def claim_next(self) -> tuple[Job, int] | None:
        """The job whose turn it is, now running, and its attempt; None if none waits."""
        ...

    def get(self, job_id: str) -> Job:
        """The job as it stands; raises `NotFound`."""
        ...

    def list_jobs(self, *, status: Status | None = None, limit: int = 50) -> JobPage: ...

    def began(self, job_id: str, attempt: int) -> bool:
        """Notes that a worker took the attempt up."""
        ...

    def record_step(
        self, job_id: str, attempt: int, step: int, num_steps: int, preview: bytes | None = None
    ) -> bool: ...

    def finish(
        self,
        job_id: str,
        attempt: int,
        pictures: Sequence[StoredImage],
        *,
        seconds: float | None = None,
        joules: float | None = None,
        energy_method: str = "",
        result: Mapping[str, Any] | None = None,
    ) -> bool: ...

    def fail(self, job_id: str, attempt: int, code: str, reason: str) -> bool: ...

    def worker_died(self, job_id: str, attempt: int, reason: str) -> Status | None:
        """Queues the job again, or makes it dead; None unless the attempt is current."""
        ...

    def hand_back(self, job_id: str, attempt: int) -> bool:
        """Queues a job again that was given up in good order, which is no death."""
        ...


class Pictures(Protocol):
    """The files of pictures."""

    def write_files(self, pngs: Sequence[bytes]) -> None:
        """Puts the files of several pictures on disk side by side, for `stage` to find them."""
        ...

    def stage(
        self,
        job: Job,
        *,
        seed: int,
        png: bytes,
        width: int,
        height: int,
        record: Mapping[str, Any],
        seconds: float | None = None,
        joules: float | None = None,
        energy_method: str = "",
        words: str = "",
    ) -> StoredImage:
        """A picture whose file is on disk and whose row `finish` will write."""
        ...

    def read_file(self, sha256: str) -> bytes:
        """The content of a file that a job reads; raises `StorageError`."""
        ...
