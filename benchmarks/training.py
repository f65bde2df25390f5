"""Training throughput: one step of the bundled U-Net against diffusers' of equal MACs.

A step is forward, backward, gradient clip, AdamW and the weight average. Ours runs through
`izograf.training.trainer.train`; theirs is the body of diffusers' train_unconditional example.
Both get batches that are already in memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping

from common import (
    Check,
    Report,
    Subject,
    Table,
    alternate,
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
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import functional as F

from izograf.core.devices import Placement, Precision, choose_placement
from izograf.core.types import Batch, Condition
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.precondition import Flow
from izograf.objectives.denoising import DenoisingObjective
from izograf.objectives.noise import LogNormal
from izograf.recipes.denoising import DEFAULTS
from izograf.recipes.parts import make_optimizer
from izograf.training.ema import MovingAverage
from izograf.training.trainer import StopTraining, TrainingConfig, TrainingState, train

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
SIDES: tuple[Opponent | None, ...] = (None, *OPPONENTS)


def label(side: Opponent | None, precision: Precision) -> str:
    return f"{'izograf' if side is None else f'diffusers {side}'} {precision}"


def our_step(batch_size: int, precision: Precision) -> Subject:
    """One step of our training loop, with the recipe's optimiser, clip, average and dropout."""
    network = build_ours().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    denoiser = Denoiser(network, Flow())
    objective = DenoisingObjective(
        denoiser,
        make_optimizer(denoiser.parameters(), DEFAULTS),
        noise_law=LogNormal(),
        class_dropout=0.1,
    )
    rng = torch.Generator().manual_seed(0)
    images = 2 * torch.rand(batch_size, 3, 64, 64, generator=rng) - 1
    batch = Batch(images, Condition(class_ids=torch.arange(batch_size) % NUM_CLASSES))
    config = TrainingConfig(images=10**9, batch_size=batch_size)
    average = MovingAverage(objective.modules, objective.averaged, share=config.ema_share)
    state, placement = TrainingState(average), Placement("cpu", precision)

    def stop(state: TrainingState, stats: Mapping[str, Tensor]) -> None:
        del state
        if not bool(stats["denoise/loss"].isfinite()):
            raise RuntimeError("the loss is not finite: its time means nothing")
        raise StopTraining("one step")

    def step() -> None:
        try:
            train(objective, lambda _: batch, config, state, placement, stop)
        except StopTraining:
            return

    return step


def their_step(opponent: Opponent, batch_size: int, precision: Precision) -> Subject:
    """The body of the loop of diffusers' examples/unconditional_image_generation, with its EMA."""
    network = build_theirs(opponent).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    rates = get_scheduler(
        "cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=10**6
    )
    average = EMAModel(
        network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
    )
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    rng = torch.Generator().manual_seed(0)
    images = 2 * torch.rand(batch_size, *noise_shape(opponent), generator=rng) - 1
    class_ids = torch.arange(batch_size) % NUM_CLASSES

    def step() -> None:
        noise = torch.randn(images.shape)
        timesteps = torch.randint(0, 1000, (batch_size,))
        noisy = scheduler.add_noise(images, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            predicted = evaluate_theirs(network, noisy, timesteps, class_ids)
            loss = F.mse_loss(predicted.float(), noise)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        loss.item()

    return step


def build_step(side: Opponent | None, batch_size: int, precision: Precision) -> Subject:
    if side is None:
        return our_step(batch_size, precision)
    return their_step(side, batch_size, precision)


def measure(
    batch_size: int, rounds: int, peaks: Mapping[str, float], chosen: Precision
) -> tuple[Table, dict[str, list[float]]]:
    """The table of one batch size, and the seconds behind it."""
    cases = [(side, precision) for side in SIDES for precision in PRECISIONS]
    seconds = alternate(
        {label(*case): build_step(case[0], batch_size, case[1]) for case in cases}, rounds=rounds
    )
    table = Table(f"one training step, batch {batch_size}")
    for side, precision in cases:
        taken = seconds[label(side, precision)]
        size = size_of_ours() if side is None else size_of_theirs(side)
        flops = 3 * 2 * size.macs * batch_size / statistics.median(taken)  # backward: twice forward
        table.rows.append(
            {
                "variant": label(side, precision),
                "s": statistics.median(taken),
                "images/s": batch_size / statistics.median(taken),
                "GFLOP/s": flops / 1e9,
                "% matmul": 100 * flops / peaks[f"matmul {precision}"],
                "% convolution": 100 * flops / peaks[f"convolution {precision}"],
                f"time / ours {chosen}": ratio(taken, seconds[label(None, chosen)]),
            }
        )
    return table, seconds


def memory_table(batch_size: int, *, quick: bool) -> Table:
    """Peak resident memory of a process that takes two training steps."""
    table = Table(f"peak memory of a process that trains with batch {batch_size} (MB)")
    for side in SIDES[:1] if quick else SIDES:
        for precision in PRECISIONS:
            name = f"{side or 'izograf'}/{precision}/{batch_size}"
            peak = peak_memory([sys.executable, __file__, "--memory-of", name])
            table.rows.append({"variant": label(side, precision), "MB": peak / 1e6})
    return table


def train_twice(name: str) -> None:
    """What the process whose memory is measured does."""
    side_name, precision_name, batch_size = name.split("/")
    side = next(side for side in SIDES if (side or "izograf") == side_name)
    precision = next(precision for precision in PRECISIONS if precision == precision_name)
    step = build_step(side, int(batch_size), precision)
    step()
    step()


def main(options: argparse.Namespace) -> int:
    chosen = choose_placement("cpu", width=OURS.width).precision
    report = Report("training", chosen, [size_table()])
    peaks = machine_peaks(quick=options.quick)
    report.tables.append(
        Table("measured peaks", [{k: f"{v / 1e9:.0f} GFLOP/s" for k, v in peaks.items()}])
    )
    sizes, rounds = ((2,), 1) if options.quick else ((16, 32), options.rounds)
    for batch_size in sizes:
        table, seconds = measure(batch_size, rounds, peaks, chosen)
        report.tables.append(table)
        for opponent in OPPONENTS:
            pairs = [(label(None, chosen), label(opponent, "fp32"), 1.3)]
            pairs += [(label(None, p), label(opponent, p), 1.0) for p in PRECISIONS]
            for a, b, required in pairs:
                times = ratio(seconds[b], seconds[a])
                if opponent == "pixels":
                    check = Check(f"{a} over {b}, batch {batch_size}", times, required)
                    report.checks.append(check)
                else:
                    report.notes.append(f"{a} over {b}, batch {batch_size}: {times:.2f}x")
    report.tables.append(memory_table(sizes[0], quick=options.quick))
    return report.show(options)


if __name__ == "__main__":
    arguments = start(__doc__, child=True)
    if arguments.memory_of:
        train_twice(arguments.memory_of)
    else:
        sys.exit(main(arguments))
