"""Which backbone learns best in a small budget: U-Net, DiT, U-ViT and latent diffusion at 32 px.

Every arm sees the same pictures in the same order, predicts the same thing under the same noise
law, with a constant learning rate after the warm-up, so that a snapshot of the weights' average is
as good as a run that was to end there. Two tables: at equal images, and at equal time, where time
is images / (images per second), the rates measured side by side in one run (`--rates`): a training
that shared its machine is not held against an arm.

    python benchmarks/backbones.py --data scenes --out runs/backbones --extractor-weights FILE

trains what is missing, resumes what was interrupted, measures what is not yet in `--results`, and
prints the tables; without `--data` it prints what is known.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from common import Report, Subject, Table, alternate

# isort: split
from izograf.checkpoints.load import load_generator
from izograf.core.devices import cache_folder, configure_threads
from izograf.core.storage import write_atomically
from izograf.data.dataset import ImageSet, load_images
from izograf.experiments import evaluation
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.training.ema import MovingAverage
from izograf.training.run import Averaged, Job, execute
from izograf.training.trainer import StopTraining, TrainingState
from izograf.training.trainer import train as train_steps

SIZE, IMAGES, SNAPSHOT, SAMPLES = 32, 200_000, 12_500, 2_500
RESULTS = Path(__file__).with_name("backbones.json")


@dataclass(frozen=True)
class Arm:
    """A recipe and its settings; networks of about equal cost per picture.

    Attributes:
        coder_images: images that an autoencoder of the default recipe sees first; its time counts.
    """

    recipe: str
    settings: tuple[str, ...]
    coder_images: int = 0


ARMS: Mapping[str, Arm] = {
    "U-Net": Arm("diffusion-unet", ("width=64", "depth=1")),
    "DiT": Arm("dit", ("width=192", "depth=6")),
    "U-ViT": Arm("uvit", ("width=192", "depth=7")),
    "latent U-Net": Arm("latent-diffusion", ("width=96", "depth=1"), coder_images=100_000),
}


CODER = "autoencoder"


def hyperparameters(out: Path, arm: Arm) -> Hyperparameters:
    return Hyperparameters(
        images=IMAGES, flip=True, decay="none", ema_share=0.1, settings=arm.settings,
        checkpoint_every=SNAPSHOT, evaluate_every=IMAGES, sample_every=IMAGES,
        autoencoder=str(folder_of(out, CODER)) if arm.coder_images else None,
    )  # fmt: skip


def folder_of(out: Path, name: str) -> Path:
    return out / name.lower().replace(" ", "-")


def snapshot(out: Path, name: str, images: int) -> Path:
    return folder_of(out, name) / "snapshots" / f"{images:06d}"


def build(out: Path, name: str, train: ImageSet, held_out: ImageSet) -> Job:
    arm = ARMS[name]
    request = RunRequest("arm", train, held_out, "", hyperparameters(out, arm))
    return RECIPES[arm.recipe].build(request)


def build_coder(images: int, train: ImageSet, held_out: ImageSet) -> Job:
    chosen = Hyperparameters(images=images, flip=True, sample_every=images, evaluate_every=images)
    return RECIPES["kl-autoencoder"].build(RunRequest(CODER, train, held_out, "", chosen))


def train_coder(out: Path, images: int, train: ImageSet, held_out: ImageSet) -> None:
    """The autoencoder of a latent arm, unless it is there."""
    folder = folder_of(out, CODER)
    asked = {"arm": CODER, "images": images}
    if not (folder / "done").exists():
        print(f"training the autoencoder on {images:,} images ...", file=sys.stderr, flush=True)
        resume = (folder / "run.json").exists()
        execute(build_coder(images, train, held_out), folder, asked=asked, resume=resume)
        (folder / "done").touch()


def train_arm(out: Path, name: str, train: ImageSet, held_out: ImageSet) -> None:
    """Trains the arm to its end, keeping a model at every `SNAPSHOT` images."""
    if (snapshot(out, name, IMAGES) / "card.json").exists():
        return
    if ARMS[name].coder_images:
        train_coder(out, ARMS[name].coder_images, train, held_out)
    job, folder = build(out, name, train, held_out), folder_of(out, name)
    assert job.export is not None
    export = job.export

    def keep(averaged: Averaged, folder: Path, facts: Mapping[str, Any]) -> None:
        export(averaged, folder, facts)
        kept = snapshot(out, name, round(facts["images_seen"] / SNAPSHOT) * SNAPSHOT)
        kept.mkdir(parents=True, exist_ok=True)
        for file in ("weights.safetensors", "card.json"):
            shutil.copyfile(folder / file, kept / file)

    asked = {"arm": name, "hyperparameters": hyperparameters(out, ARMS[name]).to_json()}
    print(f"training {name} ...", file=sys.stderr, flush=True)
    resume = (folder / "run.json").exists()
    execute(replace(job, export=keep), folder, asked=asked, resume=resume)


def measure_rates(
    out: Path, train: ImageSet, held_out: ImageSet, names: list[str]
) -> dict[str, float]:
    """Training images per second of each arm, alternating; an autoencoder's time is included."""
    for name in names:
        if ARMS[name].coder_images:
            train_coder(out, ARMS[name].coder_images, train, held_out)
    jobs = {name: build(out, name, train, held_out) for name in names}
    jobs[CODER] = build_coder(1_000_000, train, held_out)
    seconds = alternate({name: one_step(job) for name, job in jobs.items()}, rounds=9, warm_ups=2)
    each = {
        name: statistics.median(taken) / jobs[name].training.batch_size
        for name, taken in seconds.items()
    }
    return {
        name: IMAGES / (IMAGES * each[name] + ARMS[name].coder_images * each[CODER])
        for name in names
    }


