"""Attention on the CPU: matmul-softmax-matmul against `scaled_dot_product_attention`.

`izograf.models.layers.SMALL_ATTENTION` is the number of tokens up to which the plain product is
taken; this is where it comes from. Three heads of 64 numbers, a batch of 16, forward alone and
forward with backward. A second table compares the product of some queries at a time with the fused
kernel on long sequences, where both keep memory linear: `FUSED_IS_FAST` decides between them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable

from common import Report, Subject, Table, alternate, ratio, start

# isort: split
import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.core.devices import DTYPES
from izograf.models.layers import (
    FUSED_IS_FAST,
    LONG_ATTENTION,
    SMALL_ATTENTION,
    chunked_attention,
    plain_attention,
)

BATCH, HEADS, HEAD_DIM = 16, 3, 64
TOKENS = (64, 256, 1024)
LONG = ((4, 4, 1024, 64), (2, 8, 4096, 40))  # a DiT's, and the largest of Stable Diffusion
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def subject(
    attention: Attention, shape: tuple[int, ...], dtype: torch.dtype, *, backward: bool
) -> Subject:
    rng = torch.Generator().manual_seed(0)
    qkv = torch.randn((3, *shape), generator=rng).to(dtype)
    gradient = torch.ones(shape, dtype=dtype)

    def forward() -> None:
        with torch.no_grad():
            attention(*qkv.unbind())

    def both() -> None:
        leaf = qkv.requires_grad_()
        torch.autograd.grad(attention(*leaf.unbind()), leaf, gradient)

    return both if backward else forward


def main(options: argparse.Namespace) -> int:
    report = Report("attention", "fp32 and bf16")
    contenders: dict[str, Attention] = {
        "explicit": plain_attention,
        "fused": F.scaled_dot_product_attention,
    }
    table = Table(f"[{BATCH}, {HEADS}, tokens, {HEAD_DIM}], milliseconds")
    for tokens in TOKENS[:1] if options.quick else TOKENS:
        for precision, dtype in DTYPES.items():
            for backward in (False, True):
                subjects = {
                    name: subject(
                        attention, (BATCH, HEADS, tokens, HEAD_DIM), dtype, backward=backward
                    )
                    for name, attention in contenders.items()
                }
                seconds = alternate(subjects, rounds=2 if options.quick else 4 * options.rounds)
                table.rows.append(
                    {
                        "tokens": tokens,
                        "precision": precision,
                        "pass": "forward + backward" if backward else "forward",
                        "explicit": 1e3 * statistics.median(seconds["explicit"]),
                        "fused": 1e3 * statistics.median(seconds["fused"]),
                        "fused / explicit": ratio(seconds["fused"], seconds["explicit"]),
                        "taken": "explicit" if tokens <= SMALL_ATTENTION[dtype] else "fused",
                    }
                )
    report.tables += [table, long_sequences(options)]
    report.notes.append("`taken`: what models/layers.py does here, by its constants.")
    return report.show(options)


def long_sequences(options: argparse.Namespace) -> Table:
    """The two that never hold all weights at once, forward only."""
    contenders: dict[str, Attention] = {
        "chunked": chunked_attention,
        "fused": F.scaled_dot_product_attention,
    }
    table = Table("long sequences, forward, milliseconds")
    for shape in LONG[:1] if options.quick else LONG:
        for precision, dtype in DTYPES.items():
            subjects = {
                name: subject(attention, shape, dtype, backward=False)
                for name, attention in contenders.items()
            }
            seconds = alternate(subjects, rounds=2 if options.quick else 2 * options.rounds)
            slow = dtype == torch.bfloat16 and not FUSED_IS_FAST and shape[-2] >= LONG_ATTENTION
            table.rows.append(
                {
                    "shape": str(list(shape)),
                    "precision": precision,
                    **{name: 1e3 * statistics.median(taken) for name, taken in seconds.items()},
                    "fused / chunked": ratio(seconds["fused"], seconds["chunked"]),
                    "taken": "chunked" if slow else "fused",
                }
            )
    return table


if __name__ == "__main__":
    sys.exit(main(start(__doc__)))
