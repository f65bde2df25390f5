"""Places for data that cost nothing to make: in memory, with tables that were made once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from izograf.store.database import sqlite_url
from izograf.store.migrate import upgrade
from izograf.store.open import DATABASE


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: a sync is then a call, not a wait."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="izograf-service-", dir=place) as path:
        yield Path(path)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row."""
    path = tmp_path_factory.mktemp("template") / "template.sqlite3"
    upgrade(sqlite_url(path))
    return path


@pytest.fixture(scope="session")
def prepare(sqlite_template: Path) -> Callable[[Path], Path]:
    """prepare(data_dir) -> the same; where nothing is yet, with an empty database to start on."""

    def call(data_dir: Path) -> Path:
        if not data_dir.exists():
            data_dir.mkdir(mode=0o700, parents=True)
            shutil.copy(sqlite_template, data_dir / DATABASE)
        return data_dir

    return call