def one_step(job: Job) -> Subject:
    average = MovingAverage(job.objective.modules, job.objective.averaged, share=0.1)
    state = TrainingState(average)

    def stop(*_: Any) -> None:
        raise StopTraining

    def step() -> None:
        try:
            train_steps(job.objective, job.batches, job.training, state, job.placement, stop)
        except StopTraining:
            return

    return step


def measure(
    out: Path, name: str, images: int, train: ImageSet, held_out: ImageSet, weights: Path
) -> dict[str, Any]:
    """The scores of a snapshot, and the judge's verdict."""
    generator, _ = load_generator(str(snapshot(out, name, images)))
    extractor = evaluation.extractor_for("squeezenet1.1", weights, None)
    asked = evaluation.asked_classes(generator.card, train, SAMPLES)
    print(f"measuring {name} at {images:,} ...", file=sys.stderr, flush=True)
    samples = evaluation.sample_many(
        generator, asked, SAMPLES, seed=0, options={}, on_progress=lambda *_: None
    )
    found = evaluation.evaluate(
        generator.card, samples, asked, train, held_out, extractor, None,
        seed=0, metrics=("frechet",), cache=cache_folder() / "features",
    )  # fmt: skip
    score = found.scores[0]
    return {"name": score.name, "value": score.value, "ci95": list(score.ci95),
            "relative": score.relative, "samples": SAMPLES}  # fmt: skip


def tables(results: dict[str, Any]) -> list[Table]:
    rates: dict[str, float] = results["rates"]
    at_images = Table(f"{SIZE} px, after {IMAGES:,} images")
    at_time = Table(f"{SIZE} px, after the time the fastest arm takes for {IMAGES:,} images")
    for name, scores in results["arms"].items():
        if str(IMAGES) in scores:
            at_images.rows.append(row(name, IMAGES, rates, scores[str(IMAGES)]))
        images = equal_time_images(rates, name)
        if name in rates and str(images) in scores:
            at_time.rows.append(row(name, images, rates, scores[str(images)]))
    return [table for table in (at_images, at_time) if table.rows]


def row(name: str, images: int, rates: dict[str, float], score: dict[str, Any]) -> dict[str, Any]:
    low, high = score["ci95"]
    return {
        "arm": name, "images": images, "images/s": rates.get(name, "not measured"),
        score["name"]: score["value"], "95 %": f"{low:.0f}-{high:.0f}",
        "relative": score["relative"],
    }  # fmt: skip


def equal_time_images(rates: dict[str, float], name: str) -> int:
    """The snapshot of the arm that lies nearest to the fastest arm's whole time."""
    share = rates.get(name, 0.0) / max(rates.values(), default=1.0)
    return max(1, round(share * IMAGES / SNAPSHOT)) * SNAPSHOT


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a folder or archive of pictures by class")
    parser.add_argument("--out", type=Path, default=Path("runs/backbones"))
    parser.add_argument("--extractor-weights", type=Path, help="SqueezeNet 1.1 as safetensors")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--rates", action="store_true", help="measure the speeds again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.quick = False
    return options


def main() -> int:
    options = parse()
    configure_threads()
    results: dict[str, Any] = {"rates": {}, "arms": {}}
    if options.results.exists():
        results = json.loads(options.results.read_text())
    if options.data is not None:
        read = partial(load_images, [options.data], SIZE, cache_dir=cache_folder() / "data")
        train, held_out = read(split="train"), read(split="test")
        if options.rates:
            results["rates"] |= measure_rates(options.out, train, held_out, options.arms)
        for name in options.arms:
            train_arm(options.out, name, train, held_out)
            scores = results["arms"].setdefault(name, {})
            wanted = {IMAGES}
            if name in results["rates"]:
                wanted.add(equal_time_images(results["rates"], name))
            for images in wanted:
                if str(images) not in scores and options.extractor_weights is not None:
                    scores[str(images)] = measure(
                        options.out, name, images, train, held_out, options.extractor_weights
                    )
                    write_atomically(options.results, json.dumps(results, indent=1) + "\n")
        write_atomically(options.results, json.dumps(results, indent=1) + "\n")
    found = tables(results)
    return Report("backbones", "auto", found).show(options) if found else 0


if __name__ == "__main__":
    sys.exit(main())
