"""`izograf scan`: what a dataset holds, before hours are spent on it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from izograf.cli.app import app
from izograf.cli.arguments import ClassColumn, Data, Json

SHOWN = 20


@app.command()
def scan(
    data: Data,
    image_size: Annotated[int, typer.Option(help="Height and width to prepare for.")] = 64,
    class_column: ClassColumn = None,
    strict: Annotated[bool, typer.Option("--strict", help="A skipped file is an error.")] = False,
    as_json: Json = False,
) -> None:
    """Read a dataset and report classes, splits, and every skipped file with its reason."""
    from izograf.cli.progress import counting_progress
    from izograf.core.devices import cache_folder
    from izograf.data.dataset import load_images

    with counting_progress("reading pictures") as progress:
        found = load_images(
            data,
            image_size,
            split="all",
            strict=strict,
            class_column=class_column,
            cache_dir=cache_folder() / "data",
            on_progress=progress,
        )
    report = found.report
    if as_json:
        typer.echo(json.dumps([{"name": found.name, **report.to_json()}], ensure_ascii=False))
        return
    typer.echo(f"{found.name}: {report.summary()}")
    by_name = {label.name: label for label in found.classes}
    for name, count in report.per_class.items():
        label = by_name.get(name)
        words = f"{label.display('en')}, {label.display('ru')}" if label else "unlabelled"
        typer.echo(f"  {count:>8,}  {name or '-'} ({words})")
    for warning in report.warnings:
        typer.echo(f"Note: {warning}")
    for name, reason in report.skipped[:SHOWN]:
        typer.echo(f"Skipped {name}: {reason}")
    if len(report.skipped) > SHOWN:
        typer.echo(f"and {len(report.skipped) - SHOWN:,} more; --json lists all.")
