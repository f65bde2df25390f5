"""The ladder of text to image on a CPU: Stable Diffusion v1.4 at 512 x 512, against diffusers.

The architecture is the published one and the weights are random: the picture is noise, the time is
not. One picture from the prompt to its pixels, guidance on; diffusers draws it as its users do who
change nothing (PNDM, 50 steps, float32). Each of our rungs changes one thing. "% of floor" is how
near the denoising comes to its multiply-accumulates at the speed of the fastest convolution of its
precision that was measured in the same run.

    python benchmarks/text_to_image.py --rounds 1           # a quarter of an hour on two cores
    python benchmarks/text_to_image.py --checkpoint FOLDER  # one in diffusers' layout

Preparing OpenVINO's programs is not timed; it happens once for a model, and is reported apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import (
    Check,
    Report,
    Subject,
    Table,
    alternate,
    count_macs,
    machine_peaks,
    peak_memory,
    ratio,
)

# isort: split
import torch
from torch import Tensor, nn

from izograf.checkpoints.load import load_generator, network_width
from izograf.core.devices import choose_placement, configure_threads
from izograf.core.types import Condition
from izograf.experiments.ladder import Rung, few_steps, rungs_of
from izograf.generators.stable_diffusion import StableDiffusionGenerator
from izograf.schema.errors import IzografError
from izograf.schema.library import find_model, read_card

PROMPT = "a dog eats a carrot"
THEIRS, STEPS = "diffusers", 50
REQUIRED = {
    "default": 10.0,
    "default, torch": 5.5,
    "openvino": 3.2,
    "--fast": 15.0,
    "--fast, int8": 18.0,
}
REMEMBERED = ("default", "--fast")  # whose memory must not exceed that of diffusers
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "steps_offset": 1, "set_alpha_to_one": False,
    "clip_sample": False, "skip_prk_steps": True,
}  # fmt: skip


def random_checkpoint(folder: Path, *, quick: bool) -> None:
    """Stable Diffusion v1.4 with random weights, as diffusers saves it; tiny where `quick`."""
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer_files(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))
    width, dim, layers, blocks = (32, 32, 1, (32, 64)) if quick else (128, 768, 12, ())
    text = CLIPTextConfig(
        vocab_size=49_408, hidden_size=dim, intermediate_size=4 * dim, num_hidden_layers=layers,
        num_attention_heads=dim // 32 if quick else 12, pad_token_id=1,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    unet_shape: dict[str, Any] = {"block_out_channels": blocks or (320, 640, 1280, 1280)}
    if quick:
        unet_shape |= {
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        }
    widths = (width, 2 * width) if quick else (width, 2 * width, 4 * width, 4 * width)
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            latent_channels=4, block_out_channels=widths, layers_per_block=2, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths), scaling_factor=0.18215,
        ),
        unet=UNet2DConditionModel(
            sample_size=8 if quick else 64, layers_per_block=2, cross_attention_dim=dim,
            attention_head_dim=8, **unet_shape,
        ),
        text_encoder=CLIPTextModel(text), tokenizer=tokenizer,
        scheduler=PNDMScheduler.from_config(SCHEDULER), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(str(folder))  # fmt: skip


def tokenizer_files(folder: Path) -> None:
    """A tokenizer of letters: how a prompt is cut costs nothing that could be measured."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    units = [*letters, *(f"{letter}</w>" for letter in letters)]
    names = [*units, "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": names[-2],
        "eos_token": names[-1], "unk_token": names[-1], "pad_token": names[-1],
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


class Counting(nn.Module):
    """A denoiser's network that counts for how many latents it is called, in which way."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.rows = {"full": 0, "outer": 0}

    @property
    def reuses(self) -> bool:
        return bool(self.network.reuses)

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        self.rows["full"] += len(x)
        return self.network(x, *others)  # type: ignore[no-any-return]

    def keeping(self, x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        self.rows["full"] += len(x)
        return self.network.keeping(x, *others)  # type: ignore[operator,no-any-return]

    def reusing(self, x: Tensor, *others: Any) -> Tensor:
        self.rows["outer"] += len(x)
        return self.network.reusing(x, *others)  # type: ignore[operator,no-any-return]


def load(folder: Path, rung: Rung) -> StableDiffusionGenerator:
    generator, _ = load_generator(
        str(folder), device="cpu", precision=rung.precision, backend=rung.backend
    )
    assert isinstance(generator, StableDiffusionGenerator)
    return generator


def ours(generator: StableDiffusionGenerator, options: Mapping[str, Any]) -> Tensor:
    return generator.sample(generator.text_condition([PROMPT]), [0], options=options)


def theirs(folder: Path, *, steps: int) -> Subject:
    """diffusers' pipeline, from the prompt to the picture's numbers."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(
        PROMPT, num_inference_steps=steps, output_type="pt",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


def macs_of(generator: StableDiffusionGenerator) -> dict[str, int]:
    """Multiply-accumulates for one latent: of the whole network, and of its outer layers."""
    from diffusers import UNet2DConditionModel

    from izograf.generators.stable_diffusion.network import conditioned

    config = generator.checkpoint.unet
    with torch.device("meta"):
        network = conditioned(UNet2DConditionModel.from_config(dict(config))).eval()
        side = int(config["sample_size"])
        x, level = torch.zeros(1, int(config["in_channels"]), side, side), torch.zeros(1)
        text = torch.zeros(1, 77, int(config["cross_attention_dim"]))
        condition = Condition(text=text)
        kept = network.keeping(x, level, condition)[1]
        return {
            "full": count_macs(lambda: network(x, level, condition)),
            "outer": count_macs(lambda: network.reusing(x, level, condition, kept)),
        }


def memory_table(folder: Path, rungs: Sequence[Rung], *, quick: bool) -> Table:
    """Peak resident memory of a process that loads the model and draws, programs prepared.

    The first process of each prepares them; where the cache had them it takes no more than others.
    """
    table = Table("peak memory of a process that draws one picture (MB)")
    names = [THEIRS] if quick else [THEIRS, *(r.name for r in rungs if r.name in REMEMBERED)]
    for name in names:
        command = [sys.executable, __file__, "--checkpoint", str(folder), f"--memory-of={name}"]
        start = time.perf_counter()
        first, preparing = peak_memory(command), time.perf_counter() - start
        then = first if name == THEIRS else peak_memory(command)
        table.rows.append(
            {"setting": name, "MB": then / 1e6, "first time": first / 1e6, "in s": preparing}
        )
    return table


def draw_once(folder: Path, rungs: Sequence[Rung], name: str) -> None:
    """What the process whose memory is measured does."""
    if name == THEIRS:
        theirs(folder, steps=2)()
        return
    (rung,) = (rung for rung in rungs if rung.name == name)
    generator = load(folder, rung)
    ours(generator, {**rung.options, **few_steps(generator.card, rung)})


def prepared(
    folder: Path, rungs: Sequence[Rung]
) -> tuple[dict[str, Callable[[], Tensor]], dict[tuple[str, str], Counting], float]:
    """A subject for every rung, with all programs made; the counters, and the seconds it took."""
    generators: dict[tuple[str, str], StableDiffusionGenerator] = {}
    counters: dict[tuple[str, str], Counting] = {}
    start = time.perf_counter()
    for rung in rungs:
        if rung.place not in generators:
            generator = generators[rung.place] = load(folder, rung)
            counters[rung.place] = Counting(generator.denoiser.network)
            generator.denoiser.network = counters[rung.place]
        few = few_steps(generators[rung.place].card, rung)
        ours(generators[rung.place], {**rung.options, **few})
    taken = time.perf_counter() - start
    subjects = {rung.name: partial(ours, generators[rung.place], rung.options) for rung in rungs}
    return subjects, counters, taken


def ladder(folder: Path, options: argparse.Namespace, rungs: Sequence[Rung]) -> Report:
    peaks = machine_peaks(quick=options.quick)
    subjects, counters, preparing = prepared(folder, rungs)
    rows: dict[str, dict[str, int]] = {}

    def counted(rung: Rung) -> object:
        counter = counters[rung.place]
        counter.rows = dict.fromkeys(counter.rows, 0)
        made = subjects[rung.name]()
        rows[rung.name] = counter.rows
        return made

    timed: dict[str, Subject] = {THEIRS: theirs(folder, steps=4 if options.quick else STEPS)}
    timed |= {rung.name: partial(counted, rung) for rung in rungs}
    seconds = alternate(timed, rounds=options.rounds, warm_ups=0)
    macs = macs_of(load(folder, rungs[0]))
    table = Table(f"{folder.name}, one picture")
    first = {"setting": THEIRS, "s": statistics.median(seconds[THEIRS]), "times faster": 1.0}
    table.rows.append({**first, "network": STEPS + 1.0, "% of floor": "", "changed": "PNDM, fp32"})
    report = Report("text_to_image", "as said", [table])
    for rung in rungs:
        work = sum(macs[kind] * count for kind, count in rows[rung.name].items())
        floor = 2 * work / peaks[f"convolution {rung.precision}"]
        median, faster = (
            statistics.median(seconds[rung.name]),
            ratio(seconds[THEIRS], seconds[rung.name]),
        )
        table.rows.append(
            {
                "setting": rung.name, "s": median, "times faster": faster,
                "network": work / (2 * macs["full"]), "% of floor": 100 * floor / median,
                "changed": rung.changed,
            }
        )  # fmt: skip
        if rung.name in REQUIRED:
            report.checks.append(Check(f"{rung.name} over diffusers", faster, REQUIRED[rung.name]))
    report.notes += [
        '"network" counts guided evaluations of the whole network: half for one without guidance.',
        f"Loading, and preparing what the processes of the table below had not: {preparing:.0f} s.",
        f"One guided evaluation: {4e-9 * macs['full']:.0f} GFLOP; peaks "
        + ", ".join(f"{name} {value / 1e12:.2f}" for name, value in peaks.items())
        + " TFLOP/s.",
    ]
    return report


def main(options: argparse.Namespace) -> int:
    configure_threads()
    with tempfile.TemporaryDirectory(prefix="izograf-sd-") as scratch:
        folder = options.checkpoint
        if folder is None:
            folder = Path(scratch) / "stable-diffusion-v1-4"
            random_checkpoint(folder, quick=options.quick)
        card = read_card(find_model(str(folder)))
        precision = choose_placement("cpu", width=network_width(card)).precision
        rungs = rungs_of(card, precision=precision)[1:]  # diffusers stands for the textbook
        if options.memory_of:
            draw_once(folder, rungs, options.memory_of)
            return 0
        memory = memory_table(folder, rungs, quick=options.quick)
        report = ladder(folder, options, rungs)
        report.tables.append(memory)
        taken = {row["setting"]: row["MB"] for row in memory.rows}
        for name in taken.keys() - {THEIRS}:
            what = f"memory of {name} over that of diffusers"
            report.checks.append(Check(what, taken[name] / taken[THEIRS], 1.0, at_most=True))
        return report.show(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, help="default: v1.4 with random weights, made for the run")
    add("--rounds", type=int, default=3, help="alternating rounds of all (default 3)")
    add("--quick", action="store_true", help="only show that it runs")
    add("--json", action="store_true", help="print one JSON object")
    add("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main(parse()))
    except IzografError as error:
        sys.exit(f"text_to_image.py: {error}")
