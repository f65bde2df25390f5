"""`izograf backup`, `izograf restore-backup`: everything a service keeps, copied and back."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from izograf.cli.app import app
from izograf.cli.extras import service_extra
from izograf.cli.verbs.serve import DatabaseUrl, DataDir
from izograf.schema.errors import Conflict, NotFound

if TYPE_CHECKING:
    from izograf.service.settings import ServiceSettings
    from izograf.store.backup import BackupReport


@app.command()
def backup(
    path: Annotated[Path, typer.Argument(help="New folder, or new file ending in .zip.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Copy everything the service keeps, while it runs."""
    with service_extra():
        from izograf.service.run import database_url as url_of
        from izograf.service.settings import load_settings
        from izograf.store.backup import backup as make_backup
        from izograf.store.open import open_store

    settings = load_settings(data_dir=data_dir, database_url=database_url)
    _check_place(settings, url_of(settings))
    store = open_store(settings.data_dir, url_of(settings))
    try:
        with _patience("copying"):
            report = make_backup(store, path)
    finally:
        store.close()
    typer.echo(f"Backup written to {path}, {_size(path) / 1e6:,.1f} MB: {_contents(report)}.")


@app.command("restore-backup")
def restore_backup(
    path: Annotated[Path, typer.Argument(help="What izograf backup wrote.")],
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Bring a backup back, into an empty folder and an empty database."""
    with service_extra():
        from izograf.service.run import database_url as url_of
        from izograf.service.run import only_service_of
        from izograf.service.settings import load_settings
        from izograf.store.backup import restore_backup as restore

    settings = load_settings(data_dir=data_dir, database_url=database_url)
    with only_service_of(settings.data_dir), _patience("restoring"):
        report = restore(path, settings.data_dir, url_of(settings))
    typer.echo(f"Restored into {settings.data_dir}: {_contents(report)}.")


def _check_place(settings: ServiceSettings, url: str) -> None:
    """
    Raises:
        NotFound: no service was ever started there. Conflict: by another release.
    """
    from izograf.store.database import Database
    from izograf.store.migrate import current_revision, newest_revision

    database = Database(url)
    try:
        if database.is_sqlite and not Path(str(database.engine.url.database)).is_file():
            raise NotFound(f"There is no service's data in {settings.data_dir}: give --data-dir.")
        found = current_revision(database)
    finally:
        database.close()
    if found is None:
        raise NotFound("The database is empty: no service was ever started with it.")
    if found != newest_revision():
        raise Conflict(
            "The database was written by another release of izograf: make the backup with that "
            "one, or start the service of this one first, which upgrades it."
        )


def _contents(report: BackupReport) -> str:
    return f"jobs: {report.jobs:,}, pictures: {report.images:,}, users: {report.users:,}"


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _patience(doing: str) -> AbstractContextManager[object]:
    """A moving sign on a terminal, because a large gallery takes minutes."""
    from rich.console import Console

    return Console(stderr=True).status(f"{doing} ...")
