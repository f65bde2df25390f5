"""What the service costs, and what it holds: overhead, first preview, long queue, streams, memory.

Services run in processes of their own, on SQLite, asked over HTTP from here. The real ones use the
bundled model `scenes`; the others draw (`engine.fake`).
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from common import Check, Report, Table, start

# isort: split
import httpx
import numpy as np
from sqlalchemy import Connection, delete, insert

from izograf.core.devices import choose_placement
from izograf.engine.local import LocalEngine, LocalSettings
from izograf.engine.protocol import Failed, Finished, WorkerDied
from izograf.schema.job import Job, Status
from izograf.schema.library import ZOO
from izograf.schema.request import GenerationRequest
from izograf.store import lines
from izograf.store.ids import Ids
from izograf.store.migrate import upgrade
from izograf.store.open import default_url, open_store
from izograf.store.tables import jobs, queue_lines

MODEL, PICTURES, STEPS = "scenes", 4, 18
NEVER = 1e9
SHARE, MILLISECONDS = 0.05, 50.0  # of overhead, whichever is more
MIB = 1 << 20

# The service with an engine made for the measurement; then the arguments of `izograf serve`.
_DRAWING = """
import sys
from izograf.cli.main import main
from izograf.engine.fake import FakeEngine
from izograf.service import run
workers, seconds = int(sys.argv.pop(1)), float(sys.argv.pop(1))
run.make_engine = lambda _: FakeEngine(
    num_workers=workers, step_seconds=seconds, preview_seconds=1e9, size=16)
main()
"""
_FORGETFUL = """
import sys
from dataclasses import replace
from izograf.cli.main import main
from izograf.engine.local import LocalEngine, LocalSettings
from izograf.service import run
if __name__ == "__main__":
    run.make_engine = lambda _: LocalEngine(LocalSettings(cache_bytes=1, max_model_loads=0))
    main()
"""
_NO_LIMITS = {
    f"IZOGRAF_{name}": "1000000"
    for name in ("REQUESTS_PER_MINUTE", "JOBS_PER_MINUTE", "MAX_QUEUED", "MAX_QUEUED_PER_OWNER")
}


class Service:
    """A running service and a client of it."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address
        self.client = httpx.Client(base_url=address, timeout=60)

    def submit(
        self, seed: int = 0, *, model: str = MODEL, pictures: int = 1, steps: int = 1
    ) -> str:
        """The identifier of an accepted job."""
        body = {
            "model": model, "condition": {"type": "class", "class": "mountain"}, "seed": seed,
            "num_images": pictures, "options": {"num_inference_steps": steps},
        }  # fmt: skip
        answer = self.client.post("/api/v1/jobs", json=body)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.client.get(f"/api/v1/jobs/{job_id}").json()
        return body

    def events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(kind, data) of a job's events as they come, to the last one."""
        kind = ""
        with self.client.stream("GET", f"/api/v1/jobs/{job_id}/events") as stream:
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield kind, json.loads(line.removeprefix("data: "))

    def finish(self, job_ids: Sequence[str]) -> None:
        """Waits until all are done.

        Raises:
            RuntimeError: one ended otherwise.
        """
        for job_id in job_ids:
            while (status := self.job(job_id)["status"]) in ("queued", "running"):
                time.sleep(0.01)
            if status != "done":
                raise RuntimeError(f"the job ended {status}: {self.job(job_id)['reason']}")

    def cpu_seconds(self) -> float:
        """User and system time of the web process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident MB of the web process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB

    def worker_memory(self) -> float:
        """Resident MB of the only worker, as it says."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith("izograf_worker_memory_bytes{"):
                return float(line.split()[-1]) / MIB
        raise RuntimeError("no worker was found")


@contextmanager
def running(
    folder: Path, *program: str, models: Path | None = None, arguments: Sequence[str] = ()
) -> Iterator[Service]:
    """A service on the data in `folder`; `program` is what Python runs before `serve`."""
    environment = os.environ | _NO_LIMITS | ({"IZOGRAF_MODELS": str(models)} if models else {})
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *(program or ("-m", "izograf.cli.main")), "serve", "--port", "0",
             "--data-dir", str(folder / "data"), *arguments],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "http://" not in line:
            raise RuntimeError(f"the service did not start: {(folder / 'log').read_text()[-2000:]}")
        service = Service(process, line.split()[-1])
        with closing(service.client):
            yield service
    finally:
        process.terminate()
        process.communicate()


