"""Start-up time of `izograf --help`, and peak memory of `izograf generate` of six 64 px pictures.

The model is made on the spot: the bundled U-Net with random weights, saved as float16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Check, Report, Subject, Table, alternate, peak_memory, ratio, start

# isort: split
import torch

from izograf.checkpoints.files import save_model
from izograf.core.config import config_to_json
from izograf.core.devices import choose_placement
from izograf.generators.diffusion import preconditioner_to_json
from izograf.generators.diffusion_options import diffusion_options
from izograf.models.unet import UNetConfig, build_unet
from izograf.schema.card import ModelCard
from izograf.schema.labels import ClassLabel

CLASSES = ("buildings", "forest", "glacier", "mountain", "sea", "street")
LIMIT_MB = 1000.0

# Runs the help as the console script would, and tells which heavy modules came along.
_IMPORTED = """
import io, json, sys
from contextlib import redirect_stdout
from izograf.cli.main import run
with redirect_stdout(io.StringIO()):
    code = run(["--help"])
heavy = [name for name in ("torch", "numpy", "PIL", "safetensors") if name in sys.modules]
print(json.dumps({"code": code, "heavy": heavy}))
"""


def command(*arguments: str) -> list[str]:
    """The installed `izograf`, or the module where there is no script beside this Python."""
    script = Path(sys.executable).with_name("izograf")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "izograf"]
    return [*program, *arguments]


def process(*line: str) -> Subject:
    """Runs the command line and waits for its end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """

    def run() -> None:
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return run


def heavy_imports_of_help() -> list[str]:
    """Which of the heavy libraries `izograf --help` imports: none, one hopes."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTED], check=True, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    if told["code"] != 0:
        raise RuntimeError("izograf --help failed")
    return list(told["heavy"])


def make_model(folder: Path) -> None:
    """A complete model of the bundled size and six classes, with random weights."""
    config = UNetConfig(
        image_size=64, num_classes=len(CLASSES), width=96, depth=2, multipliers=(1, 2), patch_size=4
    )
    torch.manual_seed(0)
    card = ModelCard(
        name="benchmark",
        family="diffusion",
        network={"name": "unet", "config": config_to_json(config)},
        image_size=64,
        conditions=("class",),
        classes=tuple(ClassLabel(name) for name in CLASSES),
        options=diffusion_options(),
        sampling={
            "preconditioner": preconditioner_to_json("flow"),
            "sigma_min": 0.02,
            "sigma_max": 80.0,
        },
        summary="random weights",
    )
    save_model(folder, build_unet(config).state_dict(), card, dtype=torch.float16)


def generation_memory(*, quick: bool) -> Table:
    """Peak resident memory of six pictures: one of each class, and six of one class."""
    table = Table("peak memory of `izograf generate` of six 64 px pictures (MB)")
    requests = {"one of each class": ["-n", "1"], "six of one class": ["-c", "forest", "-n", "6"]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        for index, (request, arguments) in enumerate(requests.items()):
            pictures = folder / str(index)
            line = command("generate", "-m", str(folder / "model"), "-o", str(pictures), *arguments)
            peak = peak_memory([*line, "--steps", "2"] if quick else line)
            count = len(list(pictures.glob("*.png")))
            if count != 6:
                raise RuntimeError(f"izograf generate wrote {count} pictures instead of 6")
            table.rows.append({"request": request, "MB": peak / 1e6})
    return table


def main(options: argparse.Namespace) -> int:
    report = Report("startup", choose_placement("cpu", width=96).precision)
    subjects = {
        "izograf --help": process(*command("--help")),
        "python -c pass": process(sys.executable, "-c", "pass"),
        "python -c 'import torch'": process(sys.executable, "-c", "import torch"),
    }
    seconds = alternate(subjects, rounds=1 if options.quick else 2 * options.rounds)
    bare = seconds["python -c pass"]
    times = Table("wall time")
    for name, taken in seconds.items():
        times.rows.append(
            {"command": name, "s": statistics.median(taken), "/ bare python": ratio(taken, bare)}
        )
    memory = generation_memory(quick=options.quick)
    report.tables += [times, memory]
    heavy = heavy_imports_of_help()
    largest = max(row["MB"] for row in memory.rows)
    report.notes.append(f"izograf --help imports: {', '.join(heavy) or 'no heavy library'}")
    report.checks += [
        Check("torch imported by izograf --help", "torch" in heavy, 0, at_most=True, unit=""),
        Check("peak memory of six pictures", largest, LIMIT_MB, at_most=True, unit=" MB"),
    ]
    return report.show(options)


if __name__ == "__main__":
    sys.exit(main(start(__doc__)))
