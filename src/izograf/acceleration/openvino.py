"""OpenVINO: whole graphs, compiled for the processor they run on and for fixed shapes.

Fixed shapes are a quarter to a third faster than free ones, so every batch size has a program of
its own, and a batch of another size is computed in parts. To trace, convert and compile a program
takes a second or a few, half a minute for Stable Diffusion; that is done once, because programs
are kept on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from izograf.acceleration.conversion import compiled, exported, imported
from izograf.acceleration.flat import (
    FlatCall,
    FlatDenoiser,
    FlatGenerator,
    FlatKeeping,
    FlatMap,
    FlatReusing,
    OfTensors,
)
from izograf.acceleration.programs import (
    program_key,
    read_program,
    weights_digest,
    write_program,
)
from izograf.core.backends import BACKENDS, EAGER, OPENVINO
from izograf.core.devices import Placement, Precision
from izograf.models.conditioning import Conditioned

log = logging.getLogger(__name__)

LARGEST_BATCH = 16
LARGE = 200_000_000
"""Parameters from which a network is computed one picture at a time: it fills the cores with one,
and one program, with weights of half the size, serves guided and unguided steps.
"""
PLAIN, KEEP, REUSE = "plain", "keep", "reuse"  # the kinds of calls, see `Conditioned`

# how both parts of an autoencoder are called, by its kind
CALLS_OF_PARTS: Mapping[str, Callable[[nn.Module], FlatCall]] = {
    "codec": FlatMap,
    "autoencoder": FlatGenerator,
}


class OpenVINO:
    """The fastest way on a CPU, and the default there where it is installed."""

    devices: tuple[str, ...] = ("cpu",)
    summary = "OpenVINO: seconds at the first picture of a model, once, and then fastest on a CPU"

    def missing(self) -> str:
        return "" if find_spec("openvino") else "it needs pip install 'izograf[openvino]'"

    def version(self) -> str:
        with suppress(PackageNotFoundError):
            return version("openvino")
        return ""

    def network_type(self, kind: str) -> type[OpenVINONetwork]:
        """What a network of that kind becomes."""
        del kind
        return OpenVINONetwork

    def place(
        self,
        network: nn.Module,
        placement: Placement,
        *,
        kind: str,
        identity: str,
        weights: str = "",
    ) -> nn.Module:
        network_type, precision = self.network_type(kind), placement.precision
        if kind == "denoiser" and isinstance(network, Conditioned):
            calls: dict[str, FlatCall] = {PLAIN: FlatDenoiser(network)}
            if network.reuses:
                calls |= {KEEP: FlatKeeping(network), REUSE: FlatReusing(network)}
            return network_type(network, calls, precision, identity, weights)
        if kind == "generator":
            calls = {PLAIN: FlatGenerator(network)}
            return network_type(network, calls, precision, identity, weights)
        if kind not in CALLS_OF_PARTS:
            return BACKENDS[EAGER].place(network, placement, kind=kind, identity=identity)
        network.float()
        for name in ("encoder", "decoder"):
            part = getattr(network, name)
            calls = {PLAIN: CALLS_OF_PARTS[kind](part)}
            made = network_type(part, calls, precision, f"{identity} {name}", weights)
            setattr(network, name, made)
        return network


BACKENDS.register(OPENVINO)(OpenVINO())


class OpenVINONetwork(nn.Module):
    """Called like `network`, computed by OpenVINO: float32 outside, `precision` inside.

    Args:
        weights: what determines the network's weights, where the caller knows; else their digest.

    Raises, at the first call of a shape:
        InvalidInput: the processor does not compute in that precision.
    """

    def __init__(
        self,
        network: nn.Module,
        calls: Mapping[str, FlatCall],
        precision: Precision,
        identity: str,
        weights: str = "",
    ) -> None:
        super().__init__()
        self.network = network.float()
        self.calls, self.precision, self.identity = calls, precision, identity
        self.weights = weights
        self._numbers = sum(parameter.numel() for parameter in network.parameters())
        self.is_large = self._numbers >= LARGE
        self._programs: dict[tuple[str, object], Program] = {}  # by kind of call, and shapes

    @property
    def extra_bytes(self) -> int:
        """The weights in the programs, which torch knows nothing of."""
        whole = sum(kind != REUSE for kind, _ in self._programs)  # what reuses has few of them
        return self._numbers * whole * (2 if self.precision == "bf16" else 4)

    @property
    def reuses(self) -> bool:
        """Whether `keeping` and `reusing` can be called."""
        return KEEP in self.calls

    def forward(self, *arguments: Any) -> Tensor:
        if self.is_large and self.reuses:  # one program of that size is enough
            return self.keeping(*arguments)[0]
        (output,) = self._computed(PLAIN, arguments)
        return output

    def keeping(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        """As `models.conditioning.Conditioned.keeping`."""
        output, kept = self._computed(KEEP, arguments)
        return output, kept

    def reusing(self, *arguments: Any) -> Tensor:
        """As `models.conditioning.Conditioned.reusing`."""
        (output,) = self._computed(REUSE, arguments)
        return output

    def _computed(self, kind: str, arguments: tuple[Any, ...]) -> list[Tensor]:
        """The results of one kind of call, part by part of the batch."""
        named = self.calls[kind].tensors(*arguments)
        made = []
        for rows, size in parts(len(named["x"]), 1 if self.is_large else LARGEST_BATCH):
            part = {name: _padded(tensor[rows], size) for name, tensor in named.items()}
            self.prepared_inputs(kind, part)
            inputs = [tensor.numpy() for tensor in part.values()]
            outputs = self._program(kind, part).request.infer(inputs, share_inputs=True).values()
            count = rows.stop - rows.start
            made.append([torch.from_numpy(output)[:count] for output in outputs])
        if len(made) == 1:
            return made[0]
        return [torch.cat(results) for results in zip(*made, strict=True)]

    def _program(self, kind: str, named: dict[str, Tensor]) -> Program:
        """What computes tensors of these names and shapes; made, or read, at the first call."""
        signature = tuple((name, str(t.dtype), tuple(t.shape)) for name, t in named.items())
        if (kind, signature) not in self._programs:
            if self.is_large:  # another size of pictures: one program of a kind is enough to hold
                self._programs = {k: v for k, v in self._programs.items() if k[0] != kind}
            self._programs[kind, signature] = self._prepared(kind, named, signature)
        return self._programs[kind, signature]

    def _prepared(self, kind: str, named: dict[str, Tensor], signature: object) -> Program:
        change = self.change_of(kind, named)
        key = program_key(
            network=self.identity, weights=self.known_weights(), call=kind, signature=signature,
            precision=self.precision, openvino=version("openvino"),
            change="" if change is None else change.identity,
        )  # fmt: skip
        if (kept := self._read(key)) is not None:
            return kept
        log.info("Preparing OpenVINO for batches of %d, once for this model.", len(named["x"]))
        module = OfTensors(self.calls[kind].compute, tuple(named)).eval()
        halved = self.is_large and self.precision == "bf16"
        with torch.inference_mode():
            program = compiled(
                module,
                tuple(named.values()),
                self.precision,
                halved=halved,
                change=None if change is None else change.apply,
            )
        write_program(key, partial(exported, program))
        if self.is_large and (kept := self._read(key)) is not None:
            return kept  # whose weights are pages of that file
        return Program(program.create_infer_request())

    def known_weights(self) -> str:
        """What determines the weights."""
        self.weights = self.weights or weights_digest(self.network)
        return self.weights

    def prepared_inputs(self, kind: str, named: dict[str, Tensor]) -> None:
        """What a program of that kind of call is about to be given."""

    def change_of(self, kind: str, named: dict[str, Tensor]) -> Change | None:
        """What is done to a graph before it is compiled for inputs like `named`."""
        del kind, named
        return None

    def forget_programs(self) -> None:
        """Whatever is computed next has its program read, or made, again."""
        self._programs.clear()

    def _read(self, key: str) -> Program | None:
        kept = read_program(key)
        if kept is None:
            return None
        with suppress(RuntimeError):  # damaged, say: then it is made again
            program, content = imported(kept, self.precision)
            return Program(program.create_infer_request(), content)
        return None


@dataclass(frozen=True)
class Change:
    """What is done to a graph, an openvino.Model, and what determines it."""

    identity: str
    apply: Callable[[Any], Any]


@dataclass(frozen=True)
class Program:
    """An openvino.InferRequest, and the file's content that it may point into."""

    request: Any
    content: Any = None


def parts(count: int, largest: int = LARGEST_BATCH) -> Iterator[tuple[slice, int]]:
    """Rows of a batch of `count`, and the size, a power of two, of the program they go through.

    A part is filled up where at least three quarters of it are rows, which costs less than
    several smaller programs.
    """
    start = 0
    while (left := count - start) > 0:
        size = 1 << (left - 1).bit_length()
        while size > largest or 4 * left < 3 * size:
            size //= 2
        stop = min(start + size, count)
        yield slice(start, stop), size
        start = stop


def _padded(rows: Tensor, size: int) -> Tensor:
    """`rows` as a contiguous tensor of `size` of them, the last one repeated; reals as float32."""
    if missing := size - len(rows):
        rows = torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
    return (rows.float() if rows.is_floating_point() else rows).contiguous()