def drawing(workers: int, step_seconds: float) -> tuple[str, ...]:
    return ("-c", _DRAWING, str(workers), str(step_seconds))


# --- overhead and first preview


def overhead(folder: Path, *, rounds: int, steps: int) -> tuple[Table, list[Check]]:
    """The same job through the service, and given to a worker directly, alternating.

    The second worker makes no previews and no rows: whatever the service adds, in its worker or
    around it, is overhead. Both write PNGs.
    """
    with running(folder) as service, closing(Direct()) as direct:
        through: list[float] = []
        alone: list[float] = []
        inside: list[float] = []
        first_previews: list[int] = []
        for turn in range(rounds + 1):
            for which in ("service", "direct") if turn % 2 else ("direct", "service"):
                began = time.perf_counter()
                if which == "direct":
                    direct.make(turn, steps)
                else:
                    first, seconds = follow(service, turn, steps)
                    first_previews.append(first)
                    inside.append(seconds)
                taken = time.perf_counter() - began
                if turn:  # the first loads the model
                    (alone if which == "direct" else through).append(taken)
    added = [1000 * (a - b) for a, b in zip(through, alone, strict=True)]
    middle = 1000 * statistics.median(alone)
    allowed = max(SHARE * middle, MILLISECONDS)
    table = Table(f"{PICTURES} pictures of {MODEL}, {steps} steps (ms, p50 of {rounds} rounds)")
    table.rows += [
        {"subject": "worker alone", "ms": middle},
        {"subject": "POST to the last event", "ms": 1000 * statistics.median(through)},
        {
            "subject": "of which computing, as its worker says",
            "ms": 1000 * statistics.median(inside),
        },
        {"subject": "overhead", "ms": statistics.median(added)},
    ]
    return table, [
        Check("overhead of the service", statistics.median(added), allowed, True, " ms"),
        Check("step of the first preview", max(first_previews), 2, True, ""),
    ]


def follow(service: Service, seed: int, steps: int) -> tuple[int, float]:
    """Submits a job and hears it to its end: the step of its first preview, and its seconds."""
    job_id = service.submit(seed, pictures=PICTURES, steps=steps)
    first, seconds = 0, 0.0
    for kind, data in service.events(job_id):
        if kind == "preview" and not first:
            first = int(data["step"])
        if kind == "done":
            seconds = float(data["seconds"])
        if kind in ("failed", "dead", "cancelled"):
            raise RuntimeError(f"the job ended {kind}: {data}")
    if not first:
        raise RuntimeError("there was no preview")
    return first, seconds


class Direct:
    """A worker without a service."""

    def __init__(self) -> None:
        self._engine = LocalEngine(LocalSettings(preview_seconds=NEVER))
        self._number = 0

    def make(self, seed: int, steps: int) -> None:
        self._number += 1
        request = GenerationRequest(
            MODEL, {"type": "class", "class": "mountain"}, PICTURES, seed,
            {"num_inference_steps": steps},
        )  # fmt: skip
        job = Job(f"job_{self._number:026d}", "x", "generate", request, Status.RUNNING, 0.0)
        self._engine.submit(job, 1)
        while True:
            for event in self._engine.poll(1.0):
                if isinstance(event, Failed | WorkerDied):
                    raise RuntimeError(event.reason)
                if isinstance(event, Finished):
                    return

    def close(self) -> None:
        self._engine.close(0)


# --- a long queue


