"""Backup and restore: while the service writes, between databases, and never over anything."""

from __future__ import annotations

import json
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from store_fixture import ORDER, check, populate
from store_postgres import Server
from store_support import KINDS, Clock

from izograf.schema.errors import Conflict, InvalidInput, NotFound, StorageError
from izograf.store import backup as backup_module
from izograf.store.backup import backup, restore_backup
from izograf.store.database import sqlite_url
from izograf.store.open import Store, open_store

Target = Callable[[str], str]


@pytest.fixture
def target(folder: Path, request: pytest.FixtureRequest) -> Target:
    """target(kind) -> the URL of another, empty database."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return sqlite_url(folder / "restored" / "izograf.sqlite3")
        server: Server = request.getfixturevalue("postgres")
        return server.create("restored")

    return make


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("name", ["backup", "backup.zip"])
def test_everything_comes_back(
    store: Store, folder: Path, target: Target, to: str, name: str
) -> None:
    populate(store)
    report = backup(store, folder / name)
    assert (report.jobs, report.images, report.users) == (4, 2, 1)
    assert sorted(path.name for path in folder.glob(".*")) == [], "nothing unfinished is left"
    assert (folder / name).stat().st_mode & 0o077 == 0, "for its owner alone"
    url = target(to)
    assert restore_backup(folder / name, folder / "restored", url) == report
    restored = open_store(folder / "restored", url)
    for image in store.images.list_images().items:
        assert restored.images.read_png(image.id) == b"%d" % image.seed
    check(restored)
    restored.close()


def test_what_an_edited_picture_was_made_from_comes_back(store: Store, folder: Path) -> None:
    inputs = {"original": store.files.write(b"sent in"), "mask": store.files.write(b"marks")}
    job = store.jobs.submit("ann", "edit", ORDER, inputs=inputs)
    store.jobs.claim_next()
    made = store.images.stage(job, seed=3, png=b"png", width=1, height=1, record={})
    store.jobs.finish(job.id, 1, [made])
    backup(store, folder / "backup")
    restore_backup(folder / "backup", folder / "restored", sqlite_url(folder / "restored.sqlite3"))
    restored = open_store(folder / "restored", sqlite_url(folder / "restored.sqlite3"))
    assert restored.jobs.get(job.id).inputs == inputs
    assert restored.files.read(inputs["mask"]) == b"marks"
    restored.close()


@pytest.mark.parametrize("name", ["backup", "backup.zip"])
def test_what_unfinished_jobs_read_comes_back(store: Store, folder: Path, name: str) -> None:
    inputs = {"picture": store.files.write(b"sent in")}
    job = store.jobs.submit("ann", "verify", ORDER, inputs=inputs)
    backup(store, folder / name)
    place = folder / "restored"
    restore_backup(folder / name, place, sqlite_url(folder / "restored.sqlite3"))
    restored = open_store(place, sqlite_url(folder / "restored.sqlite3"))
    assert restored.jobs.get(job.id).inputs == inputs
    assert restored.files.read(inputs["picture"]) == b"sent in"
    restored.close()


def test_a_backup_without_what_an_unfinished_job_reads_is_refused(
    store: Store, folder: Path
) -> None:
    inputs = {"picture": store.files.write(b"sent in")}
    store.jobs.submit("ann", "verify", ORDER, inputs=inputs)
    store.files.path(inputs["picture"]).unlink()
    with pytest.raises(StorageError, match="incomplete"):
        backup(store, folder / "backup")


def test_an_input_purged_during_a_backup_is_left_out_with_its_job(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"picture": store.files.write(b"sent in")}
    job = store.jobs.submit("ann", "verify", ORDER, inputs=inputs)
    copy_database = backup_module._copy_database

    def then_purge(*arguments: object) -> None:
        copy_database(*arguments)  # type: ignore[arg-type]
        store.jobs.cancel(job.id)
        store.files.path(inputs["picture"]).unlink()

    monkeypatch.setattr(backup_module, "_copy_database", then_purge)
    assert backup(store, folder / "backup").jobs == 0
    restore_backup(folder / "backup", folder / "new", sqlite_url(folder / "new.sqlite3"))


def test_a_backup_is_consistent_while_the_service_writes(store: Store, folder: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            job = store.jobs.submit("ann", "generate", ORDER)
            store.jobs.claim_next()
            one = store.images.stage(job, seed=0, png=job.id.encode(), width=1, height=1, record={})
            store.jobs.finish(job.id, 1, [one])

    writer = threading.Thread(target=work)
    writer.start()
    try:
        for number in range(2):
            backup(store, folder / f"backup {number}")
    finally:
        stop.set()
        writer.join()
    for number in range(2):
        place = folder / f"restored {number}"
        restore_backup(folder / f"backup {number}", place, sqlite_url(place / "x.sqlite3"))
        restored = open_store(place, sqlite_url(place / "x.sqlite3"))
        for image in restored.images.list_images(limit=200).items:
            assert restored.images.read_png(image.id).decode() == image.job_id
        for job in restored.jobs.list_jobs(limit=200).items:
            numbers = [event.number for event in restored.jobs.events_after(job.id)]
            assert numbers == list(range(1, len(numbers) + 1))
        restored.close()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_picture_purged_during_the_backup_is_in_neither_half(
    store: Store, folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    assert kind
    populate(store)
    first, second = store.images.list_images().items
    copy = backup_module._copy_database

    def copy_then_purge(*arguments: object) -> None:
        copy(*arguments)  # type: ignore[arg-type]
        store.images.delete([first.id])
        store.images.purge_deleted(clock.now + 1)
        clock.now += 5000
        assert store.images.sweep() == 1

    monkeypatch.setattr(backup_module, "_copy_database", copy_then_purge)
    assert backup(store, folder / "backup").images == 1
    monkeypatch.undo()
    store.files.path(second.sha256).unlink()
    with pytest.raises(StorageError, match="missing"):
        backup(store, folder / "another")
    assert not (folder / "another").exists()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_nothing_is_overwritten(store: Store, folder: Path, target: Target, kind: str) -> None:
    assert kind
    populate(store)
    backup(store, folder / "backup")
    with pytest.raises(Conflict, match="exists already"):
        backup(store, folder / "backup")
    with pytest.raises(Conflict, match="holds pictures"):
        restore_backup(folder / "backup", folder, target("sqlite"))
    used = target("sqlite")
    restore_backup(folder / "backup", folder / "restored", used)
    shutil.rmtree(folder / "restored" / "images")
    with pytest.raises(Conflict, match=r"holds \w+ already"):
        restore_backup(folder / "backup", folder / "restored", used)


def change_picture(folder: Path) -> None:
    next((folder / "images").rglob("*.png")).write_bytes(b"other")


def lose_picture(folder: Path) -> None:
    next((folder / "images").rglob("*.png")).unlink()


def change_database(folder: Path) -> None:
    with (folder / "database.sqlite3").open("ab") as file:
        file.write(b"x")


def make_newer(folder: Path) -> None:
    report = json.loads((folder / "backup.json").read_text())
    (folder / "backup.json").write_text(json.dumps(report | {"format": 2, "more": 1}))


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (change_picture, "damaged"),
        (lose_picture, "damaged"),
        (change_database, "damaged"),
        (make_newer, "newer"),
        (lambda folder: (folder / "backup.json").unlink(), "no complete backup"),
        (lambda folder: (folder / "backup.json").write_text("{}"), "damaged"),
        (shutil.rmtree, "no backup"),
    ],
)
def test_a_spoilt_backup_restores_nothing(
    store: Store,
    folder: Path,
    target: Target,
    spoil: Callable[[Path], None],
    complaint: str,
    kind: str,
) -> None:
    assert kind
    populate(store)
    backup(store, folder / "backup")
    spoil(folder / "backup")
    url = target("sqlite")
    with pytest.raises((InvalidInput, NotFound), match=complaint):
        restore_backup(folder / "backup", folder / "restored", url)
    assert not (folder / "restored" / "images").exists()
    restored = open_store(folder / "restored", url)
    assert restored.jobs.list_jobs().items == ()
    restored.close()


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "images/../../evil.png", "x.png"])
def test_p10_a_hostile_zip_writes_nothing(folder: Path, name: str) -> None:
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(InvalidInput, match="not a backup"):
        restore_backup(folder / "evil.zip", folder / "new", sqlite_url(folder / "x.sqlite3"))
    assert list(folder.rglob("*.png")) == []
    (folder / "text.zip").write_text("no zip")
    with pytest.raises(InvalidInput, match="damaged"):
        restore_backup(folder / "text.zip", folder / "new", sqlite_url(folder / "x.sqlite3"))
