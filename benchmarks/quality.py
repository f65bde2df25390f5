"""Quality against evaluations of the denoiser, and against energy: two tables and two figures.

Every sampler draws the same pictures (the same seeds and classes) with 5, 10, 20 and 50
evaluations; what they cost is asked again of some samplers on every backend, and of few-step
students. Guidance, schedule and sampler options are the card's defaults; an evaluation that
classifier-free guidance needs twice, with and without the class, counts once.

    python benchmarks/quality.py --data scenes-128 --extractor-weights FILE --students scenes-gan

measures what `--results` does not hold yet, of the weights as they are now, and draws the figures;
without `--data` it draws and prints what is known. The comparison with its bound is paired: both
sides are the same seeds in the same groups, so the jackknife is one of the difference.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from quality_results import COSTED, Cell, Result, Results, cell_of, draw, report

# isort: split
import torch
from torch import Tensor

from izograf.checkpoints.load import load_generator
from izograf.core import rng
from izograf.core.backends import BACKENDS
from izograf.core.devices import cache_folder, configure_threads, processor_name
from izograf.core.energy import WATTS_PER_CORE, measure_energy
from izograf.core.types import Generator
from izograf.data.dataset import ImageSet, load_images
from izograf.data.scan import ScanReport
from izograf.diffusion.samplers import SAMPLERS
from izograf.experiments import evaluation
from izograf.metrics.evaluate import NUM_GROUPS, Reference, score_features
from izograf.metrics.extractors import extract_features
from izograf.metrics.intervals import random_groups
from izograf.metrics.registry import METRICS, FeatureExtractor
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, IzografError
from izograf.schema.options import OptionValue

HERE = Path(__file__).parent
RESULTS, FIGURES = HERE / "quality.json", HERE.parent / "docs" / "figures"
TWIN = "euler"  # the same as ddim


@dataclass(frozen=True)
class Measuring:
    """What all cells share: the real pictures, what is asked, and how it is measured."""

    reference: Reference
    extractor: FeatureExtractor
    train: ImageSet
    num_samples: int
    seed: int
    watts_per_core: float

    def settings(self, model: str, backend: str, device: str) -> Result:
        """What cells must have in common to stand in one figure; `backend` is the model's own."""
        (floor,) = score_features(self.reference.held_out, self.reference, metrics=["frechet"])
        keys = ("name", "sha256", "num_real", "split", "resize", "seed", "ceiling")
        return {key: getattr(floor, key) for key in keys} | {
            "floor": floor.value,
            "model": model,
            "backend": backend,
            "num_samples": self.num_samples,
            "machine": f"{processor_name()}, threads {torch.get_num_threads()}, {device}",
            "watts_per_core": self.watts_per_core,
        }

    def sample(
        self, generator: Generator, options: Mapping[str, OptionValue], count: int
    ) -> Tensor:
        asked = evaluation.asked_classes(generator.card, self.train, self.num_samples)
        return evaluation.sample_many(
            generator, None if asked is None else asked[:count], count,
            seed=self.seed, options=options, on_progress=lambda *_: None,
        )  # fmt: skip


def plan(
    model: str,
    own_backend: str,
    *,
    samplers: Sequence[str],
    costed: Sequence[str],
    budgets: Sequence[int],
    backends: Sequence[str],
    students: Sequence[str],
) -> list[Cell]:
    """Every cell once, those of one model and backend together; `own_backend` is its default."""
    cells = []
    for backend in dict.fromkeys((own_backend, *backends)):
        chosen = [*samplers] if backend == own_backend else []
        chosen += [name for name in costed if name not in chosen and backend in backends]
        cells += [Cell(model, backend, name, budget) for name in chosen for budget in budgets]
    cells += [Cell(name, backend) for name in students for backend in backends]
    return list(dict.fromkeys(cells))


