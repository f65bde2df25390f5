"""Retention: what is old enough is forgotten, once an hour, in small bites, while jobs go on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from izograf.schema.errors import StorageError
from izograf.service.metrics import Metrics
from izograf.service.settings import ServiceSettings
from izograf.store.open import Store

log = logging.getLogger(__name__)

DAY = 24 * 3600.0
FIRST_SECONDS = 60.0  # after the start, so that a start is not slowed down
EVERY_SECONDS = 3600.0
KEY_DAYS = 1.0
"""How long a repeated idempotency key is answered with the same job."""
BITE = 500  # jobs forgotten in one transaction
BREATH_SECONDS = 0.05  # between two transactions, so that others have their turn
SWEEP_GRACE = 3600.0  # how old a file without a row must be: its row may still come


class Housekeeper:
    """Runs in a thread of its own (`start`, `stop`); an error is logged and ends nothing."""

    def __init__(
        self,
        store: Store,
        settings: ServiceSettings,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._settings, self._metrics = store, settings, metrics
        self._clock = clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when the task in hand is done."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(30)
            self._thread = None

    def tidy(self) -> Mapping[str, int]:
        """One round; how many of each kind were forgotten. A task that fails stops no other."""
        tasks: Mapping[str, Callable[[], int]] = {
            "pictures": self._forget_deleted_pictures,
            "jobs": self._forget_old_jobs,
            "sessions": self._store.accounts.purge_sessions,
            "files": lambda: self._store.images.sweep(grace=SWEEP_GRACE),
        }
        done: dict[str, int] = {}
        for name, task in tasks.items():
            if self._stopping.is_set():
                break
            try:
                done[name] = task()
            except StorageError as error:
                log.warning("Housekeeping of %s has to wait: %s", name, error)
            except Exception:
                log.exception("Housekeeping of %s failed.", name)
        complete = len(done) == len(tasks)
        self._metrics.housekeeping.labels("done" if complete else "incomplete").inc()
        if any(done.values()):
            log.info("housekeeping", extra={f"num_{name}": count for name, count in done.items()})
        return done

    def _run(self) -> None:
        wait = FIRST_SECONDS
        while not self._stopping.wait(wait):
            wait = EVERY_SECONDS
            try:
                self.tidy()
            except Exception:
                log.exception("Housekeeping met an error of its own; it goes on.")

    def _forget_deleted_pictures(self) -> int:
        return self._store.images.purge_deleted(self._before(self._settings.keep_deleted_days))

    def _forget_old_jobs(self) -> int:
        """Ended jobs that left no picture; a picture keeps the job that made it."""
        total = 0
        while True:
            forgotten = self._store.jobs.purge(
                finished_before=self._before(self._settings.keep_jobs_days),
                keys_before=self._before(KEY_DAYS),
                limit=BITE,
            )
            total += forgotten
            if forgotten < BITE or self._stopping.wait(BREATH_SECONDS):
                return total

    def _before(self, days: float) -> float:
        return self._clock() - days * DAY
