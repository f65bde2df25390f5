"""Does a text model draw what it is told, and the same in both languages?

For held-out photographs the class and one measured attribute are said in a sentence of a frame
that no training caption has. The judge, a classifier of real photographs that took no part in the
training, names the class of what was drawn; the attribute is measured as it is in photographs. "By
chance" is how often the attribute is there when the same class is asked for without it.

    python benchmarks/prompts.py --data scenes-128

The last table is the prompt of the paper that asked for this program, over 50 seeds.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Report, Table

# isort: split
from torch import Tensor

from izograf.checkpoints.load import load_generator
from izograf.core.devices import Placement, cache_folder, configure_threads
from izograf.core.types import Generator, TextConditioned
from izograf.data.attributes import measure
from izograf.data.captions import compose
from izograf.data.dataset import load_images
from izograf.experiments.evaluation import judge_in, sample_many
from izograf.schema.labels import LANGUAGES, ClassLabel
from izograf.schema.library import find_model

PAPER = {"ru": "Ландшафт с горами и рекой", "en": "A landscape with mountains and a river"}
LANDSCAPES = ("glacier", "mountain")
ASKED = ("sky", "brightness", "light", "greyscale")
ORDINARY = ((), ("none",), ("normal",), ("neutral",), ("no",))


@dataclass(frozen=True)
class Wish:
    """A class, one attribute with its value, and the sentence that says both."""

    label: ClassLabel
    attribute: str
    value: str
    sentence: Mapping[str, str]
    plain: Mapping[str, str]


def wishes(data: Path, size: int, count: int) -> list[Wish]:
    """What is true of `count` held-out photographs, each attribute equally often.

    Of no attribute the ordinary is asked: nobody says that a picture is in colour.
    """
    held_out = load_images([data], size, split="test", cache_dir=cache_folder() / "data")
    measured = measure(held_out.images).per_picture()
    fitting = {
        name: [i for i, values in enumerate(measured) if values.get(name, ()) not in ORDINARY]
        for name in ASKED
    }
    named = [name for name in ASKED if fitting[name]]
    rng = random.Random(0)
    found: list[Wish] = []
    while named and len(found) < count:
        attribute = named[len(found) % len(named)]
        index = rng.choice(fitting[attribute])
        values = measured[index][attribute]
        label = held_out.classes[int(held_out.class_ids[index])]
        said = {way: compose(label, {attribute: values}, rng, way, True) for way in LANGUAGES}
        plain = {way: compose(label, {}, rng, way, True) for way in LANGUAGES}
        found.append(Wish(label, attribute, values[0], said, plain))
    return found


def draw(generator: Generator, prompts: Sequence[str], options: Mapping[str, Any]) -> Tensor:
    """A picture of each prompt, uint8 [N,3,S,S]; picture i is of the i-th seed."""
    if not isinstance(generator, TextConditioned):
        raise SystemExit(f"{generator.card.name} reads no prompts: choose a model that does.")

    def progress(done: int, count: int) -> None:
        end = "\n" if done == count else ""
        print(f"\r{done}/{count}", end=end, file=sys.stderr, flush=True)

    return sample_many(
        generator, None, len(prompts), seed=0, options=options, on_progress=progress,
        prompts=prompts,
    )  # fmt: skip


def shares(found: Sequence[bool]) -> float:
    return 100 * sum(found) / max(1, len(found))


def sampling_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark that asks a text model."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, help="default: the model's")
    parser.add_argument("--guidance", type=float, help="default: the model's")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(quick=False)
    return parser


def opened(options: argparse.Namespace) -> tuple[Generator, Placement, dict[str, Any]]:
    """The model asked for, where it computes, and the sampling options that were given."""
    configure_threads()
    generator, placement = load_generator(options.model)
    given = {"num_inference_steps": options.steps, "guidance_scale": options.guidance}
    return generator, placement, {name: v for name, v in given.items() if v is not None}


def main() -> int:
    parser = sampling_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="pictures with a test split")
    parser.add_argument("--model", default="scenes-text")
    parser.add_argument("--judge", default="scenes-judge")
    parser.add_argument("--prompts", type=int, default=800, help="sentences in each language")
    options = parser.parse_args()
    generator, placement, sampling = opened(options)
    judge = judge_in(find_model(options.judge))
    names = list(judge.classes)
    asked = wishes(options.data, generator.card.image_size, options.prompts)

    made = {way: draw(generator, [w.sentence[way] for w in asked], sampling) for way in LANGUAGES}
    without = draw(generator, [w.plain["en"] for w in asked], sampling)
    table = Table(f"{generator.card.name}, {len(asked)} sentences a language, % that agree")
    for way in LANGUAGES:
        verdict = judge.logits(made[way]).argmax(1).tolist()
        right = [names[v] == w.label.name for v, w in zip(verdict, asked, strict=True)]
        row = {"language": way, "class (judge)": shares(right)}
        table.rows.append(row | agreements(made[way], asked))
    table.rows.append({"language": "by chance", "class (judge)": "", **agreements(without, asked)})

    paper = Table("the paper's prompt, 50 seeds, % that the judge calls")
    for prompt in PAPER.values():
        verdict = judge.logits(draw(generator, [prompt] * 50, sampling)).argmax(1).tolist()
        called = [names[v] for v in verdict]
        paper.rows.append(
            {"prompt": prompt, "mountain or glacier": shares([c in LANDSCAPES for c in called])}
        )
    return Report("prompts", placement.precision, [table, paper]).show(options)


def agreements(pictures: Tensor, asked: Sequence[Wish]) -> dict[str, float]:
    """Per cent of pictures with the value asked for, by attribute and over all."""
    found = measure(pictures).per_picture()
    agrees = [w.value in f.get(w.attribute, ()) for f, w in zip(found, asked, strict=True)]
    each = {
        name: shares([a for a, w in zip(agrees, asked, strict=True) if w.attribute == name])
        for name in ASKED
    }
    return {"attribute": shares(agrees), **each}


if __name__ == "__main__":
    sys.exit(main())
