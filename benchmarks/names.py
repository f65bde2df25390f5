"""Does a text model draw the picture that has the name asked for?

For data whose tables name their pictures, as the emoji. Every picture drawn is compared with all of
the data, by features of a network that took no part in the training. "Nearest" is how often the
picture of that name is the nearest, "of five" how often it is among the five nearest; "keyword" is
how often the nearest has the keyword when a single keyword is asked. The frame around a name or a
keyword is one that no training caption has.

    python benchmarks/names.py --model runs/emoji --data emoji-128.zip --extractor-weights FILE

Such a model has seen the pictures themselves: this measures whether it finds and remembers them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from common import Report, Table
from prompts import draw, opened, sampling_parser, shares

# isort: split
import torch

from izograf.core.devices import cache_folder
from izograf.data.captions import EmojiCaptions, captions_of
from izograf.data.dataset import ImageSet, load_images
from izograf.data.sentences import articles, open_book
from izograf.experiments.evaluation import extractor_for, remembered_features
from izograf.metrics.extractors import extract_features
from izograf.schema.labels import LANGUAGES


def framed(said: str, rng: random.Random, language: str) -> str:
    """`said` in a sentence that no training caption is."""
    return articles(
        rng.choice(open_book(language).frames("bare_emoji", held_out=True)).format(emoji=said)
    )


def names_in(images: ImageSet) -> EmojiCaptions:
    """The names and keywords of `images`."""
    captions = captions_of(images)
    if not isinstance(captions, EmojiCaptions):
        raise SystemExit(
            f"{images.name} has no table with names: give data with the columns text and keywords."
        )
    return captions


def agreement(
    captions: EmojiCaptions,
    asked: Sequence[int],
    way: str,
    order: Callable[[Sequence[str]], Sequence[Sequence[int]]],
) -> list[dict[str, Any]]:
    """What was found of the names and of one keyword each in one language, and by chance.

    `order` gives for each prompt the pictures' numbers, the nearest to what is drawn first.
    """
    rng = random.Random(1)
    said = [captions.said(index, way) for index in range(len(captions))]
    names, keywords = [name for name, _, _ in said], [set(words) for _, words, _ in said]
    words = [rng.choice(sorted(keywords[index]) or [names[index]]) for index in asked]
    named = order([framed(names[index], rng, way) for index in asked])
    called = order([framed(word, rng, way) for word in words])
    near = [[names[other] for other in others[:5]] for others in named]
    wanted = [names[index] for index in asked]
    having = [sum(word in each for each in keywords) for word in words]
    sharing = [names.count(name) for name in wanted]
    return [
        {
            "language": way,
            "nearest": shares([found[0] == name for found, name in zip(near, wanted, strict=True)]),
            "of five": shares([name in found for found, name in zip(near, wanted, strict=True)]),
            "keyword": shares(
                [word in keywords[found[0]] for found, word in zip(called, words, strict=True)]
            ),
        },
        {
            "language": f"{way}, by chance",
            "nearest": 100 * mean(sharing) / len(names),
            "of five": min(500 * mean(sharing) / len(names), 100),
            "keyword": 100 * mean(having) / len(names),
        },
    ]


def main() -> int:
    parser = sampling_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="pictures with names")
    parser.add_argument("--model", required=True, help="one trained on these pictures")
    parser.add_argument("--prompts", type=int, default=300, help="names in each language")
    parser.add_argument("--extractor-weights", type=Path, help="SqueezeNet 1.1 as safetensors")
    options = parser.parse_args()
    generator, placement, sampling = opened(options)
    images = load_images(
        [options.data], generator.card.image_size, cache_dir=cache_folder() / "data"
    )
    captions = names_in(images)
    extractor = extractor_for(
        "squeezenet1.1" if options.extractor_weights else "random-conv",
        options.extractor_weights, None,
    )  # fmt: skip
    known = remembered_features(cache_folder() / "features", images.images, extractor)

    asked = random.Random(0).sample(range(len(captions)), min(options.prompts, len(captions)))

    def order(prompts: Sequence[str]) -> list[list[int]]:
        drawn = extract_features(draw(generator, prompts, sampling), extractor)
        ranked: list[list[int]] = torch.cdist(drawn, known).argsort(1).tolist()
        return ranked

    table = Table(f"{generator.card.name}, {len(asked)} names a language, %")
    for way in LANGUAGES:
        table.rows += agreement(captions, asked, way, order)
    return Report("names", placement.precision, [table]).show(options)


if __name__ == "__main__":
    sys.exit(main())
