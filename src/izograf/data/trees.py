"""Two trees of files that are read alike: a folder, and a zip of one."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, Protocol

from izograf.data.layout import safe_name
from izograf.data.preprocess import MAX_FILE_BYTES
from izograf.data.scan import Unreadable
from izograf.schema.errors import DataError


class Tree(Protocol):
    """Files under relative names with `/`; hidden files and folders do not appear."""

    @property
    def path(self) -> Path: ...

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        ...

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The content of one file; safe to call from several threads.

        Raises:
            Unreadable: missing, larger than `limit` bytes (`MAX_FILE_BYTES`), damaged or encrypted.
        """
        ...

    def fingerprint(self) -> Any:
        """JSON that changes when any file does."""
        ...

    def close(self) -> None: ...


class FolderTree:
    """A folder on disk; links to folders are followed, each folder once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps: dict[str, tuple[int, int]] | None = None

    def names(self) -> list[str]:
        return list(self._scan())

    def _scan(self) -> dict[str, tuple[int, int]]:
        if self._stamps is None:
            found: dict[str, tuple[int, int]] = {}
            pending, seen = [(self.path, "")], set()
            while pending:
                folder, prefix = pending.pop()
                real = folder.resolve()
                if real not in seen:
                    seen.add(real)
                    pending += self._list(folder, prefix, found)
            self._stamps = dict(sorted(found.items()))
        return self._stamps

    @staticmethod
    def _list(
        folder: Path, prefix: str, found: dict[str, tuple[int, int]]
    ) -> list[tuple[Path, str]]:
        """Adds the files of one folder to `found`; its folders, with their prefixes."""
        folders = []
        try:
            with os.scandir(folder) as items:
                for item in items:
                    if is_hidden(item.name):
                        continue
                    if item.is_dir():
                        folders.append((folder / item.name, f"{prefix}{item.name}/"))
                    elif item.is_file() or item.is_symlink():
                        # A dangling link is listed, so that reading it reports a missing file.
                        stat = item.stat(follow_symlinks=item.is_file())
                        found[prefix + item.name] = (stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise DataError(
                f"Cannot list the folder {folder}: {error.strerror}. Check its permissions."
            ) from error
        return folders

    def read(self, name: str, limit: int | None = None) -> bytes:
        limit = limit or MAX_FILE_BYTES
        try:
            with (self.path / name).open("rb") as file:
                # read(n) reserves n bytes, so a generous limit alone would not do
                content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
        except FileNotFoundError as error:
            raise Unreadable("missing file") from error
        except OSError as error:
            raise Unreadable(f"cannot be opened: {error.strerror}") from error
        if len(content) > limit:
            raise Unreadable(_too_large(limit))
        return content

    def fingerprint(self) -> Any:
        return [str(self.path.resolve()), [[name, *stamp] for name, stamp in self._scan().items()]]

    def close(self) -> None:
        pass


class ZipTree:
    """The members of a zip, read in place; nothing is ever extracted.

    Raises:
        DataError: not a zip, damaged, or a member's name leads outside of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{path} cannot be read as a zip: {reason}. Make it again, or give the folder."
            ) from error
        try:
            members = {
                safe_name(_decoded_name(info), str(path)): info
                for info in self._zip.infolist()
                if not info.is_dir()
            }
        except DataError:
            self._zip.close()
            raise
        visible = {name: info for name, info in members.items() if not _hidden_path(name)}
        self._members = dict(sorted(visible.items()))

    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str, limit: int | None = None) -> bytes:
        limit = limit or MAX_FILE_BYTES
        if name not in self._members:
            raise Unreadable("missing file")
        info = self._members[name]
        if info.file_size > limit:
            raise Unreadable(_too_large(limit))
        if info.flag_bits & 0x1:
            raise Unreadable("encrypted in the zip")
        try:
            with self._zip.open(info) as file:
                return file.read(limit)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise Unreadable("damaged in the zip") from error
        except (RuntimeError, ValueError) as error:  # also NotImplementedError
            raise Unreadable("compressed in a way this program does not read") from error

    def fingerprint(self) -> Any:
        return file_fingerprint(self.path)

    def close(self) -> None:
        self._zip.close()


def _too_large(limit: int) -> str:
    return f"larger than {limit // 2**20} MiB"


def _decoded_name(info: zipfile.ZipInfo) -> str:
    """The member's name; old Windows archivers wrote Russian names in cp866 without saying so."""
    utf8_flag = 0x800
    if info.flag_bits & utf8_flag or info.filename.isascii():
        return info.filename
    raw = info.filename.encode("cp437")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp866")


def is_hidden(part: str) -> bool:
    """Whether this file or folder belongs to a desktop, not to the data."""
    return part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _hidden_path(name: str) -> bool:
    return any(is_hidden(part) for part in name.split("/"))


def file_fingerprint(path: Path) -> list[Any]:
    """[absolute path, size, modification time in ns] of one file."""
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
