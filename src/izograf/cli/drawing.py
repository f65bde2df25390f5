"""What the verbs that draw pictures share: options, conditions, file names, and the drawing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from izograf.schema.errors import InvalidInput
from izograf.schema.library import DEFAULT_TEXT_MODEL, DEFAULT_UPSCALER
from izograf.schema.request import GenerationRequest

if TYPE_CHECKING:
    from izograf.generators.original import Original
    from izograf.generators.render import Picture
    from izograf.schema.card import ModelCard
    from izograf.schema.options import OptionValue

DEFAULT_MODEL = "scenes"
IMAGE_SUFFIXES = (".png",)
OTHER_SUFFIXES = (".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_STEM, STEM_WORDS = 100, 6

Model = Annotated[
    str, typer.Option("--model", "-m", help="A name of `izograf models`, or a folder.")
]
AnyModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help=f"A name of `izograf models`, or a folder. Default: {DEFAULT_MODEL}, or with a "
        f"prompt {DEFAULT_TEXT_MODEL}.",
    ),
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
Fast = Annotated[
    bool,
    typer.Option("--fast", help="The model's fast preset: sooner there, a little less exact."),
]
Negative = Annotated[str, typer.Option("--negative", help="What the pictures should not show.")]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", "-a", help="sky=orange, небо=оранжевое; may be repeated."),
]
Style = Annotated[str | None, typer.Option("--style", help="A preset of `izograf styles`.")]
Upscale = Annotated[
    int | None, typer.Option("--upscale", help="Enlarge each picture 2, 4 or 8 times.")
]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", "-c", help="English or Russian; may be repeated. Default: all."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]


def named_model(model: str | None, *, has_text: bool) -> tuple[str, ModelCard]:
    """The model that was named, or else the one for prompts or for classes, with its card."""
    from izograf.schema.library import default_text_model, find_model, read_card

    if model is None:
        model = default_text_model() if has_text else DEFAULT_MODEL
    return model, read_card(find_model(model))


def given_options(
    card: ModelCard,
    steps: int | None,
    guidance: float | None,
    sampler: str | None,
    options: list[str] | None,
    *,
    fast: bool = False,
) -> dict[str, OptionValue]:
    """The options by name, as far as they were given, over those of `--fast`."""
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
    return card.faster(given) if fast else given


def text_condition(
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


def class_conditions(card: ModelCard, classes: list[str] | None) -> list[dict[str, str]]:
    """One condition per class asked for, each class once; all of the model's by default."""
    from izograf.schema.labels import resolve_class

    if not card.classes and not classes:
        return [{"type": "none"}]
    if not card.classes:
        raise InvalidInput(f"{card.name} has no classes: leave out --class.")
    asked = classes or [label.name for label in card.classes]
    names = [card.classes[resolve_class(text, card.classes)].name for text in asked]
    return [{"type": "class", "class": name} for name in dict.fromkeys(names)]


def draw(
    card: ModelCard,
    requests: list[GenerationRequest],
    output: Path,
    place: dict[str, str],
    *,
    keep: int,
    upscale: int | None,
    overwrite: bool,
    as_json: bool,
    original: Original | None = None,
) -> None:
    """Draws the pictures of the requests; of each the best `keep` are enlarged and written.

    With an `original` all of them start from that picture.
    """
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
            made: Iterable[Picture] = render(generator, request, environment, original=original)
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


def _paths(output: Path, requests: list[GenerationRequest], keep: int) -> list[list[Path]]:
    """Where each picture of each request goes, of which the best `keep` are written."""
    suffix = output.suffix.lower()
    refuse_other_format(output)
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


def check_one_png(output: Path, *, overwrite: bool) -> None:
    """
    Raises:
        InvalidInput: `output` is no PNG, or is there already and not to be replaced.
    """
    if output.suffix.lower() not in IMAGE_SUFFIXES:
        raise InvalidInput(f"One PNG is written: use {output.stem or 'out'}.png, not {output}.")
    if output.exists() and not overwrite:
        raise InvalidInput(f"{output} exists already: add --overwrite, or choose another --output.")


def refuse_other_format(output: Path) -> None:
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
