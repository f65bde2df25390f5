"""Backup and restore: database and pictures, as one folder or one zip, while the service runs.

A backup holds `database.sqlite3` (whatever the live database is: PostgreSQL is copied table by
table from one snapshot), the files its rows name under `images/` (pictures, and what unfinished
jobs read), and `backup.json`, which is written last: without it, the rest is no backup. Restoring
one into another kind of database is how a store moves from SQLite to PostgreSQL and back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, exists, func, insert, select, text

from izograf.schema.errors import Conflict, InvalidInput, NotFound, StorageError
from izograf.store.database import Database, sqlite_url
from izograf.store.files import ImageFiles, storage_errors
from izograf.store.images import input_files
from izograf.store.migrate import upgrade
from izograf.store.open import IMAGES, Store
from izograf.store.tables import KEEPS_FILES, READS_FILES, images, metadata

FORMAT = 1
MANIFEST = "backup.json"
SNAPSHOT = "database.sqlite3"

_CHUNK = 1000  # rows copied at once
_PICTURE = re.compile(r"images/[0-9a-f]{2}/[0-9a-f]{2}/([0-9a-f]{64})\.png")


@dataclass(frozen=True)
class BackupReport:
    """What a backup holds."""

    created: float
    jobs: int
    images: int
    users: int
    database_sha256: str
    format: int = FORMAT


def backup(store: Store, target: Path, *, clock: Callable[[], float] = time.time) -> BackupReport:
    """Writes a backup to `target`, a zip if its name ends so and else a folder.

    Pictures are written before their rows and deleted after them, so copying the database first
    and then its pictures is consistent; a picture purged in between is left out of both.

    Raises:
        Conflict: `target` exists. StorageError: no space, or a picture's file is missing.
    """
    if target.exists():
        raise Conflict(f"{target} exists already: name a new place for the backup.")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with storage_errors(target):
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir(mode=0o700)
        try:
            snapshot = unfinished / SNAPSHOT
            _copy_database(store.database, snapshot)
            _copy_pictures(store, snapshot, unfinished)
            report = _report(snapshot, clock())
            _write_durably(unfinished / MANIFEST, json.dumps(asdict(report), indent=2).encode())
            if target.suffix.lower() == ".zip":
                _zip(unfinished, target)
            else:
                unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return report


def restore_backup(source: Path, data_dir: Path, url: str) -> BackupReport:
    """Brings the backup at `source` back into an empty folder and an empty database.

    Raises:
        NotFound: there is no backup at `source`. InvalidInput: it is damaged or too new.
        Conflict: the database or the folder of pictures holds something already.
    """
    _refuse_to_overwrite(data_dir, url)
    with tempfile.TemporaryDirectory(dir=_made(data_dir)) as scratch:
        folder = _unpacked(source, Path(scratch))
        report = _checked_report(source, folder)
        pictures = list(_checked_pictures(source, folder))
        snapshot = Path(scratch) / "upgraded.sqlite3"
        with storage_errors(snapshot):
            shutil.copyfile(folder / SNAPSHOT, snapshot)
        upgrade(sqlite_url(snapshot))
        try:
            for picture in pictures:
                ImageFiles(data_dir / IMAGES).write(picture.read_bytes())
            _fill_database(snapshot, url)
        except BaseException:  # what is half restored must not stop the next try
            shutil.rmtree(data_dir / IMAGES, ignore_errors=True)
            raise
    return report


def _copy_database(live: Database, snapshot: Path) -> None:
    if live.is_sqlite:
        path = Path(str(live.engine.url.database))
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(snapshot)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        return
    upgrade(sqlite_url(snapshot))
    target = Database(sqlite_url(snapshot))
    try:
        isolated = live.engine.execution_options(isolation_level="REPEATABLE READ")
        with isolated.begin() as source:
            target.write(lambda connection: _copy_tables(source, connection))
    finally:
        target.close()
    with closing(sqlite3.connect(snapshot)) as copy:
        copy.execute("PRAGMA journal_mode=DELETE")


def _copy_tables(source: Connection, target: Connection) -> None:
    """Copies every row; tables before those that refer to them."""
    for table in metadata.sorted_tables:
        rows = source.execution_options(yield_per=_CHUNK).execute(select(table))
        for chunk in rows.mappings().partitions():
            target.execute(insert(table), [dict(row) for row in chunk])
    if target.dialect.name == "postgresql":
        # the copied numbers did not pass through the sequence that gives the next one
        target.execute(
            text(
                "SELECT setval(pg_get_serial_sequence('audit', 'number'), "
                "(SELECT coalesce(max(number), 0) + 1 FROM audit), false)"
            )
        )


def _copy_pictures(store: Store, snapshot: Path, folder: Path) -> None:
    copied = ImageFiles(folder / IMAGES)
    with closing(sqlite3.connect(snapshot)) as database:
        for name in _named_files(database):
            target = copied.path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(store.files.path(name), target)
            except FileNotFoundError as error:
                if _is_named(store.database, name):
                    raise StorageError(
                        f"The picture file {name}.png is missing, so a backup would be incomplete."
                    ) from error
                _leave_out(database, name)
            else:
                _sync(target)


def _named_files(database: sqlite3.Connection) -> list[str]:
    """The digests of every picture of a snapshot, and of what its jobs still need."""
    pictures = database.execute("SELECT DISTINCT sha256 FROM images")
    inputs = database.execute(f"SELECT inputs FROM jobs WHERE {KEEPS_FILES}")
    read = {sha256 for (text,) in inputs for sha256 in json.loads(text).values()}
    return sorted({row[0] for row in pictures} | read)


def _leave_out(database: sqlite3.Connection, name: str) -> None:
    """Forgets in a snapshot what named a file that was purged while the backup was made."""
    database.execute("PRAGMA foreign_keys=ON")
    database.execute("DELETE FROM images WHERE sha256 = ?", (name,))
    database.execute(
        f"DELETE FROM jobs WHERE {READS_FILES} AND instr(inputs, ?)", (json.dumps(name),)
    )
    database.commit()


def _is_named(database: Database, sha256: str) -> bool:
    with database.reading() as connection:
        named = connection.scalar(select(exists().where(images.c.sha256 == sha256)))
        return bool(named) or sha256 in input_files(connection)


def _report(snapshot: Path, created: float) -> BackupReport:
    with closing(sqlite3.connect(snapshot)) as database:
        counts = {
            name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("jobs", "images", "users")
        }
    _sync(snapshot)
    return BackupReport(created=created, database_sha256=_sha256(snapshot), **counts)


def _zip(folder: Path, target: Path) -> None:
    unfinished = folder.with_suffix(".zip.tmp")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(folder).as_posix())
        unfinished.chmod(0o600)
        _sync(unfinished)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _refuse_to_overwrite(data_dir: Path, url: str) -> None:
    pictures = data_dir / IMAGES
    if pictures.exists() and any(pictures.iterdir()):
        raise Conflict(f"{pictures} holds pictures already: restore into an empty folder.")
    upgrade(url)
    database = Database(url)
    try:
        with database.reading() as connection:
            for table in metadata.sorted_tables:
                if connection.scalar(select(func.count()).select_from(table)):
                    raise Conflict(
                        f"The database holds {table.name} already: restore into an empty one."
                    )
    finally:
        database.close()


def _unpacked(source: Path, scratch: Path) -> Path:
    """The folder of a backup; a zip is unpacked, only names that a backup can have."""
    if source.is_dir():
        return source
    if not source.is_file():
        raise NotFound(f"There is no backup at {source}.")
    folder = scratch / "unpacked"
    with storage_errors(folder):
        try:
            with zipfile.ZipFile(source) as archive:
                for name in archive.namelist():
                    if name not in (MANIFEST, SNAPSHOT) and _PICTURE.fullmatch(name) is None:
                        raise InvalidInput(f"{source} is not a backup: it holds {name[:80]!r}.")
                    archive.extract(name, folder)
        except zipfile.BadZipFile as error:
            raise InvalidInput(f"{source} is damaged: {error}.") from error
    return folder


def _checked_report(source: Path, folder: Path) -> BackupReport:
    try:
        raw: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        if raw["format"] > FORMAT:
            raise InvalidInput(f"{source} was made by a newer izograf: update this program.")
        report = BackupReport(**raw)
    except FileNotFoundError:
        raise NotFound(f"There is no complete backup at {source}.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"{source} is damaged: {error}.") from error
    if not (folder / SNAPSHOT).is_file() or _sha256(folder / SNAPSHOT) != report.database_sha256:
        raise InvalidInput(f"{source} is damaged: its database is not the one it was made with.")
    return report


def _checked_pictures(source: Path, folder: Path) -> Iterator[Path]:
    """The files of every picture the backup's rows name, each with the content of its name."""
    files = ImageFiles(folder / IMAGES)
    with closing(sqlite3.connect(f"file:{folder / SNAPSHOT}?mode=ro", uri=True)) as database:
        for name in _named_files(database):
            path = files.path(name)
            if not path.is_file() or _sha256(path) != name:
                raise InvalidInput(f"{source} is damaged: picture {name} is missing or changed.")
            yield path


def _fill_database(snapshot: Path, url: str) -> None:
    source, target = Database(sqlite_url(snapshot)), Database(url)
    try:
        with source.reading() as reading:
            target.write(lambda connection: _copy_tables(reading, connection))
    finally:
        source.close()
        target.close()


def _made(folder: Path) -> Path:
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_durably(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _sync(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
