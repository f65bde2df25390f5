"""What an operator watches, in Prometheus' words: counted as it happens, or asked for when read."""

from __future__ import annotations

import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from izograf import __version__
from izograf.engine.ports import JobPage, JobQueue
from izograf.schema.errors import StorageError
from izograf.schema.job import Job, Status, StoredImage
from izograf.store.open import Store

if TYPE_CHECKING:
    from izograf.service.context import Service

log = logging.getLogger(__name__)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
WAITS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
ANSWERS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """The figures of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.queue_wait = self._histogram(
            "izograf_queue_wait_seconds", "From accepting a job to claiming it.", WAITS
        )
        self.generation = self._histogram(
            "izograf_generation_seconds", "The computation of a job that was done.", WAITS, "model"
        )
        self.answers = self._histogram(
            "izograf_http_request_seconds", "From request to the end of its answer.", ANSWERS,
            "route",
        )  # fmt: skip
        self.ended = self._counter(
            "izograf_jobs_ended_total", "Jobs that ended, by how.", "status", "model"
        )
        self.images = self._counter("izograf_images_total", "Pictures made.", "model")
        self.joules = self._counter(
            "izograf_energy_joules_total", "Energy of jobs that were done, where known.",
            "model", "method",
        )  # fmt: skip
        self.deaths = self._counter(
            "izograf_worker_deaths_total", "Attempts that ended because their worker was gone."
        )
        self.requests = self._counter(
            "izograf_http_requests_total", "Answers, by route and status.",
            "method", "route", "status",
        )  # fmt: skip
        self.limited = self._counter(
            "izograf_rate_limited_total",
            "Answers 429: too many requests, or a full queue.",
            "route",
        )
        self.housekeeping = self._counter(
            "izograf_housekeeping_total", "Rounds of housekeeping, by outcome.", "outcome"
        )

    def watch(self, service: Service) -> None:
        """Adds what is asked for at the moment of reading."""
        self.registry.register(_Now(service))

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answer. `route` is a template: clients must not be able to invent labels."""
        known = method if method in METHODS else "other"
        self.requests.labels(known, route, str(status)).inc()
        if not route.endswith("/events"):  # a stream lasts as long as its listener likes
            self.answers.labels(route).observe(seconds)
        if status == 429:
            self.limited.labels(route).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)


