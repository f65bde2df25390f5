"""A service from its settings: tables up to date, engine and dispatcher running, then closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from sqlalchemy import text

from izograf.engine.dispatcher import Dispatcher
from izograf.engine.fake import FakeEngine
from izograf.engine.local import LocalEngine, LocalSettings
from izograf.engine.protocol import Engine
from izograf.schema.errors import Conflict
from izograf.service.api.events import batches
from izograf.service.catalogue import Catalogue
from izograf.service.context import Service
from izograf.service.housekeeping import Housekeeper
from izograf.service.hub import EventHub
from izograf.service.metrics import Metrics, WatchedQueue
from izograf.service.settings import ServiceSettings
from izograf.store.database import Database
from izograf.store.files import storage_errors
from izograf.store.migrate import upgrade
from izograf.store.open import Store, default_url, open_store

LOCK = "service.lock"

_SERVICE = 0x1207_0010  # PostgreSQL's lock: one service for each database


@contextmanager
def running_service(
    settings: ServiceSettings, *, engine: Engine | None = None
) -> Iterator[Service]:
    """The parts of a service, with its dispatcher at work; stopped in good order at the end.

    Raises:
        Conflict: another service uses the folder or the database.
        InvalidInput, StorageError, MissingExtra: the database's URL, place or driver is no good.
    """
    with ExitStack() as stack:
        stack.enter_context(only_service_of(settings.data_dir))
        store = _opened_store(settings)
        stack.callback(store.close)
        stack.enter_context(_only_service_of_database(store.database))
        store.jobs.recover()
        metrics = Metrics()
        running = engine or make_engine(settings)
        hub = EventHub(partial(batches, store.jobs))
        queue = WatchedQueue(store.jobs, metrics, hub.nudge)
        dispatcher = Dispatcher(queue, store.images, running)
        service = Service(settings, store, Catalogue(), running, dispatcher, hub, metrics=metrics)
        metrics.watch(service)
        housekeeper = Housekeeper(store, settings, metrics)
        dispatcher.start()
        stack.callback(dispatcher.stop, settings.grace_seconds)
        housekeeper.start()
        stack.callback(housekeeper.stop)
        yield service


def database_url(settings: ServiceSettings) -> str:
    """The configured database, or the one in the folder of data."""
    return settings.database_url or default_url(settings.data_dir)


def make_engine(settings: ServiceSettings) -> Engine:
    """The engine that the settings name, its workers starting."""
    if settings.engine == "fake":
        return FakeEngine()
    engine = LocalEngine(
        LocalSettings(
            devices=settings.devices,
            precision=settings.precision,
            backend=settings.backend,
            batch_size=settings.batch_size,
            preview_seconds=settings.preview_seconds,
            max_model_loads=settings.max_model_loads,
            max_memory_bytes=settings.max_memory_bytes,
        )
    )
    engine.start()
    return engine


@contextmanager
def only_service_of(data_dir: Path) -> Iterator[None]:
    """Holds the folder of data against other services of this machine; made if it is not there.

    The system lets go of it whatever way the process ends.

    Raises:
        Conflict: another process holds it. StorageError: it cannot be written.
    """
    path = data_dir / LOCK
    with storage_errors(path):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        if not _lock(file):
            file.seek(0)
            holder = file.read(20).strip()
            by = f" (process {holder})" if holder.isdigit() else ""
            raise Conflict(
                f"Another service uses {data_dir.absolute()} already{by}: stop it, or choose "
                "another folder with --data-dir."
            )
        with storage_errors(path):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield


def _lock(file: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # a system without: nothing keeps two services apart there
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _opened_store(settings: ServiceSettings) -> Store:
    upgrade(database_url(settings))
    return open_store(settings.data_dir, database_url(settings))


@contextmanager
def _only_service_of_database(database: Database) -> Iterator[None]:
    """Two services on one database would each take the other's running jobs for lost."""
    if database.is_sqlite:  # its file lies in the folder that is held already
        yield
        return
    connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    with connection:
        taken = connection.scalar(text("SELECT pg_try_advisory_lock(:n)"), {"n": _SERVICE})
        if not taken:
            raise Conflict(
                "Another service uses this database already: stop it, or name another database."
            )
        try:
            yield
        finally:
            with suppress(Exception):  # the server lets go of it with the connection
                connection.execute(text("SELECT pg_advisory_unlock(:n)"), {"n": _SERVICE})
