"""`izograf upscale`: a picture at 2, 4 or 8 times its height and width."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Device, Json, Precision
from izograf.cli.drawing import check_one_png
from izograf.cli.reading import read_whole
from izograf.schema.errors import InvalidInput
from izograf.schema.library import DEFAULT_UPSCALER
from izograf.schema.record import UPSCALED, check_factor

if TYPE_CHECKING:
    from torch import Tensor

    from izograf.generators.render import Picture


@app.command()
def upscale(
    picture: Annotated[Path, typer.Argument(help="A picture in any common format.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")],
    factor: Annotated[int, typer.Option("--factor", "-f", help="2, 4 or 8.")] = 4,
    model: Annotated[
        str, typer.Option("--model", "-m", help="An upscaler: a name or a folder.")
    ] = DEFAULT_UPSCALER,
    device: Device = "auto",
    precision: Precision = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Enlarge a picture; one that was made here can still be verified."""
    check_factor(factor)
    check_one_png(output, overwrite=overwrite)
    pixels = read_whole(picture)

    from izograf.core.devices import configure_threads
    from izograf.generators.codes import save_derived
    from izograf.generators.render import save_png, upscaled
    from izograf.generators.sheet import to_pil
    from izograf.generators.upscaler import load_upscaler

    configure_threads()
    start = time.perf_counter()
    upscaler = load_upscaler(model, device=device, precision=precision)
    own = _made_here(picture, pixels)
    if own is not None:
        enlarged = upscaled(own, upscaler, model, factor)
        made = enlarged.pixels
        save_png(output, enlarged)
    else:
        made = upscaler.enlarge_pixels(pixels, factor)
        save_derived(output, to_pil(made), model)
    _, height, width = made.shape
    if as_json:
        row = {"path": str(output), "model": model, "picture": str(picture), "factor": factor}
        sizes = {"width": width, "height": height}
        typer.echo(json.dumps([{**row, **sizes}], ensure_ascii=False, indent=1))
        return
    typer.echo(str(output))
    typer.echo(f"{width} x {height} pixels in {time.perf_counter() - start:.1f} s.", err=True)


def _made_here(path: Path, pixels: Tensor) -> Picture | None:
    """The picture with its record, where it has one, was not changed and not enlarged before."""
    from izograf.core.pixels import pixels_sha256
    from izograf.generators.render import Picture, read_png

    try:
        _, record = read_png(path)
    except InvalidInput:
        return None
    if UPSCALED in record or record["pixels_sha256"] != pixels_sha256(pixels):
        return None
    return Picture(record["seed"], pixels, record)
