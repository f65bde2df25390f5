"""`izograf edit`: a picture of your own, repainted in whole or in part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Backend, Device, Json, Precision
from izograf.cli.drawing import (
    AnyModel,
    Attributes,
    Fast,
    Guidance,
    Negative,
    Options,
    Overwrite,
    Sampler,
    Steps,
    Style,
    Upscale,
    class_conditions,
    draw,
    given_options,
    named_model,
    text_condition,
)
from izograf.cli.reading import read_original
from izograf.schema.errors import InvalidInput
from izograf.schema.record import check_factor
from izograf.schema.request import GenerationRequest


@app.command()
def edit(
    picture: Annotated[Path, typer.Argument(help="The picture to begin with.")],
    prompt: Annotated[
        str | None,
        typer.Argument(help="What it should show, in English or Russian; needs a text model."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .png file for one picture, else a folder. Default: NAME-edited.png here.",
        ),
    ] = None,
    model: AnyModel = None,
    shown: Annotated[
        str | None,
        typer.Option("--class", "-c", help="What it should show, for a model of classes."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="How much is repainted, to 1: all, only the mask limits it."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", help="A picture of the same size, white where it may change."),
    ] = None,
    negative: Negative = "",
    attributes: Attributes = None,
    style: Style = None,
    upscale: Upscale = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="How many to try.")] = 1,
    seed: Annotated[int, typer.Option(help="Picture i has seed SEED + i.")] = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    options: Options = None,
    fast: Fast = False,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Repaint a picture, or the part of it that a mask shows; the centre square is used."""
    if upscale is not None:
        check_factor(upscale)
    has_text = prompt is not None or bool(attributes)
    name, card = named_model(model, has_text=has_text)
    if has_text:
        classes = None if shown is None else [shown]
        condition = text_condition(card, prompt or "", classes, negative, attributes, style)
    elif negative or style:
        raise InvalidInput("--negative and --style go with a prompt: give one.")
    elif shown is not None:
        (condition,) = class_conditions(card, [shown])
    elif card.classes:
        names = ", ".join(label.name for label in card.classes)
        raise InvalidInput(f"Say what the picture should show: --class, one of {names}.")
    else:
        condition = {"type": "none"}
    given = given_options(card, steps, guidance, sampler, options, fast=fast)
    if strength is not None:
        given["strength"] = strength
    original = read_original(card, picture, mask)
    if output is None:
        one = num_images == 1
        output = Path(f"{picture.stem}-edited.png" if one else f"{picture.stem}-edited")
    draw(
        card,
        [GenerationRequest(name, condition, num_images, seed, given)],
        output,
        {"device": device, "precision": precision, "backend": backend},
        keep=num_images, upscale=upscale, overwrite=overwrite, as_json=as_json, original=original,
    )  # fmt: skip