def long_queue(folder: Path, *, rounds: int, queued: int) -> tuple[Table, list[Check]]:
    """POST of a job with that many waiting, and with none, alternating; each is cancelled again."""
    places = {name: folder / name for name in ("empty", "full")}
    for place in places.values():
        place.mkdir()
    fill(places["full"] / "data", queued)
    with (
        running(places["empty"], *drawing(1, 3600)) as empty,
        running(places["full"], *drawing(1, 3600)) as full,
    ):
        seconds = [(post(full, turn), post(empty, turn)) for turn in range(rounds + 1)][1:]
    ratio = statistics.median(a / b for a, b in seconds)
    table = Table(f"POST /api/v1/jobs (ms, p50 of {rounds} rounds)")
    for name, column in (("none waiting", 1), (f"{queued:,} waiting", 0)):
        table.rows.append(
            {"queue": name, "ms": 1000 * statistics.median(s[column] for s in seconds)}
        )
    return table, [Check(f"POST with {queued:,} queued", ratio, 2, True)]


def post(service: Service, seed: int) -> float:
    began = time.perf_counter()
    job_id = service.submit(seed)
    taken = time.perf_counter() - began
    service.client.delete(f"/api/v1/jobs/{job_id}").raise_for_status()
    return taken


def fill(data: Path, count: int, owners: int = 200) -> None:
    """Rows of queued jobs of many owners, as `submit` writes them, but at once."""
    data.mkdir(parents=True)
    upgrade(default_url(data))
    request = GenerationRequest(MODEL, {"type": "class", "class": "mountain"}).to_json()
    new = Ids()
    row = {
        "task": "generate", "model": MODEL, "request": request, "inputs": {}, "result": {},
        "status": "queued", "priority": 0, "attempt": 0, "deaths": 0, "began": False,
        "last_event": 0, "created": time.time(), "reason": "",
    }  # fmt: skip
    names = ["local", *(f"owner {n}" for n in range(1, owners))]
    rows = [row | {"id": new.new("job"), "owner": names[n % owners]} for n in range(count)]
    opened = [
        {"owner": name, "priority": 0, "waiting": 0, "served": 0, "opened": rows[n]["id"]}
        for n, name in enumerate(names[:count])
    ]

    def work(connection: Connection) -> None:
        connection.execute(delete(queue_lines))
        connection.execute(insert(jobs), rows)
        connection.execute(insert(queue_lines), opened)
        lines.recount(connection)

    with closing(open_store(data)) as store:
        store.database.write(work)


# --- streams


def streams(folder: Path, *, clients: int, seconds: float) -> tuple[Table, list[Check]]:
    """Processor time of the web process with and without listeners, of one job or of one each.

    Every job makes a step a second; without listeners its rows are written all the same.
    """
    table = Table(f"{clients} listeners, one event a second each, {seconds:.0f} s")
    checks = []
    for name, count in (("one job", 1), ("a job each", clients)):
        place = folder / name.replace(" ", "-")
        place.mkdir()
        with running(place, *drawing(count, 1.0)) as service:
            made = [service.submit(n, steps=1000) for n in range(count)]
            while any(service.job(job_id)["status"] == "queued" for job_id in made):
                time.sleep(0.1)
            time.sleep(1)
            unheard = share(service, seconds)
            with Listeners(service, [made[n % count] for n in range(clients)]) as listeners:
                listeners.hear(3.0)  # what happened before they came
                before = listeners.num_events
                heard = share(service, seconds, listeners)
                events = (listeners.num_events - before) / clients / seconds
        table.rows.append(
            {"jobs": name, "without %": 100 * unheard, "with %": 100 * heard,
             "listeners %": 100 * (heard - unheard), "events/s each": events}
        )  # fmt: skip
        percent = 100 * (heard - unheard)
        checks.append(Check(f"{clients} listeners of {name}", percent, 10, True, " % of a core"))
        checks.append(Check(f"events to each, {name}", events, 0.8, unit="/s"))
    return table, checks


def share(service: Service, seconds: float, listeners: Listeners | None = None) -> float:
    """Of one core, that the web process takes."""
    began, cpu = time.perf_counter(), service.cpu_seconds()
    if listeners is None:
        time.sleep(seconds)
    else:
        listeners.hear(seconds)
    return (service.cpu_seconds() - cpu) / (time.perf_counter() - began)


