"""Everything a service keeps, opened together from one database URL and one folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from izograf.store.accounts import AccountStore
from izograf.store.audit import AuditLog
from izograf.store.collections import CollectionStore
from izograf.store.database import Database, sqlite_url
from izograf.store.files import ImageFiles
from izograf.store.ids import Ids
from izograf.store.images import ImageStore
from izograf.store.jobs import JobStore
from izograf.store.models import ModelStore
from izograf.store.settings import SettingsStore

DATABASE = "izograf.sqlite3"
IMAGES = "images"


@dataclass(frozen=True)
class Store:
    """The parts of one store, which share a database and a source of identifiers."""

    database: Database
    files: ImageFiles
    jobs: JobStore
    images: ImageStore
    collections: CollectionStore
    models: ModelStore
    accounts: AccountStore
    settings: SettingsStore
    audit: AuditLog

    def close(self) -> None:
        """Closes every connection."""
        self.database.close()


def default_url(data_dir: Path) -> str:
    """The URL of the SQLite database in `data_dir`, used where no other is configured."""
    return sqlite_url(data_dir / DATABASE)


def open_store(
    data_dir: Path,
    url: str | None = None,
    *,
    clock: Callable[[], float] = time.time,
    make_ids: Ids | None = None,
) -> Store:
    """The store at `url` (SQLite in `data_dir` by default), pictures below `data_dir`.

    Its tables must be up to date: `migrate.upgrade(url)` comes first.
    """
    database = Database(url or default_url(data_dir))
    files = ImageFiles(data_dir / IMAGES, clock=clock)
    new = make_ids or Ids(clock)
    return Store(
        database,
        files,
        JobStore(database, files, make_ids=new, clock=clock),
        ImageStore(database, files, make_ids=new, clock=clock),
        CollectionStore(database, make_ids=new, clock=clock),
        ModelStore(database, clock=clock),
        AccountStore(database, make_ids=new, clock=clock),
        SettingsStore(database, clock=clock),
        AuditLog(database, clock=clock),
    )
