"""A real service in a process of its own, to be asked over HTTP, told to stop, and killed."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from izograf.service.context import Service

ROOT = Path(__file__).parents[3]
OPS_SERVER = Path(__file__).with_name("ops_server.py")
NO_LIMITS = {
    "IZOGRAF_REQUESTS_PER_MINUTE": "1000000",
    "IZOGRAF_JOBS_PER_MINUTE": "1000000",
    "IZOGRAF_MAX_QUEUED": "1000000",
    "IZOGRAF_MAX_QUEUED_PER_OWNER": "1000000",
}
START_SECONDS, STOP_SECONDS = 120.0, 60.0
MakeService = Callable[..., Service]
"""make_service(engine=..., **settings) -> a running one, in this process (see conftest.py)."""

READY = "Izograf is ready: "
CLASSES = ("mountain", "sea", "forest")


class Process:
    """One start of the service in `folder`, which is its working directory as well."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        engine: str = "quick",
        database_url: str | None = None,
        environment: Mapping[str, str] = {},
    ) -> None:
        """`engine`: `quick` and `forgetful` are those of ops_server.py, others the program's."""
        own = engine in ("quick", "forgetful")
        program = [str(OPS_SERVER)] if own else ["-m", "izograf.cli.main"]
        chosen = [] if own else ["--engine", engine]
        url = [] if database_url is None else ["--database-url", database_url]
        self.command = [
            sys.executable, *program, "serve", "--port", "0", "--data-dir", str(folder / "data"),
            "--log-format", "json", *chosen, *url, *arguments,
        ]  # fmt: skip
        self.environment = os.environ | NO_LIMITS | {"OPS_ENGINE": engine} | dict(environment)
        self.folder, self.log_path = folder, folder / "log.jsonl"
        self.address = ""

    def __enter__(self) -> Process:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE,
                stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        self.address = self._address()
        self.client = httpx.Client(base_url=self.address, timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def _address(self) -> str:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(START_SECONDS), f"it did not start: {self.log()}"
        line = self.process.stdout.readline()
        if not line.startswith(READY):
            self.process.kill()
            self.process.communicate()
            raise AssertionError(f"it did not start: {line}{self.log()}")
        return line.removeprefix(READY).strip()

    def kill(self) -> None:
        """What a power cut or the system's memory guard does."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def log(self) -> str:
        return self.log_path.read_text()

    def submit(self, seed: int = 0, *, expect: int = 202, **given: Any) -> dict[str, Any]:
        answer = self.client.post("/api/v1/jobs", json=order(seed, **given))
        assert answer.status_code == expect, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def job(self, job_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.client.get(f"/api/v1/jobs/{job_id}").json()
        return body

    def wait(self, job_ids: Sequence[str], *, seconds: float = 240) -> list[str]:
        """The statuses of jobs, all ended."""

        def ended() -> bool:
            return all(
                self.job(job_id)["status"] not in ("queued", "running") for job_id in job_ids
            )

        wait_for(ended, seconds=seconds)
        return [self.job(job_id)["status"] for job_id in job_ids]

    def memory(self) -> int:
        """Resident bytes of the web process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def children(self) -> list[int]:
        """The process numbers of what the service started, workers and multiprocessing's own."""
        task = Path(f"/proc/{self.process.pid}/task")
        found = [path.read_text().split() for path in task.glob("*/children")]
        return [int(number) for numbers in found for number in numbers]

    def maps(self) -> str:
        """The libraries in the memory of the web process."""
        return Path(f"/proc/{self.process.pid}/maps").read_text()


def order(seed: int = 0, *, num_images: int = 1, steps: int = 2, **given: Any) -> dict[str, Any]:
    """The body of a POST to /api/v1/jobs."""
    return {
        "model": "scenes", "condition": {"type": "class", "class": CLASSES[seed % len(CLASSES)]},
        "num_images": num_images, "seed": seed, "options": {"num_inference_steps": steps}, **given,
    }  # fmt: skip


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Seconds since the block began."""
    began = time.perf_counter()
    yield lambda: time.perf_counter() - began