def measure_all(
    cells: Iterable[Cell], known: Sequence[Result], measuring: Measuring
) -> Iterator[Result]:
    """The results of the cells that `known` lacks, or has of other weights, one by one."""
    done = {(cell_of(result), result["weights"]) for result in known}
    loaded: tuple[str, str] | None = None
    for cell in cells:
        if (cell.model, cell.backend) != loaded:
            generator, placement = load_generator(cell.model, backend=cell.backend)
            check_fits(generator.card, measuring.train)
            generator.card = with_every_sampler(generator.card)
            loaded, warm = (cell.model, cell.backend), False
        if (cell, generator.card.fingerprint) in done:
            continue
        options = options_of(cell)
        if not warm:  # compile for every batch size
            whole = evaluation.SAMPLING_BATCH
            for size in {min(whole, measuring.num_samples), measuring.num_samples % whole} - {0}:
                measuring.sample(generator, options, size)
            warm = True
        print(*cell, "...", file=sys.stderr, flush=True)
        with measure_energy(placement.device, watts_per_core=measuring.watts_per_core) as reading:
            samples = measuring.sample(generator, options, measuring.num_samples)
        joules, count = reading.energy.joules, len(samples)
        yield {
            **cell._asdict(),
            "weights": generator.card.fingerprint,
            "precision": placement.precision,
            **work_of(generator.card, options),
            **quality_of(samples, measuring),
            "seconds": reading.energy.seconds / count,
            "joules": None if joules is None else joules / count,
            "energy": reading.energy.method,
        }


def check_fits(card: ModelCard, train: ImageSet) -> None:
    """Raises InvalidInput: the model draws pictures of another size than the ones measured by."""
    if card.image_size != train.images.shape[-1]:
        raise InvalidInput(
            f"{card.name} draws pictures of {card.image_size} px, and the others "
            f"{train.images.shape[-1]} px: only models of one size can be compared here."
        )


def quality_of(samples: Tensor, measuring: Measuring) -> Result:
    """The Frechet distance of pictures, its interval, and its jackknife replicates."""
    features = extract_features(samples, measuring.extractor)
    (score,) = score_features(features, measuring.reference, metrics=["frechet"])
    replicates = METRICS["frechet"].replicates
    assert replicates is not None
    groups = random_groups(features, NUM_GROUPS, rng.generator(measuring.seed, "jackknife"))
    return {
        "value": score.value,
        "ci95": list(score.ci95),
        "relative": score.relative,
        "replicates": replicates(measuring.reference.real, groups),
    }


def options_of(cell: Cell) -> dict[str, OptionValue]:
    if not cell.sampler:
        return {}
    steps = SAMPLERS[cell.sampler].steps_within(cell.budget)
    return {"sampler": cell.sampler, "num_inference_steps": steps}


def work_of(card: ModelCard, options: Mapping[str, OptionValue]) -> dict[str, int]:
    """Steps and evaluations of the network; a model that takes no steps works once."""
    chosen = {option.name: option.default for option in card.options} | dict(options)
    steps, sampler = chosen.get("num_inference_steps"), chosen.get("sampler")
    if not isinstance(steps, int) or not isinstance(sampler, str):
        return {"steps": 1, "evaluations": 1}
    return {"steps": steps, "evaluations": SAMPLERS[sampler].evaluations(steps)}


def any_samplers() -> tuple[str, ...]:
    """Names of the samplers that need no student trained for them."""
    return tuple(name for name, known in SAMPLERS.items() if known.any_model)


