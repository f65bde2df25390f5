"""From a module of tensors to a graph that OpenVINO has compiled for this processor."""

from __future__ import annotations

import importlib
import io
import mmap
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from izograf.core.devices import Precision
from izograf.schema.errors import InvalidInput

ELEMENTS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16"}  # as OpenVINO calls them
TELEMETRY = "openvino_telemetry"
UNFUSED = {"SNIPPETS_MODE": "DISABLE"}


@cache
def runtime() -> Any:
    """The module openvino, which carries no usable types.

    Imported as if its telemetry package were absent: that one reports every import to its maker
    unless a file in the home folder forbids it, and here nothing leaves the machine unasked.
    """
    with without_telemetry():
        return importlib.import_module("openvino")


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Inside the block OpenVINO's telemetry package cannot be imported."""
    modules: dict[str, Any] = sys.modules
    hidden = TELEMETRY not in modules
    if hidden:
        modules[TELEMETRY] = None  # what makes an import fail
    try:
        yield
    finally:
        if hidden:
            del modules[TELEMETRY]


@cache
def core() -> Any:
    """OpenVINO's one entry point of this process."""
    return runtime().Core()


def configuration(precision: Precision) -> dict[str, Any]:
    """How programs compute: alone on torch's threads, in exactly `precision`.

    Left to itself OpenVINO computes in bfloat16 on processors that have it. Fused float32
    subgraphs are off: version 2026.4 crashes while it looks for them in chains of linear layers.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": ELEMENTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
        **(UNFUSED if precision == "fp32" else {}),
    }


def compiled(
    module: nn.Module,
    examples: Sequence[Tensor],
    precision: Precision,
    *,
    halved: bool = False,
    change: Callable[[Any], Any] | None = None,
) -> Any:
    """`module(*examples)` as an openvino.CompiledModel for tensors of exactly these shapes.

    `halved` stores the weights as float16, finer than the bfloat16 in which they are computed.
    `change` is done to the graph, an openvino.Model, before.

    Raises:
        InvalidInput: this processor does not compute in that precision.
    """
    graph = _converted(module, examples)
    if change is not None:
        graph = change(graph)
    if halved:
        compress = importlib.import_module("openvino._offline_transformations")
        compress.compress_model_transformation(graph)
    model = core().compile_model(graph, "CPU", configuration(precision))
    if model.get_property("INFERENCE_PRECISION_HINT").to_string() != ELEMENTS[precision]:
        raise InvalidInput(
            f"OpenVINO does not compute in {precision} on this processor: choose another "
            "precision, or the backend eager."
        )
    return model


def exported(program: Any, file: BinaryIO) -> None:
    """Writes an openvino.CompiledModel into `file`, without a copy of it in memory."""
    program.export_model(_Forwarding(file))


class _Forwarding(io.BytesIO):
    """The only kind of stream that OpenVINO takes, which hands on what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def write(self, data: Any, /) -> int:
        return self._file.write(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)


def imported(kept: mmap.mmap, precision: Precision) -> tuple[Any, Any]:
    """The program that `exported` wrote, and what must live as long as it.

    Raises:
        RuntimeError: the file is damaged, or of another version.
    """
    content = np.frombuffer(kept, dtype=np.uint8)
    shared = runtime().Tensor(content, runtime().Shape(content.shape), runtime().Type.u8)
    program = core().import_model(shared, "CPU", configuration(precision))
    with suppress(AttributeError, OSError):  # its pages were copied, and are read again if needed
        kept.madvise(mmap.MADV_DONTNEED)
    return program, shared


def _converted(module: nn.Module, examples: Sequence[Tensor]) -> Any:
    """The graph of `module`, an openvino.Model with the shapes of `examples`."""
    frontends = importlib.import_module("openvino.frontend")
    decoders = importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the shapes it warns about are meant to be fixed
        program = torch.jit.trace(module, tuple(examples), check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        decoder = decoders.TorchScriptPythonDecoder(program, example_input=tuple(examples))
        frontend = frontends.FrontEndManager().load_by_framework("pytorch")
        graph = frontend.convert(frontend.load(decoder))
    shape = runtime().PartialShape
    graph.reshape({i: shape(list(t.shape)) for i, t in zip(graph.inputs, examples, strict=True)})
    return graph
