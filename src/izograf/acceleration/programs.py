"""Compiled programs on disk, each under a key of everything it depends on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from izograf import __version__, models
from izograf.core.devices import cache_folder, processor_name
from izograf.core.storage import file_atomically
from izograf.schema.errors import StorageError

MAX_BYTES = 8 << 30  # of all programs together; the ones not used for longest go first


def weights_digest(network: nn.Module) -> str:
    """sha256 of the names, types, shapes and bytes of a network's tensors."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def source_digest() -> str:
    """sha256 of the code that networks are made and traced by: from other code, other programs."""
    digest = hashlib.sha256()
    package = Path(models.__path__[0]).parent
    for folder in ("models", "acceleration", "generators"):
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def program_key(**facts: Any) -> str:
    """The name of the program that `facts` determine, together with versions and processor."""
    known = {
        "izograf": __version__,
        "torch": torch.__version__,
        "source": source_digest(),
        "processor": processor_name(),
    }
    text = json.dumps(known | facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def programs_folder() -> Path:
    return cache_folder() / "programs"


def read_program(key: str) -> mmap | None:
    """The program of that name, mapped rather than read; None where there is none to be read."""
    path = programs_folder() / key
    with suppress(OSError, ValueError):  # an empty file cannot be mapped
        os.utime(path)  # it was used now
        with path.open("rb") as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    return None


def write_program(key: str, export: Callable[[BinaryIO], object]) -> None:
    """Keeps what `export` writes as a program; where that cannot be, it will be made again."""
    with suppress(StorageError), file_atomically(programs_folder() / key) as file:
        export(file)
    prune(MAX_BYTES)


def prune(max_bytes: int) -> None:
    """Removes the programs that were not used for longest until the rest fits."""
    files: Mapping[Path, os.stat_result] = {}
    with suppress(OSError):
        files = {path: path.stat() for path in programs_folder().iterdir()}
    total = sum(facts.st_size for facts in files.values())

    # one that alone is too large goes before all others, which it would drive out in vain
    def first(path: Path) -> tuple[bool, float]:
        return files[path].st_size <= max_bytes, files[path].st_mtime

    for path in sorted(files, key=first):
        if total <= max_bytes:
            return
        with suppress(OSError):
            path.unlink()
        total -= files[path].st_size
