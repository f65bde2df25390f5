"""Sampling throughput: the bundled U-Net against diffusers' UNet2DModel of equal MACs.

18 steps without guidance, DPM-Solver++(2M) or DDIM on both sides, each through the code its users
call: `DiffusionGenerator.sample` here, by torch alone and by OpenVINO where it is installed, model
and scheduler in a loop there. Random weights: the pictures are noise, the time is not. Preparing a
backend's programs is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from common import (
    Check,
    Report,
    Subject,
    Table,
    alternate,
    assert_finite,
    machine_peaks,
    peak_memory,
    ratio,
    start,
)
from subjects import (
    NUM_CLASSES,
    OPPONENTS,
    OURS,
    Opponent,
    build_ours,
    build_theirs,
    diffusers,
    evaluate_theirs,
    noise_shape,
    size_of_ours,
    size_of_theirs,
    size_table,
)

# isort: split
import torch

from izograf.core.backends import BACKENDS, EAGER, OPENVINO
from izograf.core.config import config_to_json
from izograf.core.devices import DTYPES, Placement, Precision, choose_placement
from izograf.core.types import Condition
from izograf.generators.diffusion import build
from izograf.generators.diffusion_options import diffusion_options
from izograf.schema.card import ModelCard
from izograf.schema.labels import ClassLabel
from izograf.schema.options import OptionValue

Solver = Literal["DPM-Solver++(2M)", "DDIM"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
STEPS = 18
OUR_SAMPLERS: dict[Solver, str] = {"DPM-Solver++(2M)": "dpm-solver++", "DDIM": "euler"}


@dataclass(frozen=True)
class Variant:
    """One side in one precision; `opponent` None is ours, computed by `backend`."""

    opponent: Opponent | None
    precision: Precision
    backend: str = EAGER

    def __str__(self) -> str:
        side = f"izograf {self.backend}" if self.opponent is None else f"diffusers {self.opponent}"
        return f"{side} {self.precision}"


VARIANTS = [Variant(opponent, p) for opponent in (None, *OPPONENTS) for p in PRECISIONS]
if not BACKENDS[OPENVINO].missing():
    VARIANTS += [Variant(None, p, OPENVINO) for p in PRECISIONS]
SampleBatch = Callable[[Solver, int, int], torch.Tensor]  # (solver, batch size, steps) -> pictures


def build_variant(variant: Variant) -> SampleBatch:
    if variant.opponent is None:
        return _ours(variant.precision, variant.backend)
    return _theirs(variant.opponent, variant.precision)


def _ours(precision: Precision, backend: str) -> SampleBatch:
    card = ModelCard(
        name="benchmark",
        family="diffusion",
        network={"name": "unet", "config": config_to_json(OURS)},
        image_size=OURS.image_size,
        conditions=("class",),
        classes=tuple(ClassLabel(f"class-{index}") for index in range(NUM_CLASSES)),
        options=diffusion_options(),
        sampling={"preconditioner": {"name": "flow"}, "sigma_min": 0.02, "sigma_max": 80.0},
    )
    generator = build(card, build_ours().state_dict(), Placement("cpu", precision, backend))

    def sample(solver: Solver, batch: int, steps: int) -> torch.Tensor:
        options: dict[str, OptionValue] = {
            "num_inference_steps": steps,
            "guidance_scale": 1,
            "sampler": OUR_SAMPLERS[solver],
        }
        condition = Condition(class_ids=torch.arange(batch) % NUM_CLASSES)
        return generator.sample(condition, range(batch), options=options)

    return sample


def _theirs(opponent: Opponent, precision: Precision) -> SampleBatch:
    network = build_theirs(opponent).to(DTYPES[precision]).eval()
    schedulers = {
        "DPM-Solver++(2M)": diffusers.DPMSolverMultistepScheduler(),
        "DDIM": diffusers.DDIMScheduler(),
    }

    @torch.no_grad()
    def sample(solver: Solver, batch: int, steps: int) -> torch.Tensor:
        scheduler = schedulers[solver]
        scheduler.set_timesteps(steps)
        class_ids = torch.arange(batch) % NUM_CLASSES
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(batch, *noise_shape(opponent), generator=rng).to(DTYPES[precision])
        x = x * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, timestep)
            predicted = evaluate_theirs(network, scaled, timestep, class_ids)
            x = scheduler.step(predicted, timestep, x).prev_sample
        if opponent == "patches":
            x = torch.nn.functional.pixel_shuffle(x, OURS.patch_size)
        pictures: torch.Tensor = x.float().clamp(-1, 1)
        return pictures

    return sample


def measure(
    solver: Solver, batch: int, rounds: int, steps: int, peaks: dict[str, float], chosen: Precision
) -> tuple[Table, dict[Variant, dict[Variant, float]]]:
    """The table of one solver and batch size, and how many times faster each variant is."""
    subjects: dict[str, Subject] = {}
    for variant in VARIANTS:
        sample = build_variant(variant)
        assert_finite(sample(solver, batch, min(steps, 2)))
        subjects[str(variant)] = partial(sample, solver, batch, steps)
    seconds = alternate(subjects, rounds=rounds, warm_ups=0)
    ours = seconds[str(Variant(None, chosen))]
    table = Table(f"{solver}, {steps} steps, batch {batch}")
    for variant in VARIANTS:
        taken = seconds[str(variant)]
        size = size_of_ours() if variant.opponent is None else size_of_theirs(variant.opponent)
        flops = 2 * size.macs * batch * steps / statistics.median(taken)
        table.rows.append(
            {
                "variant": str(variant),
                "s": statistics.median(taken),
                "images/s": batch / statistics.median(taken),
                "GFLOP/s": flops / 1e9,
                "% matmul": 100 * flops / peaks[f"matmul {variant.precision}"],
                "% convolution": 100 * flops / peaks[f"convolution {variant.precision}"],
                f"time / ours {chosen}": ratio(taken, ours),
            }
        )
    speedups = {a: {b: ratio(seconds[str(b)], seconds[str(a)]) for b in VARIANTS} for a in VARIANTS}
    return table, speedups


def memory_table(*, quick: bool) -> Table:
    """Peak resident memory of a process that builds one variant and samples a batch of 4."""
    table = Table("peak memory of a process that samples a batch of 4 (MB)")
    for variant in VARIANTS[:2] if quick else VARIANTS:
        peak = peak_memory([sys.executable, __file__, "--memory-of", str(variant)])
        table.rows.append({"variant": str(variant), "MB": peak / 1e6})
    return table


def sample_once(name: str) -> None:
    """What the process whose memory is measured does."""
    variant = next(variant for variant in VARIANTS if str(variant) == name)
    build_variant(variant)("DPM-Solver++(2M)", 4, 2)


def main(options: argparse.Namespace) -> int:
    chosen = choose_placement("cpu", width=OURS.width).precision
    report = Report("sampling", chosen, [size_table()])
    peaks = machine_peaks(quick=options.quick)
    report.tables.append(
        Table("measured peaks", [{k: f"{v / 1e9:.0f} GFLOP/s" for k, v in peaks.items()}])
    )
    steps, rounds = (2, 1) if options.quick else (STEPS, options.rounds)
    cases: list[tuple[Solver, int]] = [("DPM-Solver++(2M)", 4), ("DDIM", 4)]
    if not options.quick:
        cases += [("DPM-Solver++(2M)", 1), ("DPM-Solver++(2M)", 16)]
    for solver, batch in cases:
        table, speedups = measure(solver, batch, rounds, steps, peaks, chosen)
        report.tables.append(table)
        bound = (solver, batch) == cases[0]
        for opponent in OPPONENTS:
            pairs = [(Variant(None, chosen), Variant(opponent, "fp32"), 1.5)]
            pairs += [(Variant(None, p), Variant(opponent, p), 1.0) for p in PRECISIONS]
            if (best := Variant(None, "bf16", OPENVINO)) in VARIANTS:
                pairs.append((best, Variant(opponent, "fp32"), 3.0))
            for a, b, required in pairs:
                times = speedups[a][b]
                if bound and opponent == "pixels":
                    report.checks.append(Check(f"{a} over {b}, batch {batch}", times, required))
                else:
                    report.notes.append(f"{a} over {b}, {solver}, batch {batch}: {times:.2f}x")
    report.tables.append(memory_table(quick=options.quick))
    return report.show(options)


if __name__ == "__main__":
    arguments = start(__doc__, child=True)
    if arguments.memory_of:
        sample_once(arguments.memory_of)
    else:
        sys.exit(main(arguments))
