"""`izograf styles`: the words that a style puts around a prompt."""

from __future__ import annotations

import json
from typing import Any

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Json
from izograf.schema.errors import InvalidInput
from izograf.schema.labels import LANGUAGES
from izograf.schema.styles import Style, find_style, load_styles


@app.command()
def styles(
    name: str = typer.Argument("", help="Show only this one."),
    language: str = typer.Option("en", help="Language of titles and words: en or ru."),
    as_json: Json = False,
) -> None:
    """List the style presets: the bundled ones and your own (in $IZOGRAF_STYLES or styles.toml)."""
    if language not in LANGUAGES:
        known = " or ".join(LANGUAGES)
        raise InvalidInput(f"Unknown language {language[:20]!r}: choose {known}.")
    found = load_styles()
    shown = [find_style(name, found)] if name else list(found.values())
    if as_json:
        typer.echo(json.dumps([_row(style) for style in shown], ensure_ascii=False, indent=1))
        return
    width = max(len(style.name) for style in shown)
    for style in shown:
        own = "" if style.bundled else "  (your own)"
        typer.echo(f"{style.name:{width}}  {style.title[language]}{own}")
        typer.echo(f"{'':{width}}  + {style.positive[language]}")
        if style.negative[language]:
            typer.echo(f"{'':{width}}  - {style.negative[language]}")


def _row(style: Style) -> dict[str, Any]:
    """Everything about a style, in every language."""
    texts = {"title": style.title, "positive": style.positive, "negative": style.negative}
    return {"name": style.name, **{key: dict(value) for key, value in texts.items()},
            "bundled": style.bundled}  # fmt: skip
