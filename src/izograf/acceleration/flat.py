"""A network's call as named tensors: what a tracer takes, and what a compiled graph is keyed by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from izograf.core.types import DROPPED, Cond, Condition
from izograf.models.conditioning import Conditioned
from izograf.models.layers import NoiseLevelEmbedding

Named = Mapping[str, Tensor]


class FlatCall(Protocol):
    """How one kind of network is called."""

    def tensors(self, *arguments: Any) -> Named:
        """The call's arguments as tensors with leading B, the first of them the network's input."""
        ...

    def compute(self, named: Named) -> Tensor | tuple[Tensor, ...]:
        """The network's results for what `tensors` gave."""
        ...


class FlatDenoiser:
    """The backbone of (x, c_noise, Condition) -> F; its condition encoder stays outside.

    So does the embedding of the noise level, whose angles of a thousand radians mean nothing in
    bfloat16: a runtime that computes a whole graph in it would ruin every step.
    """

    def __init__(self, network: Conditioned) -> None:
        self._network = network
        self._levels = [m for m in network.backbone.modules() if isinstance(m, NoiseLevelEmbedding)]

    def tensors(self, *arguments: Any) -> Named:
        x, c_noise, condition = arguments
        cond = self._network.encoder(condition, len(x))
        levels = {_level(i): embed(c_noise) for i, embed in enumerate(self._levels)}
        return {"x": x, **(levels or {"c_noise": c_noise}), **_present(cond)}

    def compute(self, named: Named) -> Tensor | tuple[Tensor, ...]:
        x = named["x"]
        cond = Cond(**{f.name: named.get(f.name) for f in fields(Cond)})
        c_noise = named.get("c_noise", x.new_zeros(x.shape[0]))
        with ExitStack() as stack:
            for index, module in enumerate(self._levels):
                stack.enter_context(_answering(module, named[_level(index)]))
            return self._answer(named, x, c_noise, cond)

    def _answer(
        self, named: Named, x: Tensor, c_noise: Tensor, cond: Cond
    ) -> Tensor | tuple[Tensor, ...]:
        del named
        return self._network.backbone(x, c_noise, cond)  # type: ignore[no-any-return]


class FlatKeeping(FlatDenoiser):
    """As `FlatDenoiser`, with what the deep layers gave as a second result."""

    def _answer(
        self, named: Named, x: Tensor, c_noise: Tensor, cond: Cond
    ) -> Tensor | tuple[Tensor, ...]:
        del named
        return self._network.backbone.keeping(x, c_noise, cond)  # type: ignore[operator,no-any-return]


class FlatReusing(FlatDenoiser):
    """The outer layers of a denoiser: (x, c_noise, Condition, kept) -> F."""

    def tensors(self, *arguments: Any) -> Named:
        *others, kept = arguments
        return {**super().tensors(*others), "kept": kept}

    def _answer(
        self, named: Named, x: Tensor, c_noise: Tensor, cond: Cond
    ) -> Tensor | tuple[Tensor, ...]:
        return self._network.backbone.reusing(x, c_noise, cond, named["kept"])  # type: ignore[operator,no-any-return]


class FlatGenerator:
    """(z or image, Condition) -> a tensor. Classes are always given in full: one graph serves all.

    No class is the dropped class, and a plain class lies at share 0 of the way to itself, where
    its embedding is bitwise the plain one (`models.conditioning.ClassRows`).
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def tensors(self, *arguments: Any) -> Named:
        z, condition = arguments
        ids = condition.class_ids
        if ids is None:
            ids = torch.full((len(z),), DROPPED, dtype=torch.int64, device=z.device)
        if condition.towards_ids is None or condition.share is None:
            share = torch.zeros(len(z), device=z.device)
            condition = replace(condition, towards_ids=ids, share=share)
        return {"x": z, **_present(replace(condition, class_ids=ids))}

    def compute(self, named: Named) -> Tensor:
        condition = Condition(**{k: named.get(k) for k in Condition().tensors()}, negative=None)
        return self._network(named["x"], condition)  # type: ignore[no-any-return]


class FlatMap:
    """A module of one tensor: the encoder or decoder of an autoencoder."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def tensors(self, *arguments: Any) -> Named:
        (x,) = arguments
        return {"x": x}

    def compute(self, named: Named) -> Tensor:
        return self._network(named["x"])  # type: ignore[no-any-return]


class OfTensors(nn.Module):
    """`compute` of a flat call as a module of tensors alone, in the order of `names`."""

    def __init__(
        self, compute: Callable[[Named], Tensor | tuple[Tensor, ...]], names: Sequence[str]
    ) -> None:
        super().__init__()
        self._compute, self._names = compute, tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self._compute(dict(zip(self._names, tensors, strict=True)))


def _present(record: Cond | Condition) -> Named:
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _level(index: int) -> str:
    return f"level_{index}"


@contextmanager
def _answering(module: nn.Module, answer: Tensor) -> Iterator[None]:
    """Inside the block `module` gives `answer`, whatever it is asked."""
    hook = module.register_forward_hook(lambda *_: answer)
    try:
        yield
    finally:
        hook.remove()
