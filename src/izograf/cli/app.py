"""The `izograf` command: one module per verb, heavy imports only inside the verbs."""

from __future__ import annotations

import importlib
import pkgutil

import typer

from izograf import __version__

app = typer.Typer(
    name="izograf",
    help="Train, compare and serve conditional image generators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Stopped(Exception):
    """Raised by a verb that a signal ended in good order, after it said how to go on."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"izograf {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Train, compare and serve conditional image generators."""
    del version


def load_verbs() -> None:
    """Imports every module of `izograf.cli.verbs`; each adds its commands to `app`."""
    package = importlib.import_module("izograf.cli.verbs")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        importlib.import_module(f"izograf.cli.verbs.{module.name}")
