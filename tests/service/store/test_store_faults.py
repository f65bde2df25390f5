"""P13: a locked, full, unreachable or damaged database, a full disk, and what is synced when."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event, exc, text
from store_postgres import Server

from izograf.schema.errors import InvalidInput, StorageError, StoreUnavailable
from izograf.schema.job import Job, Status
from izograf.schema.request import GenerationRequest
from izograf.store.database import Database, sqlite_url
from izograf.store.files import ImageFiles
from izograf.store.jobs import JobStore
from izograf.store.migrate import upgrade
from izograf.store.open import Store

ORDER = GenerationRequest("scenes")


def test_a_locked_database_is_unavailable_and_then_works(store: Store, impatient: Database) -> None:
    job = store.jobs.submit("ann", "generate", ORDER)
    second = JobStore(impatient, store.files)
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET priority = 1"))
        with pytest.raises(StoreUnavailable, match="locked"):
            second.cancel(job.id)
        assert second.get(job.id).priority == 0, "readers do not wait"
    assert second.get(job.id).priority == 1
    assert second.cancel(job.id)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_claim_steps_over_a_job_that_somebody_is_changing(
    store: Store, impatient: Database, kind: str
) -> None:
    assert kind
    first, second = (store.jobs.submit("ann", "generate", ORDER).id for _ in range(2))
    with store.database.engine.begin() as connection:
        connection.execute(text("SELECT * FROM jobs WHERE id = :id FOR UPDATE"), {"id": first})
        dispatcher = JobStore(impatient, store.files)
        claim = dispatcher.claim_next()
        assert claim is not None
        assert claim[0].id == second
        assert dispatcher.claim_next() is None
    assert store.jobs.claim_next() is not None


def test_threads_wait_for_each_other(store: Store, impatient: Database) -> None:
    job = store.jobs.submit("ann", "generate", ORDER)
    started = threading.Event()

    def slow(connection: object) -> None:
        assert connection
        started.set()
        time.sleep(0.2)

    patient = threading.Thread(target=lambda: store.database.write(slow))
    patient.start()
    started.wait()
    store.jobs.cancel(job.id)
    patient.join()
    if impatient.is_sqlite:
        with pytest.raises(StoreUnavailable), impatient._turn():
            impatient.write(lambda c: c)


def test_nothing_of_a_failed_transaction_stays(store: Store) -> None:
    def work(connection: object) -> None:
        connection.execute(text("DELETE FROM jobs"))  # type: ignore[attr-defined]
        raise KeyError("a mistake")

    job = store.jobs.submit("ann", "generate", ORDER)
    with pytest.raises(KeyError):
        store.database.write(work)
    assert store.jobs.get(job.id) == job


def test_a_mistake_in_a_statement_is_not_disguised(store: Store) -> None:
    with pytest.raises(exc.DBAPIError), store.database.reading() as connection:
        connection.execute(text("SELECT * FROM no_such_table"))


def test_the_disk_is_full_while_a_picture_is_written(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store.jobs.submit("ann", "generate", ORDER)
    store.jobs.claim_next()

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="disk is full"):
            store.images.stage(job, seed=0, png=b"x", width=1, height=1, record={})
    assert [path for path in (folder / "images").rglob("*") if path.is_file()] == []
    one = store.images.stage(job, seed=0, png=b"x", width=1, height=1, record={})
    assert store.jobs.finish(job.id, 1, [one])


def test_p13_a_picture_that_cannot_be_synced_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().suffix == ".tmp":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)  # the folders are made before the file is

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        ImageFiles(folder / "images").write(b"x")
    assert any((folder / "images").rglob("*")), "it failed before the file was begun"
    assert [path for path in (folder / "images").rglob("*") if path.is_file()] == []


def test_p13_a_picture_cut_short_on_disk_is_written_anew(folder: Path) -> None:
    files = ImageFiles(folder / "images")
    path = files.path(files.write(b"whole"))
    path.write_bytes(b"who")
    assert files.write(b"whole") == path.stem
    assert path.read_bytes() == b"whole"


def test_pictures_written_side_by_side_are_found_by_stage_and_a_full_disk_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store.jobs.submit("ann", "generate", ORDER)
    pngs = [bytes([number]) * (number + 1) for number in range(20)]
    store.images.write_files(pngs)
    written = [call for call in _synced(monkeypatch, store, job, pngs) if call != "folder"]
    assert written == []  # `stage` wrote none of them again

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        store.images.write_files([b"one more", b"and another"])


def _synced(
    monkeypatch: pytest.MonkeyPatch, store: Store, job: Job, pngs: list[bytes]
) -> list[str]:
    """What is synced while the pictures are staged."""
    log: list[str] = []

    def note(handle: int) -> None:
        log.append(Path(f"/proc/self/fd/{handle}").readlink().suffix or "folder")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", note)
        for png in pngs:
            store.images.stage(job, seed=0, png=png, width=1, height=1, record={})
    return log


def test_a_picture_is_synced_before_it_has_its_name_and_the_folder_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, str]] = []
    sync, replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        log.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().suffix or "folder"))
        sync(handle)

    def rename(self: Path, target: Path) -> Path:
        log.append(("rename", target.suffix))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    files = ImageFiles(folder / "images")
    files.write(b"x")
    made_folders = [("sync", "folder")] * 2
    assert log == [*made_folders, ("sync", ".tmp"), ("rename", ".png"), ("sync", "folder")]
    log.clear()
    files.write(b"x")
    assert log == [("sync", "folder")], "its first writer may have died before this"


def test_sqlite_keeps_a_commit_through_a_power_cut(folder: Path) -> None:
    upgrade(url := sqlite_url(folder / "x.sqlite3"))
    database = Database(url)
    with database.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.close()
    full = 2
    assert pragmas == {
        "journal_mode": "wal", "synchronous": full, "foreign_keys": 1, "busy_timeout": 5000,
    }  # fmt: skip
    assert (folder / "x.sqlite3").stat().st_mode & 0o077 == 0, "for its owner alone"


@pytest.mark.parametrize("kind", ["sqlite"])
def test_the_disk_of_the_database_is_full(store: Store, kind: str) -> None:
    assert kind
    store.database.close()

    @event.listens_for(store.database.engine, "connect")
    def connected(connection: object, _record: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # type: ignore[attr-defined]

    def submit_many() -> None:
        for _ in range(1000):
            store.jobs.submit("ann", "generate", ORDER)

    with pytest.raises(StorageError, match="disk of the database is full"):
        submit_many()
    counted = store.jobs.num_queued()
    assert store.jobs.count_by_status()[Status.QUEUED] == counted


@pytest.mark.parametrize(
    ("spoil", "error", "complaint"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), StorageError, "damaged"),
        (lambda path: path.unlink() or path.mkdir(), StoreUnavailable, "cannot be opened"),
    ],
)
def test_a_spoilt_database_file(
    folder: Path, spoil: Callable[[Path], None], error: type[Exception], complaint: str
) -> None:
    path = folder / "x.sqlite3"
    path.touch()
    spoil(path)
    database = Database(sqlite_url(path))
    for ask in (
        JobStore(database, ImageFiles(folder)).num_queued,
        lambda: upgrade(sqlite_url(path)),
    ):
        with pytest.raises(error, match=complaint):
            ask()
    database.close()


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        upgrade("postgresql+psycopg://nobody@127.0.0.1:1/nothing")


@pytest.mark.parametrize("url", ["", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "x"])
def test_a_database_we_do_not_speak(url: str) -> None:
    with pytest.raises(InvalidInput, match="database"):
        upgrade(url)


def terminate(postgres: Server) -> None:
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = 'izograf' AND pid <> pg_backend_pid()"
    )


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_restarted_server_is_found_again(store: Store, postgres: Server, kind: str) -> None:
    assert kind
    job = store.jobs.submit("ann", "generate", ORDER)
    terminate(postgres)
    assert store.jobs.get(job.id) == job
    terminate(postgres)
    assert store.jobs.cancel(job.id)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_connection_lost_before_the_commit_is_tried_again(
    store: Store, postgres: Server, kind: str
) -> None:
    assert kind
    tries = []

    def work(connection: object) -> None:
        tries.append(connection)
        connection.execute(text("DELETE FROM jobs"))  # type: ignore[attr-defined]
        if len(tries) == 1:
            terminate(postgres)
            connection.execute(text("SELECT 1"))  # type: ignore[attr-defined]

    store.jobs.submit("ann", "generate", ORDER)
    store.database.write(work)
    assert len(tries) == 2
    assert store.jobs.list_jobs().items == ()


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_connection_lost_in_the_commit_leaves_the_outcome_open(
    store: Store, postgres: Server, kind: str
) -> None:
    assert kind
    tries = []

    def work(connection: object) -> None:
        tries.append(connection)
        connection.execute(text("DELETE FROM jobs"))  # type: ignore[attr-defined]
        terminate(postgres)

    with pytest.raises(StoreUnavailable, match="unknown whether"):
        store.database.write(work)
    assert len(tries) == 1, "what may have happened is not repeated"


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_deadlock_is_tried_again(store: Store, kind: str) -> None:
    assert kind
    jobs = [store.jobs.submit("ann", "generate", ORDER).id for _ in range(2)]
    barrier = threading.Barrier(2)
    tries = []

    def lock_both(order: list[str]) -> None:
        def work(connection: object) -> None:
            tries.append(order)
            for job_id in order:
                statement = text("UPDATE jobs SET priority = priority + 1 WHERE id = :id")
                connection.execute(statement, {"id": job_id})  # type: ignore[attr-defined]
                if len(tries) <= 2 and job_id == order[0]:
                    barrier.wait()

        store.database.write(work)

    threads = [threading.Thread(target=lock_both, args=(order,)) for order in (jobs, jobs[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tries) == 3
    assert [store.jobs.get(job_id).priority for job_id in jobs] == [2, 2]
