"""What the verbs about users and keys share: the store they work on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from izograf.cli.extras import service_extra

if TYPE_CHECKING:
    from izograf.store.open import Store

ACTOR = "command line"
"""Who did it, for the audit log."""


@contextmanager
def opened_store(data_dir: Path | None, database_url: str | None) -> Iterator[Store]:
    """The store that a service with these settings would use, its tables up to date.

    Raises:
        InvalidInput, StorageError, MissingExtra: in one sentence.
    """
    with service_extra():
        from izograf.service.settings import load_settings
        from izograf.store.files import storage_errors
        from izograf.store.migrate import upgrade
        from izograf.store.open import default_url, open_store

    settings = load_settings(data_dir=data_dir, database_url=database_url)
    with storage_errors(settings.data_dir):
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    url = settings.database_url or default_url(settings.data_dir)
    upgrade(url)
    store = open_store(settings.data_dir, url)
    try:
        yield store
    finally:
        store.close()
