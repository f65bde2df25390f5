"""OpenVINO: whole graphs, compiled for the processor they run on and for fixed shapes.

Fixed shapes are a quarter to a third faster than free ones, so every batch size has a program of
its own, and a batch of another size is computed in parts. To trace, convert and compile a program
takes a second or a few; that is done once, because programs are kept on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from izograf.acceleration.conversion import compiled, configuration, core
from izograf.acceleration.flat import FlatCall, FlatDenoiser, FlatGenerator, FlatMap, OfTensors
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

    def place(
        self, network: nn.Module, placement: Placement, *, kind: str, identity: str
    ) -> nn.Module:
        if kind == "denoiser" and isinstance(network, Conditioned):
            return OpenVINONetwork(network, FlatDenoiser(network), placement.precision, identity)
        if kind == "generator":
            return OpenVINONetwork(network, FlatGenerator(network), placement.precision, identity)
        if kind not in CALLS_OF_PARTS:
            return BACKENDS[EAGER].place(network, placement, kind=kind, identity=identity)
        network.float()
        for name in ("encoder", "decoder"):
            part = getattr(network, name)
            flat = CALLS_OF_PARTS[kind](part)
            made = OpenVINONetwork(part, flat, placement.precision, f"{identity} {name}")
            setattr(network, name, made)
        return network


BACKENDS.register(OPENVINO)(OpenVINO())


class OpenVINONetwork(nn.Module):
    """Called like `network`, computed by OpenVINO: float32 outside, `precision` inside.

    Raises, at the first call of a shape:
        InvalidInput: the processor does not compute in that precision.
    """

    def __init__(
        self, network: nn.Module, flat: FlatCall, precision: Precision, identity: str
    ) -> None:
        super().__init__()
        self.network = network.float()
        self._flat, self._precision, self._identity = flat, precision, identity
        self._weights = ""
        self._requests: dict[object, Any] = {}  # openvino.InferRequest by names and shapes

    @property
    def extra_bytes(self) -> int:
        """The weights in the programs, which torch knows nothing of."""
        numbers = sum(parameter.numel() for parameter in self.network.parameters())
        return numbers * len(self._requests) * (2 if self._precision == "bf16" else 4)

    def forward(self, *arguments: Any) -> Tensor:
        named = self._flat.tensors(*arguments)
        made = []
        for rows, size in parts(len(named["x"])):
            part = {name: _padded(tensor[rows], size) for name, tensor in named.items()}
            inputs = [tensor.numpy() for tensor in part.values()]
            (output,) = self._request(part).infer(inputs, share_inputs=True).values()
            made.append(torch.from_numpy(output)[: rows.stop - rows.start])
        return made[0] if len(made) == 1 else torch.cat(made)

    def _request(self, named: dict[str, Tensor]) -> Any:
        """What computes tensors of these names and shapes; made, or read, at the first call."""
        signature = tuple((name, str(t.dtype), tuple(t.shape)) for name, t in named.items())
        if signature not in self._requests:
            self._requests[signature] = self._program(named, signature).create_infer_request()
        return self._requests[signature]

    def _program(self, named: dict[str, Tensor], signature: object) -> Any:
        self._weights = self._weights or weights_digest(self.network)
        key = program_key(
            network=self._identity, weights=self._weights, signature=signature,
            precision=self._precision, openvino=version("openvino"),
        )  # fmt: skip
        kept = read_program(key)
        if kept is not None:
            with suppress(RuntimeError):  # damaged, say: then it is made again
                return core().import_model(kept, "CPU", configuration(self._precision))
        log.info("Preparing OpenVINO for batches of %d, once for this model.", len(named["x"]))
        module = OfTensors(self._flat.compute, tuple(named)).eval()
        with torch.inference_mode():
            program = compiled(module, tuple(named.values()), self._precision)
        write_program(key, program.export_model().getvalue())
        return program


def parts(count: int) -> Iterator[tuple[slice, int]]:
    """Rows of a batch of `count`, and the size, a power of two, of the program they go through.

    A part is filled up where at least three quarters of it are rows, which costs less than
    several smaller programs.
    """
    start = 0
    while (left := count - start) > 0:
        size = 1 << (left - 1).bit_length()
        while size > LARGEST_BATCH or 4 * left < 3 * size:
            size //= 2
        stop = min(start + size, count)
        yield slice(start, stop), size
        start = stop


def _padded(rows: Tensor, size: int) -> Tensor:
    """`rows` as a contiguous tensor of `size` of them, the last one repeated; reals as float32."""
    if missing := size - len(rows):
        rows = torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
    return (rows.float() if rows.is_floating_point() else rows).contiguous()
