"""Picture files, named by their content: `ab/cd/<sha256 of the PNG>.png` below one folder.

No text of a client ever becomes part of a path (promise P10): a path is made of a digest, and of
nothing that does not look like one. A file is on disk before a row may name it (P3, P13), and a
sweep collects files that no row names, after a time in which the row may still come.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection

from izograf.schema.errors import StorageError
from izograf.store.database import Database

PATTERN = re.compile(r"[0-9a-f]{64}")

_FILES = 0x1207_0002  # PostgreSQL's lock that keeps the sweep and new rows apart


class ImageFiles:
    """The files below `folder`; safe to share between threads and processes."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def path(self, sha256: str) -> Path:
        """Where the picture with this digest lies, whether or not it is there."""
        if PATTERN.fullmatch(sha256) is None:
            raise ValueError("a picture file is named by 64 hexadecimal digits")
        return self._folder / sha256[:2] / sha256[2:4] / f"{sha256}.png"

    def write(self, png: bytes) -> str:
        """Puts the picture on disk and returns its sha256; durable when this returns.

        Raises:
            StorageError: no space, no permission; nothing half-written is left.
        """
        sha256 = hashlib.sha256(png).hexdigest()
        path = self.path(sha256)
        with storage_errors(path):
            if not self._refresh(path, len(png)):
                self._write_new(path, png)
        return sha256

    def read(self, sha256: str) -> bytes:
        """The bytes of the picture.

        Raises:
            StorageError: the file is missing or unreadable.
        """
        path = self.path(sha256)
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageError(
                f"The picture file {path.name} cannot be read ({error.strerror}): restore a backup."
            ) from error

    def exists(self, sha256: str) -> bool:
        """Whether the picture is on disk."""
        return self.path(sha256).is_file()

    def lock(self, database: Database, connection: Connection, *, shared: bool) -> None:
        """Keeps the sweep (exclusive) and transactions that add rows (shared) apart."""
        database.advisory_lock(connection, _FILES, shared=shared)

    def folders(self) -> list[Path]:
        """The first-level folders, `00` to `ff`, that exist."""
        with storage_errors(self._folder):
            if not self._folder.is_dir():
                return []
            return sorted(path for path in self._folder.iterdir() if len(path.name) == 2)

    def sweep_folder(self, folder: Path, known: Callable[[set[str]], Collection[str]]) -> int:
        """Deletes the files in a first-level folder that `known` does not return; how many.

        `known` receives the digests found there and returns those to be kept.
        """
        deleted = 0
        with storage_errors(folder):
            files = {path.stem: path for path in folder.glob("*/*.png")}
            kept = known({name for name in files if PATTERN.fullmatch(name)})
            for name, path in files.items():
                if name not in kept:
                    path.unlink(missing_ok=True)
                    deleted += 1
        return deleted

    def older_than(self, sha256: str, moment: float) -> bool:
        """Whether the file was last written before `moment`; False if it is gone."""
        with suppress(OSError):
            return self.path(sha256).stat().st_mtime < moment
        return False

    def sweep_temporary(self, moment: float) -> int:
        """Deletes what writers that were killed before `moment` left behind; how many files."""
        deleted = 0
        with storage_errors(self._folder):
            for path in self._folder.glob("*/*/.*.tmp"):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < moment:
                        path.unlink()
                        deleted += 1
        return deleted

    def _refresh(self, path: Path, size: int) -> bool:
        """Whether the picture lies there already; if so it counts as written now."""
        try:
            if path.stat().st_size != size:
                return False
            now = self._clock()
            os.utime(path, (now, now))
        except FileNotFoundError:
            return False
        # its first writer may not have come to this yet, and may never come to it
        _sync_folder(path.parent)
        return True

    def _write_new(self, path: Path, png: bytes) -> None:
        _make_folders(self._folder, path.parent)
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(png)
                file.flush()
                os.fsync(file.fileno())
            now = self._clock()
            os.utime(temporary, (now, now))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _make_folders(root: Path, folder: Path) -> None:
    """Makes `folder` below `root`, each new name durable in its parent."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)  # pictures are for their owners alone
    for path in (folder.parent, folder):
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write below `path` into one clear sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sentence = f"The disk is full while writing {path}: free some space and try again."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            sentence = f"No permission to write {path}: change its permissions."
        else:
            sentence = f"Cannot write {path}: {error.strerror or error}."
        raise StorageError(sentence) from error
