"""`izograf evaluate`: honest numbers for a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Data, Device, Json, Precision, parse_count
from izograf.cli.verbs.generate import Guidance, Options, Sampler, Steps, given_options

if TYPE_CHECKING:
    from izograf.experiments.evaluation import Evaluation

BUNDLED_JUDGE = "scenes-judge"


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A name of `izograf models`, or a folder.")],
    data: Data,
    num_samples: Annotated[str, typer.Option(help="Pictures to generate (5000, 5k).")] = "5k",
    extractor: Annotated[
        str, typer.Option(help="judge, squeezenet1.1, inception-2015 or random-conv.")
    ] = "judge",
    extractor_weights: Annotated[
        Path | None, typer.Option(help="safetensors of the extractor; judge: a model folder.")
    ] = None,
    judge: Annotated[
        str, typer.Option(help="The classifier model that names the class of each sample.")
    ] = BUNDLED_JUDGE,
    seed: Annotated[int, typer.Option(help="Seed of the samples and the metrics.")] = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    options: Options = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the scores into the model's card.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model against real pictures: Frechet distance, KID, class agreement.

    Only a number made with the 2015 Inception is called FID; any other names its extractor.
    """
    from izograf.checkpoints.load import load_generator
    from izograf.cli.progress import counting_progress
    from izograf.core.devices import cache_folder, configure_threads
    from izograf.core.storage import write_atomically
    from izograf.data.dataset import load_images
    from izograf.experiments import evaluation
    from izograf.schema.library import CARD, find_model

    count = parse_count(num_samples)
    given = given_options(steps, guidance, sampler, options)
    configure_threads()
    folder = find_model(model)
    judge_folder = find_model(judge)
    measuring = evaluation.extractor_for(extractor, extractor_weights, judge_folder)
    generator, placement = load_generator(model, device=device, precision=precision)
    card = generator.card
    cache = cache_folder() / "data"
    with counting_progress("reading pictures") as progress:
        train = load_images(data, card.image_size, cache_dir=cache, on_progress=progress)
        held_out = load_images(
            data, card.image_size, split="test", cache_dir=cache, on_progress=progress
        )
    asked = evaluation.asked_classes(card, train, count)
    with counting_progress("generating") as progress:
        samples = evaluation.sample_many(
            generator, asked, count, seed=seed, options=given, on_progress=progress
        )
    result = evaluation.evaluate(
        card,
        samples,
        asked,
        train,
        held_out,
        measuring,
        evaluation.fitting_judge(judge_folder, card.classes),
        seed=seed,
    )
    entries = [
        entry | {"sampling": dict(given), "precision": placement.precision}
        for entry in result.to_json()
    ]
    if record:
        kept = [m for m in card.metrics if m.get("name") not in {e["name"] for e in entries}]
        write_atomically(folder / CARD, replace(card, metrics=(*kept, *entries)).dumps())
    if as_json:
        typer.echo(json.dumps(entries, ensure_ascii=False, indent=1))
    else:
        _print_table(card.name, result)


def _print_table(name: str, result: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{name}: lower distances are better", title_justify="left")
    for column in ("score", "value", "95 %", "floor", "ceiling", "relative", "real / fake"):
        table.add_column(column, justify="left" if column == "score" else "right")
    for score in result.scores:
        low, high = score.ci95
        table.add_row(
            score.name,
            f"{score.value:.4g}",
            f"{low:.4g} - {high:.4g}",
            f"{score.floor:.4g}",
            f"{score.ceiling:.4g}",
            f"{score.relative:.3f}",
            f"{score.num_real:,} / {score.num_fake:,}",
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