class _Now:
    """Gauges, read from the parts of the service when somebody looks."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering must not ask the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        service = self._service
        built = {"version": __version__, "python": platform.python_version()}
        yield _gauge("izograf_build_info", "Which program this is.", [(built, 1)])
        yield from self._of_store(service.store)
        yield _one("izograf_dispatcher_alive", "Jobs are taken up.", service.dispatcher.alive)
        yield _one("izograf_sse_listeners", "Open event streams.", service.hub.num_listeners)
        free = shutil.disk_usage(service.settings.data_dir).free
        yield _one("izograf_disk_free_bytes", "Free space for pictures.", free)
        yield from self._of_workers()

    def _of_store(self, store: Store) -> Iterator[Metric]:
        try:
            counted, queued = store.jobs.count_by_status(), store.jobs.num_queued()
        except StorageError:
            yield _one("izograf_store_up", "The store answers.", False)
            return
        yield _one("izograf_store_up", "The store answers.", True)
        yield _one("izograf_queue_length", "Jobs that wait.", queued)
        rows = [({"status": str(status)}, number) for status, number in counted.items()]
        yield _gauge("izograf_jobs", "Jobs in the store, by status.", rows)

    def _of_workers(self) -> Iterator[Metric]:
        wanted: Mapping[str, tuple[str, Callable[[Any], float]]] = {
            "izograf_worker_alive": ("The worker is ready.", lambda w: w.alive),
            "izograf_worker_busy": ("The worker computes.", lambda w: w.busy),
            "izograf_worker_memory_bytes": ("Resident memory.", lambda w: w.memory_bytes),
            "izograf_worker_jobs": ("Jobs it ended.", lambda w: w.jobs_done),
        }
        workers = self._service.engine.health()
        for name, (text, value) in wanted.items():
            rows = [({"worker": w.name, "device": w.device}, float(value(w))) for w in workers]
            yield _gauge(name, text, rows)


def _one(name: str, text: str, value: float) -> Metric:
    return _gauge(name, text, [({}, value)])


def _gauge(name: str, text: str, rows: Sequence[tuple[Mapping[str, str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=tuple(rows[0][0]) if rows else ())
    for labels, value in rows:
        family.add_metric(tuple(labels.values()), float(value))
    return family


class WatchedQueue(JobQueue):
    """The dispatcher's queue, which also counts and logs how jobs fare.

    `on_change` is called after whatever a listener may want to hear of.
    """

    def __init__(
        self,
        queue: JobQueue,
        metrics: Metrics,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue, self._metrics, self._clock = queue, metrics, clock
        self._on_change = on_change
        self._models: dict[str, str] = {}  # of the jobs that are being computed

    def requeue_running(self) -> object:
        return self._queue.requeue_running()

    def claim_next(self) -> tuple[Job, int] | None:
        claimed = self._queue.claim_next()
        if claimed is not None:
            job, attempt = claimed
            waited = max(0.0, self._clock() - job.created)
            if attempt == 1:
                self._metrics.queue_wait.observe(waited)
            self._models[job.id] = job.request.model
            _log(job.id, "job started", attempt=attempt, owner=job.owner, waited=round(waited, 3))
            self._on_change()
        return claimed

    def get(self, job_id: str) -> Job:
        return self._queue.get(job_id)

    def list_jobs(self, *, status: Status | None = None, limit: int = 50) -> JobPage:
        return self._queue.list_jobs(status=status, limit=limit)

    def began(self, job_id: str, attempt: int) -> bool:
        return self._queue.began(job_id, attempt)

    def record_step(
        self, job_id: str, attempt: int, step: int, num_steps: int, preview: bytes | None = None
    ) -> bool:
        kept = self._queue.record_step(job_id, attempt, step, num_steps, preview)
        self._on_change()
        return kept

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
    ) -> bool:
        kept = self._queue.finish(
            job_id, attempt, pictures, seconds=seconds, joules=joules, energy_method=energy_method,
            result=result,
        )  # fmt: skip
        model = self._models.get(job_id, "unknown")
        if kept:
            self._metrics.images.labels(model).inc(len(pictures))
            if seconds is not None:
                self._metrics.generation.labels(model).observe(seconds)
            if joules is not None:
                kind = energy_method.partition(":")[0] or "unknown"
                self._metrics.joules.labels(model, kind).inc(joules)
        self._ended(
            kept, job_id, attempt, Status.DONE, images=len(pictures), seconds=seconds, joules=joules
        )
        return kept

    def fail(self, job_id: str, attempt: int, code: str, reason: str) -> bool:
        kept = self._queue.fail(job_id, attempt, code, reason)
        # the reason may quote the request, which is nobody else's business
        self._ended(kept, job_id, attempt, Status.FAILED, code=code)
        return kept

    def worker_died(self, job_id: str, attempt: int, reason: str) -> Status | None:
        status = self._queue.worker_died(job_id, attempt, reason)
        self._metrics.deaths.inc()
        _log(job_id, "worker died", attempt=attempt, reason=reason, status=status)
        self._on_change()
        if status is Status.DEAD:
            self._ended(True, job_id, attempt, Status.DEAD)
        return status

    def hand_back(self, job_id: str, attempt: int) -> bool:
        kept = self._queue.hand_back(job_id, attempt)
        self._models.pop(job_id, None)
        if kept:
            _log(job_id, "job handed back", attempt=attempt)
            self._on_change()
        return kept

    def _ended(
        self, kept: bool, job_id: str, attempt: int, status: Status, **facts: object
    ) -> None:
        model = self._models.pop(job_id, "unknown")
        if not kept:
            _log(job_id, "late result ignored", attempt=attempt)
            return
        self._metrics.ended.labels(str(status), model).inc()
        _log(job_id, "job ended", attempt=attempt, status=str(status), **facts)
        self._on_change()


def _log(job_id: str, event: str, **facts: object) -> None:
    known = {name: value for name, value in facts.items() if value is not None}
    log.info(event, extra={"job_id": job_id, **known})
