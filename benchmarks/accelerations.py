"""What each acceleration costs in quality: distance to real pictures, and to the exact picture.

Every setting draws the same pictures, the same seeds and classes. "levels" is the root mean square
difference, of 255, to the picture in float32 by torch with the card's defaults; FD, the Frechet
distance to real pictures, says what that means: a picture may be another one and as good.

    python benchmarks/accelerations.py --data scenes-128 --extractor-weights FILE
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import Report, Table

# isort: split
import torch
from torch import Tensor

from izograf.checkpoints.load import load_generator
from izograf.core.backends import BACKENDS, EAGER, OPENVINO, OPENVINO_INT8
from izograf.core.devices import cache_folder, configure_threads
from izograf.core.pixels import to_uint8
from izograf.core.rng import derive_seed
from izograf.core.types import Condition, Generator
from izograf.data.dataset import load_images
from izograf.diffusion.reuse import INTERVAL
from izograf.experiments import evaluation
from izograf.experiments.ladder import Rung
from izograf.metrics.agreement import class_agreement
from izograf.metrics.evaluate import Reference, score_features
from izograf.metrics.extractors import extract_features
from izograf.schema.card import ModelCard
from izograf.schema.errors import IzografError
from izograf.schema.library import find_model
from izograf.schema.options import OptionValue


def settings(card: ModelCard, backend: str) -> Iterator[Rung]:
    """The exact picture first, then each acceleration that the card offers, by itself."""
    offered = {option.name for option in card.options}
    yield Rung("float32, torch", "", "fp32", EAGER)
    yield Rung("bfloat16, torch", "", "bf16", EAGER)
    if backend != EAGER:
        yield Rung(f"bfloat16, {backend}", "", "bf16", backend)
    if backend == OPENVINO and not BACKENDS[OPENVINO_INT8].missing():
        yield Rung("eight bits", "", "bf16", OPENVINO_INT8)
    tried: dict[str, Sequence[OptionValue]] = {
        "num_inference_steps": (14, 10, 8), "guidance_low": (0.3, 0.6, 1.2), INTERVAL: (2, 3, 5),
    }  # fmt: skip
    for option, values in tried.items():
        if option in offered:
            for value in values:
                yield Rung(f"{option} {value}", "", "bf16", backend, {option: value})
    if card.fast:
        yield Rung("--fast", "", "bf16", backend, card.fast)


class Drawing:
    """Pictures of the data's classes, number i always of the same class and seed."""

    def __init__(self, asked: Tensor | None, count: int) -> None:
        self.asked = asked
        self.all = range(count)

    def __call__(
        self, generator: Generator, options: Mapping[str, OptionValue], which: Sequence[int]
    ) -> Tensor:
        """The pictures of those numbers, uint8 [N,3,H,W]."""
        made = []
        for start in range(0, len(which), evaluation.SAMPLING_BATCH):
            part = which[start : start + evaluation.SAMPLING_BATCH]
            ids = None if self.asked is None else self.asked[list(part)]
            seeds = [derive_seed(0, "evaluation", number) for number in part]
            made.append(
                to_uint8(generator.sample(Condition(class_ids=ids), seeds, options=options))
            )
        return torch.cat(made)


def measured(
    model: str, chosen: Sequence[Rung], draw: Drawing, exact: Sequence[int]
) -> Iterator[tuple[Rung, Tensor, float]]:
    """The pictures of each setting, and seconds a picture; of the first one those of `exact`."""
    place, generator = None, None
    for setting in chosen:
        if setting.place != place:
            place = setting.place
            generator, _ = load_generator(
                model, device="cpu", precision=setting.precision, backend=setting.backend
            )
        print(setting.name, "...", file=sys.stderr, flush=True)
        assert generator is not None
        which = exact if setting is chosen[0] else draw.all
        batch = evaluation.SAMPLING_BATCH
        for size in {min(batch, len(which)), len(which) % batch} - {0}:
            draw(generator, setting.options, which[:size])  # makes its programs
        start = time.perf_counter()
        pictures = draw(generator, setting.options, which)
        yield setting, pictures, (time.perf_counter() - start) / len(pictures)


def main(options: argparse.Namespace) -> int:
    configure_threads()
    generator, _ = load_generator(options.model, device="cpu")
    card = generator.card
    read = partial(load_images, [options.data], card.image_size, cache_dir=cache_folder() / "data")
    train, held_out = read(split="train"), read(split="test")
    extractor = evaluation.extractor_for(
        "squeezenet1.1" if options.extractor_weights else "random-conv",
        options.extractor_weights, None,
    )  # fmt: skip
    extract = partial(evaluation.remembered_features, cache_folder() / "features")
    reference = Reference.measure(
        train.images, held_out.images, extractor, seed=0, extract=extract,
        split=f"{train.name}-{card.image_size}/{train.split}", resize=train.resize,
    )  # fmt: skip
    judge = evaluation.fitting_judge(find_model(options.judge), card)
    asked = evaluation.asked_classes(card, train, options.num_samples)
    draw = Drawing(asked, options.num_samples)
    backend = EAGER if BACKENDS[OPENVINO].missing() else OPENVINO
    first, *others = settings(card, backend)
    others = [each for each in others if any(part in each.name for part in options.only)]
    chosen = [first, *others][: 3 if options.quick else None]
    stride = max(1, options.num_samples // options.num_exact)
    exact: Tensor | None = None
    table = Table(
        f"{card.name}, {options.num_samples} pictures, levels of {len(draw.all[::stride])}"
    )
    for setting, pictures, seconds in measured(options.model, chosen, draw, draw.all[::stride]):
        row: dict[str, Any] = {"setting": setting.name, "ms a picture": 1e3 * seconds}
        if exact is None:
            exact = pictures
            table.rows.append(row | dict.fromkeys(("levels", "FD", "95 %", "judge %"), ""))
            continue
        features = extract_features(pictures, extractor)
        (score,) = score_features(features, reference, metrics=["frechet"])
        row |= {
            "levels": levels(pictures[::stride], exact),
            "FD": score.value,
            "95 %": "{:.0f}-{:.0f}".format(*score.ci95),
            "judge %": "",
        }
        if judge is not None and asked is not None:
            known = torch.tensor([judge.classes.index(label.name) for label in card.classes])
            row["judge %"] = 100 * class_agreement(judge.logits(pictures), known[asked])["value"]
        table.rows.append(row)
        print(*row.values(), file=sys.stderr, flush=True)
    return Report("accelerations", "as said", [table]).show(options)


def levels(pictures: Tensor, exact: Tensor) -> float:
    """Root mean square of the differences of uint8 pictures, all of them together."""
    return float((pictures.float() - exact.float()).square().mean().sqrt())


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a folder or archive of pictures by class")
    add("--extractor-weights", type=Path, help="SqueezeNet 1.1; without it, random features")
    add("--model", default="scenes")
    add("--judge", default="scenes-judge")
    add("--num-samples", type=int, default=2_500)
    add("--num-exact", type=int, default=250, help="of which those in float32 are drawn")
    add("--only", nargs="+", default=[""], help="settings with these words in their names")
    add("--quick", action="store_true", help="only show that it runs")
    add("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main(parse()))
    except IzografError as error:
        sys.exit(f"accelerations.py: {error}")
