"""Copies a finished run into the zoo, with what its card should say beyond what training knows.

    python tools/bundle.py runs/scenes --summary "six kinds of scenes, 64 px" --notes "..."
    python tools/bundle.py --samples-only src/izograf/zoo/scenes

The weights are copied as they are; the card keeps recipe, data and hashes. Beside them goes
`samples.png`: the first seeds of every class, or a seed of each of the card's examples, with the
card's defaults, so nobody chose among them. Scores are written afterwards by
`izograf evaluate NAME --record`.
"""

from __future__ import annotations

import argparse
import io
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from izograf.checkpoints.load import load_generator
from izograf.core.devices import configure_threads, fingerprint
from izograf.core.storage import file_sha256, write_atomically
from izograf.generators.render import render
from izograf.generators.sheet import to_pil
from izograf.schema.card import ModelCard
from izograf.schema.library import CARD, MOST_COLUMNS, SAMPLES, ZOO, read_card
from izograf.schema.options import OptionSpec
from izograf.schema.prompting import compose_prompt
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request

NUM_SAMPLES = 5  # of each class


def with_default(options: tuple[OptionSpec, ...], setting: str) -> tuple[OptionSpec, ...]:
    """The options with the default of one changed, checked: `guidance_scale=1.5`."""
    name, _, value = setting.partition("=")
    if name not in {option.name for option in options}:
        raise SystemExit(f"The card has no option {name!r}.")
    return tuple(
        replace(option, default=option.parse(value)) if option.name == name else option
        for option in options
    )


def write_samples(folder: Path, *, device: str = "auto", columns: int = NUM_SAMPLES) -> None:
    """Writes `samples.png` of the model in `folder`: a row for each class, seeds from 0.

    A model that reads prompts has one row, a picture of each of the card's examples.
    """
    card = read_card(folder)
    generator, placement = load_generator(str(folder), device=device)
    environment = fingerprint(placement)
    pictures: list[Tensor] = []
    for condition, seed, count in asked(card, columns):
        request = resolve_request(card, GenerationRequest(str(folder), condition, count, seed))
        pictures += [picture.pixels for picture in render(generator, request, environment)]
    buffer = io.BytesIO()
    to_pil(joined(torch.stack(pictures), len(card.examples) or columns)).save(
        buffer, "PNG", optimize=True
    )
    write_atomically(folder / SAMPLES, buffer.getvalue())


def asked(card: ModelCard, columns: int) -> list[tuple[dict[str, str], int, int]]:
    """Conditions with first seed and number: a row for each class, or a row of prompts."""
    if "text" in card.conditions:
        return [
            (compose_prompt(card, prompt).condition, seed, 1)
            for seed, prompt in enumerate(card.examples)
        ]
    classes = [{"type": "class", "class": label.name} for label in card.classes]
    return [(condition, 0, columns) for condition in classes or [{"type": "none"}]]


def joined(pixels: Tensor, columns: int) -> Tensor:
    """Pictures [R*columns,3,H,W] edge to edge in rows, as one picture [3,R*H,columns*W]."""
    count, channels, height, width = pixels.shape
    rows = count // columns
    grid = pixels.reshape(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return grid.reshape(channels, rows * height, columns * width)


def copy_run(arguments: argparse.Namespace) -> Path:
    """Copies the run's weights and its finished card into the zoo."""
    card: ModelCard = read_card(arguments.folder)
    for name, expected in card.weights.items():
        if file_sha256(arguments.folder / name) != expected:
            raise SystemExit(f"{arguments.folder / name} is not what its card describes.")
    options = card.options
    for setting in arguments.default:
        options = with_default(options, setting)
    card = replace(
        card, summary=arguments.summary, notes=arguments.notes, options=options,
        examples=tuple(arguments.example) or card.examples,
    )  # fmt: skip
    target = ZOO / card.name
    target.mkdir(parents=True, exist_ok=True)
    for name in card.weights:
        shutil.copyfile(arguments.folder / name, target / name)
    write_atomically(target / CARD, card.dumps())
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the run, or with --samples-only any model")
    parser.add_argument("--summary")
    parser.add_argument("--notes", help="what is not good yet, in plain words")
    parser.add_argument("--default", action="append", default=[], help="option=value")
    parser.add_argument(
        "--example", action="append", default=[], help="prompt of a sample, in place of the card's"
    )
    parser.add_argument("--device", default="auto", help="where the samples are computed")
    parser.add_argument("--samples-only", action="store_true", help="only write its samples.png")
    arguments = parser.parse_args()
    if not arguments.samples_only and None in (arguments.summary, arguments.notes):
        parser.error("--summary and --notes are needed: what it makes, and what is not good yet")
    if len(arguments.example) > MOST_COLUMNS:
        parser.error(f"at most {MOST_COLUMNS} examples stand in a sheet")
    configure_threads()
    target = arguments.folder if arguments.samples_only else copy_run(arguments)
    if read_card(target).task == "generate":
        write_samples(target, device=arguments.device)
    print(target)  # noqa: T201


if __name__ == "__main__":
    main()
