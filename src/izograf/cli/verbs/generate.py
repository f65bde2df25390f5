"""`izograf generate` and `izograf sheet`: pictures from a trained model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Backend, Device, Json, Precision
from izograf.cli.drawing import (
    DEFAULT_MODEL,
    AnyModel,
    Attributes,
    Classes,
    Fast,
    Guidance,
    Model,
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
    refuse_other_format,
    text_condition,
)
from izograf.schema.errors import InvalidInput
from izograf.schema.record import check_factor
from izograf.schema.request import MAX_BEST_OF, GenerationRequest

SHEET_COLUMNS = 8


@app.command()
def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(help="What the pictures show, in English or Russian; needs a text model."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="A .png file for one picture, else a folder. Default: here."
        ),
    ] = Path(),
    model: AnyModel = None,
    negative: Negative = "",
    attributes: Attributes = None,
    style: Style = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            "--best-of", help="Draw this many, keep the --num-images that suit the prompt best."
        ),
    ] = None,
    upscale: Upscale = None,
    classes: Classes = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="Per class.")] = 1,
    seed: Annotated[int, typer.Option(help="Picture i has seed SEED + i.")] = 0,
    to_seed: Annotated[
        int | None, typer.Option("--to-seed", help="A strip of pictures from SEED to this one.")
    ] = None,
    to_class: Annotated[
        str | None, typer.Option("--to-class", help="A strip from each class to this one.")
    ] = None,
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
    """Generate pictures: same request, same machine, same pixels."""
    if upscale is not None:
        check_factor(upscale)
    towards: dict[str, int | str] = {} if to_seed is None else {"seed": to_seed}
    towards |= {} if to_class is None else {"class": to_class}
    has_text = prompt is not None or bool(attributes)
    name, card = named_model(model, has_text=has_text)
    given = given_options(card, steps, guidance, sampler, options, fast=fast)
    if has_text:
        conditions = [text_condition(card, prompt or "", classes, negative, attributes, style)]
    elif negative or style or best_of is not None:
        raise InvalidInput("--negative, --style and --best-of go with a prompt: give one.")
    else:
        conditions = class_conditions(card, classes)
    drawn = num_images if best_of is None else _candidates(best_of, num_images, towards)
    requests = [
        GenerationRequest(name, condition, drawn, seed, given, towards) for condition in conditions
    ]
    place = {"device": device, "precision": precision, "backend": backend}
    draw(
        card, requests, output, place,
        keep=num_images, upscale=upscale, overwrite=overwrite, as_json=as_json,
    )  # fmt: skip


@app.command()
def sheet(
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")] = Path(
        "out/sheet.png"
    ),
    model: Model = DEFAULT_MODEL,
    columns: Annotated[
        int, typer.Option(min=1, max=64, help="Pictures per class.")
    ] = SHEET_COLUMNS,
    scale: Annotated[int, typer.Option(min=1, max=16, help="Enlargement, without blur.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the first column.")] = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    options: Options = None,
    fast: Fast = False,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
) -> None:
    """Draw one sheet with a row of pictures for every class of a model."""
    import torch

    from izograf.checkpoints.load import load_generator
    from izograf.cli.progress import counting_progress
    from izograf.core.devices import configure_threads, fingerprint
    from izograf.generators.render import render, save_sheet
    from izograf.schema.labels import both_languages
    from izograf.schema.library import find_model, read_card
    from izograf.schema.resolve import resolve_request

    refuse_other_format(output)
    card = read_card(find_model(model))
    given = given_options(card, steps, guidance, sampler, options, fast=fast)
    requests = [
        resolve_request(card, GenerationRequest(model, condition, columns, seed, given))
        for condition in class_conditions(card, None)
    ]
    configure_threads()
    start = time.perf_counter()
    generator, placement = load_generator(
        model, device=device, precision=precision, backend=backend
    )
    environment = fingerprint(placement)
    pictures = []
    with counting_progress("generating") as progress:
        for request in requests:
            pictures += [p.pixels for p in render(generator, request, environment)]
            progress(len(pictures), columns * len(requests))
    labels = [both_languages(label) for label in card.classes]
    save_sheet(output, torch.stack(pictures), columns=columns, row_labels=labels, scale=scale)
    typer.echo(
        f"{len(pictures)} pictures in {time.perf_counter() - start:.1f} s "
        f"on {placement.device} ({placement.precision}, {placement.backend}).",
        err=True,
    )
    typer.echo(str(output.absolute()))


def _candidates(best_of: int, num_images: int, towards: dict[str, int | str]) -> int:
    if towards:
        raise InvalidInput("--best-of chooses among pictures, and a strip needs them all.")
    if not num_images <= best_of <= MAX_BEST_OF:
        raise InvalidInput(
            f"--best-of must be from the number of pictures, {num_images}, to {MAX_BEST_OF}, "
            f"got {best_of}."
        )
    return best_of
