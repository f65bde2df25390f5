"""`izograf models` and `izograf recipes`: what there is, from cards and registries."""

from __future__ import annotations

import json
from typing import Any

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Json
from izograf.schema.errors import NotFound


@app.command()
def models(
    name: str = typer.Argument("", help="Show this one's whole card."),
    as_json: Json = False,
) -> None:
    """List the bundled models and your own (in ./runs and $IZOGRAF_MODELS), from their cards."""
    from izograf.schema.library import find_model, list_models, read_card

    if name:
        card = read_card(find_model(name))
        shown = json.dumps([card.to_json()], ensure_ascii=False, indent=1)
        typer.echo(shown if as_json else card.dumps().rstrip())
        return
    found = list_models()
    if as_json:
        rows = [
            {
                "name": item.name,
                "folder": str(item.folder),
                "bundled": item.bundled,
                **({"problem": item.problem} if item.card is None else _facts(item.card)),
            }
            for item in found
        ]
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    if not found:
        raise NotFound("There are no models: train one with izograf train --data FOLDER --out DIR.")
    for item in found:
        origin = "bundled" if item.bundled else str(item.folder)
        if item.card is None:
            typer.echo(f"{item.name}  ({origin})  unusable: {item.problem}")
            continue
        typer.echo(f"{item.name}  ({origin})  {item.card.summary}")
        if item.card.classes:
            words = ", ".join(f"{c.display('en')} {c.display('ru')}" for c in item.card.classes)
            typer.echo(f"    classes: {words}")
        if scores := [_score(metric) for metric in item.card.metrics]:
            typer.echo(f"    scores: {'; '.join(scores)}")


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the recipes `izograf train` knows, each with its paper and what it can minimise."""
    from izograf.recipes.registry import RECIPES

    rows: list[dict[str, Any]] = [
        {
            "name": item.name,
            "summary": item.summary,
            "paper": item.paper,
            "objectives": sorted(item.objectives),
        }
        for item in RECIPES.values()
    ]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        typer.echo(f"{row['name']:{width}}  {row['summary']}")
        typer.echo(f"{'':{width}}  {row['paper']}")
        typer.echo(f"{'':{width}}  objectives: {', '.join(row['objectives'])}")


def _facts(card: Any) -> dict[str, Any]:
    described = card.to_json()
    wanted = (
        "family", "image_size", "conditions", "classes", "options", "metrics", "summary",
        "notes", "licence", "weights", "recipe", "data",
    )  # fmt: skip
    return {key: described[key] for key in wanted}


def _score(metric: Any) -> str:
    """A recorded score in one line; what is no score, on a card from elsewhere, as it is."""
    try:
        return _score_line(metric)
    except (KeyError, TypeError, ValueError):
        return str(metric)


def _score_line(metric: Any) -> str:
    value = metric["value"]
    if metric["name"] == "class agreement":
        return f"class agreement {value:.1%} of {metric['num_fake']:,}"
    relative = metric.get("relative")
    part = f", {relative:.0%} of the way from floor to noise" if relative is not None else ""
    return f"{metric['name']} {value:.4g} ({metric['num_fake']:,} samples{part})"
