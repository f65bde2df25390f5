"""`izograf bench`: what each acceleration is worth on this machine, with a model of yours."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from izograf.cli.app import app
from izograf.cli.arguments import Json
from izograf.cli.drawing import AnyModel, Options, class_conditions, given_options, named_model
from izograf.schema.errors import InvalidInput

TASKS = {"text-to-image": True, "class-to-image": False}  # and whether they are asked in words
PROMPT = "Ландшафт с горами и рекой"


@app.command()
def bench(
    task: Annotated[str, typer.Argument(help=" or ".join(TASKS))],
    model: AnyModel = None,
    prompt: Annotated[str, typer.Option(help="What text-to-image draws.")] = PROMPT,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each setting draws; the median counts.")
    ] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the picture.")] = 0,
    options: Options = None,
    as_json: Json = False,
) -> None:
    """Draw one picture with one acceleration more at a time: seconds, and how far it moves.

    Float32 in fifty steps by torch is where it begins, the model's fast preset where it ends.
    """
    if task not in TASKS:
        raise InvalidInput(f"There is no benchmark {task!r}: choose {' or '.join(TASKS)}.")
    from izograf.checkpoints.load import load_generator, network_width
    from izograf.cli.progress import counting_progress
    from izograf.core.devices import choose_placement, configure_threads, processor_name
    from izograf.core.types import Condition, Generator
    from izograf.experiments.ladder import climb, rungs_of
    from izograf.generators.render import condition_for
    from izograf.schema.prompting import compose_prompt
    from izograf.schema.request import GenerationRequest
    from izograf.schema.resolve import resolve_request

    name, card = named_model(model, has_text=TASKS[task])
    given = given_options(card, None, None, None, options)
    if TASKS[task]:
        asked = compose_prompt(card, prompt).condition
    else:
        asked = class_conditions(card, None)[0]
    request = resolve_request(card, GenerationRequest(name, asked, 1, seed, given))

    def condition_of(generator: Generator) -> Condition:
        return condition_for(generator, request, range(1))

    threads = configure_threads()
    fastest = choose_placement("cpu", width=network_width(card))
    with counting_progress("drawing") as progress:
        made = climb(
            lambda place: load_generator(
                name, device=place.device, precision=place.precision, backend=place.backend
            )[0],
            rungs_of(card, precision=fastest.precision),
            condition_of,
            seed=seed,
            rounds=rounds,
            options=given,
            on_progress=progress,
        )
    lowest = made[0]
    rows = [
        {
            "setting": each.rung.name,
            "changed": each.rung.changed,
            "seconds": each.median,
            "times_faster": lowest.median / each.median,
            "distance": each.distance,
        }
        for each in made
    ]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    typer.echo(f"{card.name}, one picture on {processor_name()} with {threads} threads")
    for row in rows:
        typer.echo(
            f"  {row['setting']:18} {row['seconds']:8.3f} s {row['times_faster']:6.1f}x  "
            f"{row['distance']:5.1f} levels away  {row['changed']}"
        )
