"""`izograf evaluate`: honest numbers for a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Backend, ClassColumn, Data, Device, Json, Precision, parse_count
from izograf.cli.drawing import Fast, Guidance, Options, Sampler, Steps, given_options
from izograf.schema.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from izograf.experiments.evaluation import Evaluation

BUNDLED_JUDGE = "scenes-judge"


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A name of `izograf models`, or a folder.")],
    data: Data,
    class_column: ClassColumn = None,
    num_samples: Annotated[str, typer.Option(help="Pictures to generate (5000, 5k).")] = "5k",
    extractor: Annotated[
        str, typer.Option(help="judge, squeezenet1.1, inception-2015 or random-conv.")
    ] = "judge",
    extractor_weights: Annotated[
        Path | None, typer.Option(help="safetensors of the extractor; judge: a model folder.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="The classifier model that names the class of each sample.",
            show_default=BUNDLED_JUDGE,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="May be repeated: frechet, kid, precision, ...; an unknown name lists them all.",
            show_default="frechet, kid",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the samples and the metrics.")] = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    options: Options = None,
    fast: Fast = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write the scores into the model's card.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model against real pictures: Frechet distance, KID, class agreement.

    Only a number made with the 2015 Inception is called FID; any other names its extractor.
    """
    from izograf.checkpoints.load import load_generator
    from izograf.cli.progress import counting_progress
    from izograf.core.backends import describe_backend
    from izograf.core.devices import cache_folder, configure_threads
    from izograf.core.storage import write_atomically
    from izograf.data.dataset import load_images
    from izograf.experiments import evaluation
    from izograf.metrics.evaluate import STANDARD_METRICS
    from izograf.metrics.registry import METRICS
    from izograf.schema.library import CARD, find_model, read_card

    count = parse_count(num_samples)
    metrics = [name for name in metric or STANDARD_METRICS if METRICS[name]]
    configure_threads()
    folder = find_model(model)
    given = given_options(read_card(folder), steps, guidance, sampler, options, fast=fast)
    judge_folder = _judge_folder(judge, needed=extractor == "judge" and extractor_weights is None)
    measuring = evaluation.extractor_for(extractor, extractor_weights, judge_folder)
    generator, placement = load_generator(
        model, device=device, precision=precision, backend=backend
    )
    card = generator.card
    cache = cache_folder() / "data"
    with counting_progress("reading pictures") as progress:
        train, held_out = (
            load_images(
                data, card.image_size, split=split, class_column=class_column, cache_dir=cache,
                on_progress=progress,
            )
            for split in ("train", "test")
        )  # fmt: skip
    evaluation.check_counts(count, train, held_out)
    asked = evaluation.asked_classes(card, train, count)
    prompts = evaluation.asked_prompts(card, train, count, seed=seed)
    fitting = evaluation.fitting_judge(judge_folder, card) if judge_folder else None
    if judge is not None and fitting is None:
        raise InvalidInput(f"The judge {judge} does not know exactly the classes of {card.name}.")
    with counting_progress("generating") as progress:
        samples = evaluation.sample_many(
            generator, asked, count, seed=seed, options=given, on_progress=progress,
            prompts=prompts,
        )  # fmt: skip
    result = evaluation.evaluate(
        card,
        samples,
        asked,
        train,
        held_out,
        measuring,
        fitting,
        seed=seed,
        metrics=metrics,
        cache=cache_folder() / "features",
    )
    entries = [
        entry
        | {
            "sampling": dict(given),
            **({} if prompts is None else {"asked": "captions of the training pictures"}),
            "precision": placement.precision,
            "backend": describe_backend(placement.backend),
        }
        for entry in result.to_json()
    ]
    if as_json:
        typer.echo(json.dumps(entries, ensure_ascii=False, indent=1))
    else:
        _print_table(card.name, result)
    if record:  # last: what took long to measure is shown even where the card cannot be written
        measured = {entry["name"] for entry in entries}
        kept = [metric for metric in card.metrics if metric.get("name") not in measured]
        write_atomically(folder / CARD, replace(card, metrics=(*kept, *entries)).dumps())


def _judge_folder(judge: str | None, *, needed: bool) -> Path | None:
    """Where the judge lies; None where there is no bundled one and nothing asks for it."""
    from izograf.schema.library import find_model

    try:
        return find_model(judge or BUNDLED_JUDGE)
    except NotFound:
        if judge or needed:
            raise
        return None


def _print_table(name: str, result: Evaluation) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    first = result.scores[0]
    title = (
        f"{name}: {first.num_fake:,} samples, {first.num_real:,} pictures; "
        "lower distances are better"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("score", "value", "95 %", "floor", "ceiling", "relative"):
        if column == "score":
            table.add_column(column, no_wrap=True)
        else:
            table.add_column(column, justify="right")
    for score in result.scores:
        low, high = score.ci95
        table.add_row(
            score.name,
            f"{score.value:.4g}",
            f"{low:.4g} - {high:.4g}",
            f"{score.floor:.4g}",
            f"{score.ceiling:.4g}",
            f"{score.relative:.3f}",
        )
    console = Console()
    console.print(table)
    if result.agreement is not None and result.real_agreement is not None:
        console.print(_agreement_line(result.agreement, result.real_agreement))


def _agreement_line(agreement: Any, real: Any) -> str:
    low, high = agreement["ci95"]
    classes = ", ".join(f"{k} {v:.0%}" for k, v in agreement["per_class"].items())
    return (
        f"The judge names the asked class in {agreement['value']:.1%} of the samples "
        f"({low:.1%} - {high:.1%}); of held-out photographs it is right in {real['value']:.1%}.\n"
        f"By class: {classes}."
    )