class Listeners:
    """Open event streams, read by one thread."""

    def __init__(self, service: Service, job_ids: Sequence[str]) -> None:
        host, port = service.address.removeprefix("http://").split(":")
        self.num_events = 0
        self._selector = selectors.DefaultSelector()
        self._sockets = []
        for job_id in job_ids:
            opened = socket.create_connection((host, int(port)))
            request = f"GET /api/v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
            opened.sendall(request.encode())
            opened.setblocking(False)
            self._selector.register(opened, selectors.EVENT_READ)
            self._sockets.append(opened)

    def __enter__(self) -> Listeners:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._sockets:
            opened.close()
        self._selector.close()

    def hear(self, seconds: float) -> None:
        """Reads whatever comes for so long."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            for key, _ in self._selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                content = key.fileobj.recv(1 << 16)
                if not content:
                    raise RuntimeError("a stream ended")
                self.num_events += content.count(b"\nevent: ")


# --- memory


def memory(folder: Path, *, drawn: int, real: int) -> tuple[Table, list[Check]]:
    """Growth of resident memory per model switch, after a warm-up."""
    models = folder / "models"
    for name in ("first", "second"):
        shutil.copytree(ZOO / MODEL, models / name)
    table = Table("resident memory over model switches")
    checks = []
    (folder / "drawn").mkdir()
    with running(folder / "drawn", *drawing(1, 0.001), models=models) as service:
        rows = {"web, fake engine": samples(service, drawn, 20, lambda: service.memory())}
    (folder / "real").mkdir()
    script = folder / "real" / "server.py"
    script.write_text(_FORGETFUL)
    with running(folder / "real", str(script), models=models) as service:
        both = samples(service, real, 2, lambda: (service.memory(), service.worker_memory()))
        rows["web, real models"], rows["worker, real models"] = zip(*both, strict=True)
    for name, found in rows.items():
        switches = drawn if "fake" in name else real
        slope = float(np.polyfit(np.linspace(0, switches, len(found)), found, 1)[0])
        table.rows.append(
            {"process": name, "switches": switches, "MB first": found[0], "MB last": found[-1],
             "MB per switch": slope}
        )  # fmt: skip
        checks.append(Check(f"memory per switch: {name}", slope, 0.1, True, " MB"))
    return table, checks


def samples(service: Service, switches: int, every: int, measure: Any) -> list[Any]:
    """What is measured after every few of so many jobs whose models alternate."""
    found = []
    for turn in range(-max(1, switches // every // 5), max(2, switches // every)):
        names = ("first", "second")
        service.finish([service.submit(n, model=names[n % 2]) for n in range(every)])
        if turn >= 0:
            found.append(measure())
    return found


def main(options: argparse.Namespace) -> int:
    quick = options.quick
    report = Report("service", choose_placement().precision)
    with tempfile.TemporaryDirectory(prefix="izograf-service-") as name:
        for part in ("overhead", "queue", "streams", "memory"):
            folder = Path(name) / part
            folder.mkdir()
            if part == "overhead":
                steps = 2 if quick else STEPS
                found = overhead(folder, rounds=2 if quick else 4 * options.rounds, steps=steps)
            elif part == "queue":
                rounds, queued = (5, 1000) if quick else (40 * options.rounds, 10_000)
                found = long_queue(folder, rounds=rounds, queued=queued)
            elif part == "streams":
                clients, seconds = (10, 3.0) if quick else (100, 30.0)
                found = streams(folder, clients=clients, seconds=seconds)
            else:
                found = memory(folder, drawn=40 if quick else 500, real=4 if quick else 50)
            report.tables.append(found[0])
            report.checks += found[1]
    report.notes.append(
        "Overhead compares two workers of the same kind that take turns, one of them without "
        "previews, rows and web."
    )
    return report.show(options)


if __name__ == "__main__":
    sys.exit(main(start(__doc__)))
