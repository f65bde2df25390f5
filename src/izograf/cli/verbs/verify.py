"""`izograf verify`: a picture made again from its own metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Json
from izograf.cli.reading import read_original
from izograf.schema.errors import InvalidInput, IzografError


@app.command()
def verify(
    picture: Annotated[Path, typer.Argument(help="A PNG made by izograf.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the model lies now, if it moved.")
    ] = None,
    original: Annotated[
        Path | None, typer.Option("--original", help="The picture that `izograf edit` began with.")
    ] = None,
    mask: Annotated[Path | None, typer.Option("--mask", help="The mask it was given.")] = None,
    as_json: Json = False,
) -> None:
    """Make a picture again from its own metadata: bit-exact, close, or cannot."""
    from izograf.core.devices import configure_threads
    from izograf.generators.render import read_png

    if original is None and mask is not None:
        raise InvalidInput("--mask goes with --original: give that, too.")
    configure_threads()
    pixels, record = read_png(picture)
    try:
        result = _verified(pixels, record, model, original, mask)
    except IzografError as error:
        result = {"verdict": "cannot", "remarks": [str(error)]}
    if as_json:
        typer.echo(json.dumps([{"path": str(picture), **result}], ensure_ascii=False, indent=1))
    else:
        psnr = result.get("psnr")
        decibels = f" (PSNR {psnr:.1f} dB)" if psnr is not None else ""
        remarks = "".join(f"\n  {remark}" for remark in result["remarks"])
        because = ", because" if result["verdict"] == "cannot" else ""
        typer.echo(f"{picture}: {result['verdict']}{decibels}{because}{remarks}")
    if result["verdict"] in ("cannot", "different"):
        raise typer.Exit(1)


def _verified(
    pixels: Any, record: Any, model: str | None, original: Path | None, mask: Path | None
) -> dict[str, Any]:
    from izograf.checkpoints.load import load_generator
    from izograf.core.backends import usable_backend
    from izograf.core.devices import fingerprint
    from izograf.generators.render import require_same_weights
    from izograf.generators.render import verify as compare
    from izograf.schema.library import find_model, read_card

    name = model or str(record["request"]["model"])
    card = read_card(find_model(name))
    require_same_weights(card, name, record)
    begun = None if original is None else read_original(card, original, mask)
    made_in = record["environment"]
    precision, backend = str(made_in.get("precision", "auto")), made_in.get("backend")
    generator, placement = load_generator(
        name, precision=precision, backend=usable_backend(backend)
    )
    found = compare(pixels, record, generator, fingerprint(placement), original=begun)
    return found.to_json()
