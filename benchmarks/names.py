"""Does a text model draw the picture that has the name asked for?

For data whose tables name their pictures, as the emoji. Every picture drawn is compared with all of
the data, by features of a network that took no part in the training. "Nearest" is how often the
picture of that name is the nearest, "of five" how often it is among the five nearest; "keyword" is
how often the nearest has the keyword when a single keyword is asked. The frame around a name or a
keyword is one that no training caption has.

    python benchmarks/names.py --data emoji-128.zip --extractor-weights squeezenet1_1.safetensors

Such a model has seen the pictures themselves: this measures whether it finds and remembers them.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import Report, Table
from prompts import draw, shares

# isort: split
import torch

from izograf.checkpoints.load import load_generator
from izograf.core.devices import cache_folder, configure_threads
from izograf.data.dataset import ImageSet, load_images
from izograf.data.sentences import articles, open_book
from izograf.experiments.evaluation import extractor_for, remembered_features
from izograf.schema.labels import LANGUAGES

SUFFIX = {"en": "", "ru": "_ru"}


def framed(said: str, rng: random.Random, language: str) -> str:
    """`said` in a sentence that no training caption is."""
    return articles(
        rng.choice(open_book(language).frames("bare_emoji", held_out=True)).format(emoji=said)
    )


def rows_of(images: ImageSet) -> Sequence[Mapping[str, Any]]:
    """The named rows of the table of `images`."""
    if not images.columns or "text" not in images.columns[0]:
        raise SystemExit(f"{images.name} has no table with names: give data with a column text.")
    return images.columns


def agreement(
    rows: Sequence[Mapping[str, Any]],
    asked: Sequence[int],
    way: str,
    order: Callable[[Sequence[str]], list[list[int]]],
) -> list[dict[str, Any]]:
    """What was found of the names and of one keyword each in one language, and by chance."""
    rng = random.Random(1)
    name, keywords = f"text{SUFFIX[way]}", f"keywords{SUFFIX[way]}"
    words = [rng.choice(rows[i][keywords]) for i in asked]
    named = order([framed(rows[i][name], rng, way) for i in asked])
    called = order([framed(word, rng, way) for word in words])
    having = [sum(word in row[keywords] for row in rows) for word in words]
    return [
        {
            "language": way,
            "nearest": shares([near[0] == i for near, i in zip(named, asked, strict=True)]),
            "of five": shares([i in near[:5] for near, i in zip(named, asked, strict=True)]),
            "keyword": shares(
                [word in rows[near[0]][keywords] for near, word in zip(called, words, strict=True)]
            ),
        },
        {
            "language": f"{way}, by chance",
            "nearest": 100 / len(rows),
            "of five": min(500 / len(rows), 100),
            "keyword": 100 * sum(having) / len(having) / len(rows),
        },
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="pictures with names")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--prompts", type=int, default=300, help="names in each language")
    parser.add_argument("--extractor-weights", type=Path, help="SqueezeNet 1.1 as safetensors")
    parser.add_argument("--steps", type=int, help="default: the model's")
    parser.add_argument("--guidance", type=float, help="default: the model's")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.quick = False
    configure_threads()
    generator, placement = load_generator(options.model)
    given = {"num_inference_steps": options.steps, "guidance_scale": options.guidance}
    sampling = {name: value for name, value in given.items() if value is not None}
    images = load_images([options.data], generator.card.image_size, cache_dir=cache_folder())
    rows = rows_of(images)
    extractor = extractor_for(
        "squeezenet1.1" if options.extractor_weights else "random-conv",
        options.extractor_weights, None,
    )  # fmt: skip
    known = remembered_features(cache_folder() / "features", images.images, extractor)

    asked = random.Random(0).sample(range(len(rows)), min(options.prompts, len(rows)))

    def order(prompts: Sequence[str]) -> list[list[int]]:
        """For each prompt the rows by their pictures' distance from what is drawn."""
        drawn: list[list[int]] = (
            torch.cdist(extractor(draw(generator, prompts, sampling)), known).argsort(1).tolist()
        )
        return drawn

    table = Table(f"{generator.card.name}, {len(asked)} names a language, %")
    for way in LANGUAGES:
        table.rows += agreement(rows, asked, way, order)
    return Report("names", placement.precision, [table]).show(options)


if __name__ == "__main__":
    sys.exit(main())
