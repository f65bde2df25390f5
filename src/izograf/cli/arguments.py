"""Options that several verbs share, and the parsing of numbers such as 2M."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from izograf.schema.errors import InvalidInput

_SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def parse_count(text: str) -> int:
    """`2M`, `500k`, `1.5M`, `64` or `1_000` as a positive whole number.

    Raises:
        InvalidInput: anything else.
    """
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)([kmg]?)", text.strip().casefold())
    if match:
        value = float(match[1].replace("_", "")) * _SUFFIXES[match[2]]
        if 1 <= value <= 1e15 and value == int(value):
            return int(value)
    raise InvalidInput(f"Expected a positive number such as 50000, 500k or 2M, got {text!r}.")


Data = Annotated[
    list[Path],
    typer.Option(
        "--data",
        help="Folder, zip, npz, CSV or JSONL, folder of zips, hf:owner/name; may be repeated.",
        show_default=False,
    ),
]
ClassColumn = Annotated[
    str | None,
    typer.Option(
        help="Take the class from this column of the data: Smiling of CelebA, category of COCO.",
        show_default="as the layout says",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, or fp16 on a GPU.")]
Backend = Annotated[str, typer.Option(help="auto, eager, compile, openvino or openvino-int8.")]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON array on standard output.")]
