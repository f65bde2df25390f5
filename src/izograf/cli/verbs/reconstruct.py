"""`izograf reconstruct` and `izograf interpolate`: pictures through an autoencoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Backend, Device, Json, Precision
from izograf.cli.drawing import check_one_png
from izograf.cli.reading import read_square
from izograf.schema.errors import InvalidInput

if TYPE_CHECKING:
    from izograf.core.types import Autoencoder
    from izograf.schema.card import ModelCard

Model = Annotated[
    str, typer.Option("--model", "-m", help="An autoencoder: a name or a folder.")
]  # fmt: skip
Output = Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


@app.command()
def reconstruct(
    picture: Annotated[Path, typer.Argument(help="A picture in any common format.")],
    output: Output,
    model: Model,
    shown: Annotated[
        str | None, typer.Option("--class", "-c", help="The class that the picture shows.")
    ] = None,
    to_class: Annotated[
        str | None, typer.Option("--to-class", help="Show it as this class instead.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="The original beside it.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Encode a picture and decode its code: as it is, or as another class."""
    from izograf.schema.library import find_model, read_card

    check_one_png(output, overwrite=overwrite)
    card = read_card(find_model(model))
    source, target = _class_index(card, shown), _class_index(card, to_class)
    if source is None and target is not None:
        raise InvalidInput(
            "--to-class needs --class as well: the class that the picture shows now."
        )
    pixels = read_square(picture, card.image_size)[None]

    import torch

    from izograf.core.pixels import to_float, to_uint8
    from izograf.generators.codes import of_class, save_derived
    from izograf.generators.sheet import contact_sheet, to_pil
    from izograf.metrics.paired import psnr

    coder = _load(model, device, precision, backend)
    codes = coder.encode(to_float(pixels), of_class(source))
    made = to_uint8(coder.decode(codes, of_class(source if target is None else target)))
    decibels = float(psnr(pixels, made)[0])
    both = torch.cat([pixels, made])
    save_derived(output, contact_sheet(both, columns=2) if compare else to_pil(made[0]), model)
    if as_json:
        row = {"path": str(output), "model": model, "picture": str(picture)}
        typer.echo(json.dumps([{**row, "psnr": _finite(decibels)}], ensure_ascii=False, indent=1))
        return
    typer.echo(str(output))
    typer.echo(f"{decibels:.1f} dB PSNR against the picture at {card.image_size} px.", err=True)


@app.command()
def interpolate(
    first: Annotated[Path, typer.Argument(help="The picture to start from.")],
    second: Annotated[Path, typer.Argument(help="The picture to end at.")],
    output: Output,
    model: Model,
    steps: Annotated[int, typer.Option(min=2, max=64, help="Pictures, both ends included.")] = 8,
    first_class: Annotated[
        str | None, typer.Option("--class", "-c", help="The class of the first picture.")
    ] = None,
    to_class: Annotated[
        str | None, typer.Option("--to-class", help="The class of the second; default: the same.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Draw a strip from one picture to another, even steps between their codes."""
    from izograf.schema.library import find_model, read_card

    check_one_png(output, overwrite=overwrite)
    card = read_card(find_model(model))
    start = _class_index(card, first_class)
    end = start if to_class is None else _class_index(card, to_class)
    if start is None and end is not None:
        raise InvalidInput("--to-class needs --class as well: the class of the first picture.")
    pictures = [read_square(path, card.image_size)[None] for path in (first, second)]

    from izograf.core.pixels import to_float, to_uint8
    from izograf.generators.codes import between, from_class_to_class, of_class, save_derived
    from izograf.generators.sheet import contact_sheet

    coder = _load(model, device, precision, backend)
    ends = [
        coder.encode(to_float(pixels), of_class(index))[0]
        for pixels, index in zip(pictures, (start, end), strict=True)
    ]
    codes = between(ends[0], ends[1], steps)
    images = coder.decode(codes, from_class_to_class(start, end, steps))
    save_derived(output, contact_sheet(to_uint8(images), columns=steps), model)
    typer.echo(str(output))


def _class_index(card: ModelCard, text: str | None) -> int | None:
    from izograf.schema.labels import resolve_class

    if text is None:
        return None
    if not card.classes:
        raise InvalidInput(f"{card.name} has no classes: leave out --class and --to-class.")
    return resolve_class(text, card.classes)


def _load(model: str, device: str, precision: str, backend: str) -> Autoencoder:
    from izograf.checkpoints.load import load_generator
    from izograf.core.devices import configure_threads
    from izograf.generators.codes import as_autoencoder

    configure_threads()
    generator, _ = load_generator(model, device=device, precision=precision, backend=backend)
    return as_autoencoder(generator, generator.card)


def _finite(value: float) -> Any:
    return round(value, 2) if value < float("inf") else None
