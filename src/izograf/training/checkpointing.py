"""Gradient checkpointing: memory against time (Chen et al. 2016, arXiv:1604.06174)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from izograf.schema.errors import InvalidInput


@contextmanager
def checkpointed_blocks(modules: nn.Module, *, enabled: bool = True) -> Iterator[None]:
    """Inside the block every block of `modules` keeps its inputs and nothing else.

    What it computed is computed again in the backward pass, with the same dropout. Gradients are
    those without, bit for bit where the kernels are deterministic. Copies of the modules, their
    averages say, are not affected.

    Raises:
        InvalidInput: there are no blocks.
    """
    if not enabled:
        yield
        return
    found = list(blocks(modules))
    if not found:
        raise InvalidInput(
            "This network has no blocks to compute again: leave out --gradient-checkpointing."
        )
    for block in found:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in found:
            del block.forward  # the instance's, which hid that of its class


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of lists and sequences that have parts of their own.

    A lone convolution is none: its input must be kept in any case.
    """
    repeated = isinstance(module, nn.ModuleList | nn.Sequential)
    for child in module.children():
        container = isinstance(child, nn.ModuleList | nn.Sequential)
        if repeated and not container and next(child.children(), None) is not None:
            yield child
        else:
            yield from blocks(child)