def with_every_sampler(card: ModelCard) -> ModelCard:
    """The card with the samplers that came after it, where it has a choice at all."""
    options = tuple(
        replace(option, choices=any_samplers())
        if option.name == "sampler" and len(option.choices) > 1
        else option
        for option in card.options
    )
    return replace(card, options=options)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    samplers = [name for name in any_samplers() if name != TWIN]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="a folder or archive of pictures by class")
    add("--extractor-weights", type=Path, help="SqueezeNet 1.1; without it, random features")
    add("--model", default="scenes")
    add("--students", nargs="*", default=[], help="models asked as their cards say")
    add("--samplers", nargs="+", choices=samplers, default=samplers)
    add("--costed", nargs="*", choices=samplers, default=list(COSTED), help="on every backend")
    add("--backends", nargs="*", choices=list(BACKENDS), help="default: all that work here")
    add("--evaluations", nargs="+", type=int, default=[5, 10, 20, 50])
    add("--num-samples", type=int, default=2_500)
    add("--seed", type=int, default=0)
    add("--watts-per-core", type=float, default=WATTS_PER_CORE, help="assumed, without counters")
    add("--results", type=Path, default=RESULTS)
    add("--figures", type=Path, default=FIGURES, help="the folder of the two figures")
    add("--quick", action="store_true", help="only show that it runs")
    add("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def usable_backends(device: str) -> list[str]:
    kind = device.partition(":")[0]
    return [n for n, b in BACKENDS.items() if kind in b.devices and not b.missing()]


def photographs(options: argparse.Namespace, card: ModelCard) -> tuple[ImageSet, ImageSet]:
    """Training and held-out pictures; noise where it is only to be shown that it runs."""
    if options.data is not None:
        cache = cache_folder() / "data"
        read = partial(load_images, [options.data], card.image_size, cache_dir=cache)
        return read(split="train"), read(split="test")
    images = torch.randint(
        256, (64, 3, card.image_size, card.image_size),
        generator=rng.generator(0, "quick"), dtype=torch.uint8,
    )  # fmt: skip
    ids, names = torch.arange(64) % max(1, len(card.classes)), tuple(map(str, range(64)))
    noise = ImageSet(images, ids, card.classes, names, "noise", "train", "", ScanReport(64))
    return noise, noise


def measure(options: argparse.Namespace, results: Results) -> None:
    """Adds to `results` whatever is asked and missing, and keeps each as soon as it is there."""
    generator, placement = load_generator(options.model)
    train, held_out = photographs(options, generator.card)
    evaluation.check_counts(options.num_samples, train, held_out)
    weights = options.extractor_weights
    extractor = evaluation.extractor_for(
        "squeezenet1.1" if weights else "random-conv", weights, None
    )
    extract = partial(evaluation.remembered_features, cache_folder() / "features")
    reference = Reference.measure(
        train.images, held_out.images, extractor, seed=options.seed, extract=extract,
        split=f"{train.name}-{generator.card.image_size}/{train.split}", resize=train.resize,
    )  # fmt: skip
    measuring = Measuring(
        reference, extractor, train, options.num_samples, options.seed, options.watts_per_core
    )
    results.begin(measuring.settings(options.model, placement.backend, placement.device))
    usable = usable_backends(placement.device)
    cells = plan(
        options.model, placement.backend, samplers=options.samplers, costed=options.costed,
        budgets=options.evaluations, students=options.students,
        backends=usable if options.backends is None else options.backends,
    )  # fmt: skip
    for result in measure_all(cells, results.cells, measuring):
        results.add(result)


def main(options: argparse.Namespace) -> int:
    configure_threads()
    if options.quick:
        scratch = Path(tempfile.mkdtemp(prefix="izograf-quality-"))
        options.data, options.extractor_weights, options.num_samples = None, None, 4
        options.samplers, options.backends, options.evaluations = COSTED, [], [10, 50]
        options.results, options.figures = scratch / "quality.json", scratch
    results = Results.read(options.results)
    if options.data is not None or options.quick:
        measure(options, results)
    if not results.cells:
        raise InvalidInput(f"{options.results} holds nothing yet: say what to measure by --data.")
    told = report(results)
    if find_spec("matplotlib") is None:
        told.notes.append("No figures: they need pip install 'izograf[plots]'.")
    else:
        told.notes += [f"Drawn: {path}" for path in draw(results, options.figures)]
    return told.show(options)


if __name__ == "__main__":
    try:
        sys.exit(main(parse()))
    except IzografError as error:
        sys.exit(f"quality.py: {error}")
