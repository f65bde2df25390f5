"""Writing files so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from izograf.schema.errors import CardError, StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write below `path` into one clear sentence."""
    try:
        yield
    except OSError as error:
        raise StorageError(_sentence(path, error)) from error
    except SafetensorError as error:  # its writer wraps the same refusals in its own type
        raise StorageError(
            f"Cannot write {path}: {error}. Free some space and try again."
        ) from error


def _sentence(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        free = 0
        with suppress(OSError):
            free = shutil.disk_usage(_existing(path)).free
        return (
            f"The disk is full ({free / 1e6:.0f} MB free) while writing {path}: free some space "
            "and run the same command again; nothing written before was harmed."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"No permission to write {path}: choose another place or change its permissions."
    return f"Cannot write {path}: {error.strerror or error}."


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes `content` to a temporary neighbour, syncs it to disk and renames it into place.

    Raises:
        StorageError: no permission, no space, or any other refusal; `path` is then unchanged.
    """
    with file_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def file_atomically(path: Path) -> Iterator[BinaryIO]:
    """As `write_atomically`, of what the block writes into the file it is given."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` when the block ends without an error.

    Raises:
        StorageError: as `write_atomically`; also when `path` exists already.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.iterdir():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename inside `folder` durable; some file systems cannot, and then need not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file; the tensors are made contiguous and brought to the CPU."""
    with storage_errors(path):
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        CardError: the file is missing, truncated or not safetensors.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CardError(
            f"{path} is not a complete safetensors file ({error}): copy or train it again."
        ) from error


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
