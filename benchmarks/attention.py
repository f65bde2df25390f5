"""Attention on the CPU: matmul-softmax-matmul against `scaled_dot_product_attention`.

`izograf.models.layers.SMALL_ATTENTION` is the number of tokens up to which the plain product is
taken; this is where it comes from. Three heads of 64 numbers, a batch of 16, forward alone and
forward with backward.
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
from izograf.models.layers import SMALL_ATTENTION

BATCH, HEADS, HEAD_DIM = 16, 3, 64
TOKENS = (64, 256, 1024)
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The branch of `izograf.models.layers.attend` for few tokens, at any number of them."""
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    mixed: Tensor = weights.softmax(dim=-1) @ v
    return mixed


def subject(attention: Attention, tokens: int, dtype: torch.dtype, *, backward: bool) -> Subject:
    rng = torch.Generator().manual_seed(0)
    shape = (3, BATCH, HEADS, tokens, HEAD_DIM)
    qkv = torch.randn(shape, generator=rng).to(dtype)
    gradient = torch.ones(shape[1:], dtype=dtype)

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
        "explicit": explicit,
        "fused": F.scaled_dot_product_attention,
    }
    table = Table(f"[{BATCH}, {HEADS}, tokens, {HEAD_DIM}], milliseconds")
    for tokens in TOKENS[:1] if options.quick else TOKENS:
        for precision, dtype in DTYPES.items():
            for backward in (False, True):
                subjects = {
                    name: subject(attention, tokens, dtype, backward=backward)
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
    report.tables.append(table)
    report.notes.append("`taken`: what models/layers.py does, by its SMALL_ATTENTION.")
    return report.show(options)


if __name__ == "__main__":
    sys.exit(main(start(__doc__)))
