"""`izograf serve`: the service, in the browser and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from izograf.cli.app import app
from izograf.cli.extras import service_extra

DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of pictures and database. [izograf-data]", show_default=False),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        help="sqlite:///file or postgresql://user@host/name. [SQLite in the data dir]",
        show_default=False,
    ),
]


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen at. [127.0.0.1]", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="0 takes any free one. [8000]", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    engine: Annotated[
        str | None,
        typer.Option(help="local, or fake: pictures without a model. [local]", show_default=False),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:1, ...; once for each worker. [auto]", show_default=False
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="auto, eager, compile, openvino or openvino-int8. [auto]", show_default=False
        ),
    ] = None,
    login: Annotated[
        str | None,
        typer.Option(
            help="always, or auto: not while only this machine can connect. [auto]",
            show_default=False,
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="console or json. [console]", show_default=False)
    ] = None,
) -> None:
    """Serve the web application and its interface until Ctrl-C.

    What is not given here is taken from the environment (IZOGRAF_PORT=9000), then from
    ./izograf.toml (port = 9000).
    """
    with service_extra():
        from izograf.service.server import serve as run
        from izograf.service.settings import load_settings

    settings = load_settings(
        host=host, port=port, data_dir=data_dir, database_url=database_url, engine=engine,
        devices=tuple(device) if device else None, backend=backend, login=login,
        log_format=log_format,
    )  # fmt: skip

    def ready(address: str) -> None:
        typer.echo(f"Izograf is ready: {address}")
        typer.echo(f"Pictures and jobs are kept in {settings.data_dir.absolute()}. Ctrl-C stops.")

    run(settings, on_ready=ready)
