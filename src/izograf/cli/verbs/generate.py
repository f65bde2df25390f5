"""`izograf generate`, `izograf sheet` and `izograf verify`: pictures from a trained model."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Backend, Device, Json, Precision
from izograf.schema.errors import InvalidInput, IzografError
from izograf.schema.library import DEFAULT_UPSCALER
from izograf.schema.record import check_factor
from izograf.schema.request import MAX_BEST_OF, GenerationRequest

if TYPE_CHECKING:
    from izograf.generators.render import Picture
    from izograf.schema.card import ModelCard
    from izograf.schema.options import OptionValue

IMAGE_SUFFIXES = (".png",)
OTHER_SUFFIXES = (".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
DEFAULT_MODEL = "scenes"
SHEET_COLUMNS = 8
MAX_STEM, STEM_WORDS = 100, 6

Model = Annotated[
    str, typer.Option("--model", "-m", help="A name of `izograf models`, or a folder.")
]
Steps = Annotated[
    int | None, typer.Option("--num-inference-steps", "--steps", help="Denoising steps.")
]
Guidance = Annotated[
    float | None, typer.Option("--guidance-scale", "--guidance", help="Strength of the condition.")
]
Sampler = Annotated[str | None, typer.Option("--sampler", help="The numerical method.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", help="name=value, any other option of the model's card."),
]


@app.command()
def generate(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .png file for one picture, else a folder.")
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(help="What the pictures show, in English or Russian; needs a text model."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help=f"A name of `izograf models`, or a folder. Default: {DEFAULT_MODEL}, or with a "
            "prompt the first model that reads prompts.",
        ),
    ] = None,
    negative: Annotated[
        str, typer.Option("--negative", help="What the pictures should not show.")
    ] = "",
    attributes: Annotated[
        list[str] | None,
        typer.Option("--attribute", "-a", help="sky=orange, небо=оранжевое; may be repeated."),
    ] = None,
    style: Annotated[
        str | None, typer.Option("--style", help="A preset of `izograf styles`.")
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            "--best-of", help="Draw this many, keep the --num-images that suit the prompt best."
        ),
    ] = None,
    upscale: Annotated[
        int | None, typer.Option("--upscale", help="Enlarge each picture 2, 4 or 8 times.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", "-c", help="English or Russian; may be repeated. Default: all."),
    ] = None,
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
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: Json = False,
) -> None:
    """Generate pictures: same request, same machine, same pixels."""
    from izograf.schema.library import default_text_model, find_model, read_card

    if upscale is not None:
        check_factor(upscale)
    given = given_options(steps, guidance, sampler, options)
    towards: dict[str, int | str] = {} if to_seed is None else {"seed": to_seed}
    towards |= {} if to_class is None else {"class": to_class}
    has_text = prompt is not None or bool(attributes)
    name = model
    if name is None:
        name = default_text_model() if has_text else DEFAULT_MODEL
    card = read_card(find_model(name))
    if has_text:
        conditions = [_text_condition(card, prompt or "", classes, negative, attributes, style)]
    elif negative or style or best_of is not None:
        raise InvalidInput("--negative, --style and --best-of go with a prompt: give one.")
    else:
        conditions = _conditions(card, classes)
    drawn = num_images if best_of is None else _candidates(best_of, num_images, towards)
    requests = [
        GenerationRequest(name, condition, drawn, seed, given, towards) for condition in conditions
    ]
    place = {"device": device, "precision": precision, "backend": backend}
    _generate(
        card, requests, output, place,
        keep=num_images, upscale=upscale, overwrite=overwrite, as_json=as_json,
    )  # fmt: skip


def _generate(
    card: ModelCard,
    requests: list[GenerationRequest],
    output: Path,
    place: dict[str, str],
    *,
    keep: int,
    upscale: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draws the pictures of the requests; of each the best `keep` are enlarged and written."""
    from izograf.checkpoints.load import load_generator
    from izograf.cli.progress import counting_progress
    from izograf.core.devices import configure_threads, fingerprint
    from izograf.core.energy import measure_energy
    from izograf.generators.ranking import best, ranking
    from izograf.generators.render import render, save_png, upscaled
    from izograf.generators.upscaler import load_upscaler
    from izograf.schema.resolve import resolve_request

    requests = [resolve_request(card, request) for request in requests]
    paths = _paths(output, requests, keep)
    taken = [path for named in paths for path in named if path.exists()]
    if taken and not overwrite:
        raise InvalidInput(
            f"{taken[0]} exists already ({len(taken)} of the files to write do): add --overwrite, "
            "or choose another --output."
        )
    configure_threads()
    generator, placement = load_generator(requests[0].model, **place)
    if any(keep < request.num_images for request in requests):
        ranking(generator)
    environment = fingerprint(placement)
    same_place = {"device": placement.device, "precision": placement.precision}
    upscaler = load_upscaler(DEFAULT_UPSCALER, **same_place) if upscale else None
    total = sum(map(len, paths))
    written: list[dict[str, Any]] = []
    with counting_progress("generating") as progress, measure_energy(placement.device) as reading:
        progress(0, total)
        for request, named in zip(requests, paths, strict=True):
            made: Iterable[Picture] = render(generator, request, environment)
            if keep < request.num_images:
                made = best(generator, request, list(made), keep)
            for path, picture in zip(named, made, strict=True):
                if upscaler is not None and upscale is not None:
                    picture = upscaled(picture, upscaler, DEFAULT_UPSCALER, upscale)
                save_png(path, picture)
                written.append(_described(path, request, picture.record))
                progress(len(written), total)
    energy = reading.energy
    if as_json:
        each = {
            "joules": None if energy.joules is None else energy.joules / total,
            "energy_method": energy.method,
        }
        rows = [row | each for row in written]
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for item in written:
        typer.echo(item["path"])
    typer.echo(
        f"{total} picture{'' if total == 1 else 's'} in {energy.seconds:.1f} s "
        f"on {placement.device} ({placement.precision}, {placement.backend}).",
        err=True,
    )


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

    _refuse_other_format(output)
    card = read_card(find_model(model))
    given = given_options(steps, guidance, sampler, options)
    requests = [
        resolve_request(card, GenerationRequest(model, condition, columns, seed, given))
        for condition in _conditions(card, None)
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


@app.command()
def verify(
    picture: Annotated[Path, typer.Argument(help="A PNG made by izograf.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the model lies now, if it moved.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a picture again from its own metadata: bit-exact, close, or cannot."""
    from izograf.core.devices import configure_threads
    from izograf.generators.render import read_png

    configure_threads()
    pixels, record = read_png(picture)
    try:
        result = _verified(pixels, record, model)
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


def _verified(pixels: Any, record: Any, model: str | None) -> dict[str, Any]:
    from izograf.checkpoints.load import load_generator
    from izograf.core.backends import usable_backend
    from izograf.core.devices import fingerprint
    from izograf.generators.render import require_same_weights
    from izograf.generators.render import verify as compare
    from izograf.schema.library import find_model, read_card

    name = model or str(record["request"]["model"])
    require_same_weights(read_card(find_model(name)), name, record)
    made_in = record["environment"]
    precision, backend = str(made_in.get("precision", "auto")), made_in.get("backend")
    generator, placement = load_generator(
        name, precision=precision, backend=usable_backend(backend)
    )
    return compare(pixels, record, generator, fingerprint(placement)).to_json()


def given_options(
    steps: int | None, guidance: float | None, sampler: str | None, options: list[str] | None
) -> dict[str, OptionValue]:
    named: dict[str, OptionValue | None] = {
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "sampler": sampler,
    }
    given = {name: value for name, value in named.items() if value is not None}
    for option in options or ():
        name, separator, value = option.partition("=")
        if not separator:
            raise InvalidInput(f"--option takes name=value, got {option!r}.")
        given[name.strip()] = value.strip()
    return given


def _text_condition(
    card: ModelCard,
    prompt: str,
    classes: list[str] | None,
    negative: str,
    attributes: list[str] | None,
    style: str | None,
) -> dict[str, str]:
    """The condition of what was typed; what the model does not understand is said at once."""
    from izograf.schema.prompting import compose_prompt

    if classes:
        raise InvalidInput("A prompt and --class say the same thing twice: leave out one of them.")
    prompted = compose_prompt(card, prompt, negative=negative, given=attributes or (), style=style)
    for remark in prompted.remarks:
        typer.echo(remark, err=True)
    return prompted.condition


def _candidates(best_of: int, num_images: int, towards: dict[str, int | str]) -> int:
    if towards:
        raise InvalidInput("--best-of chooses among pictures, and a strip needs them all.")
    if not num_images <= best_of <= MAX_BEST_OF:
        raise InvalidInput(
            f"--best-of must be from the number of pictures, {num_images}, to {MAX_BEST_OF}, "
            f"got {best_of}."
        )
    return best_of


def _conditions(card: ModelCard, classes: list[str] | None) -> list[dict[str, str]]:
    """One condition per class asked for, each class once; all of the model's by default."""
    from izograf.schema.labels import resolve_class

    if not card.classes and not classes:
        return [{"type": "none"}]
    if not card.classes:
        raise InvalidInput(f"{card.name} has no classes: leave out --class.")
    asked = classes or [label.name for label in card.classes]
    names = [card.classes[resolve_class(text, card.classes)].name for text in asked]
    return [{"type": "class", "class": name} for name in dict.fromkeys(names)]


def _paths(output: Path, requests: list[GenerationRequest], keep: int) -> list[list[Path]]:
    """Where each picture of each request goes, of which the best `keep` are written."""
    suffix = output.suffix.lower()
    _refuse_other_format(output)
    total = keep * len(requests)
    if suffix in IMAGE_SUFFIXES:
        if total == 1:
            return [[output]]
        raise InvalidInput(f"{output} is one file, but {total} pictures were asked: give a folder.")
    if output.is_file():
        raise InvalidInput(f"{output} is a file, and {total} pictures need a folder.")
    return [[output / name for name in _names(request, keep)] for request in requests]


def _names(request: GenerationRequest, keep: int) -> list[str]:
    """`mountain-7.png` by seed; of a strip `mountain-7-0.png` by its way, in sortable numbers.

    Where fewer are kept than are drawn it is `mountain-best-1.png`, by rank.
    """
    stem = _file_stem(request)
    if keep < request.num_images:
        return [f"{stem}-best-{rank}.png" for rank in range(1, keep + 1)]
    if not request.towards:
        return [f"{stem}-{seed}.png" for seed in request.seeds]
    width = len(str(request.num_images - 1))
    return [f"{stem}-{request.seed}-{i:0{width}}.png" for i in range(request.num_images)]


def _file_stem(request: GenerationRequest) -> str:
    """The label as part of a file name: a class may be called AC/DC, or come from a bad card.

    Of a prompt the first words, joined by hyphens.
    """
    label = request.label
    if "prompt" in request.condition:
        label = "-".join(re.findall(r"\w+", label.lower())[:STEM_WORDS]) or "image"
    return re.sub(r"[^\w .+-]|^\.+", "_", label)[:MAX_STEM]


def _refuse_other_format(output: Path) -> None:
    if output.suffix.lower() in OTHER_SUFFIXES:
        raise InvalidInput(
            f"Pictures are written as PNG, which keeps how they were made: use {output.stem}.png."
        )


def _described(path: Path, request: GenerationRequest, record: Any) -> dict[str, Any]:
    return {
        "path": str(path),
        "model": request.model,
        "condition": dict(request.condition),
        "seed": record["seed"],
        **({"position": record["position"]} if request.towards else {}),
        "pixels_sha256": record["pixels_sha256"],
    }
