"""Eight bits: weights and activations of a denoiser quantised for OpenVINO, after calibration.

What the activations range over is seen on pictures that the model itself draws, at every noise
level of a sampling; it is kept beside the programs, so that a machine calibrates a model once.
First and last convolution, whose numbers are pictures, and all that is no denoiser stay as they
are. NNCF's post-training quantisation: SmoothQuant for activations (Xiao et al. 2023,
arXiv:2211.10438), and its fast bias correction.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from izograf.acceleration.conversion import UNFUSED, runtime, without_telemetry
from izograf.acceleration.openvino import KEEP, PLAIN, Change, OpenVINO, OpenVINONetwork
from izograf.acceleration.programs import program_key, read_program, write_program
from izograf.core.backends import BACKENDS, OPENVINO_INT8
from izograf.schema.errors import InvalidInput

log = logging.getLogger(__name__)

ROWS, ROWS_OF_LARGE = 64, 12  # what is kept of the inputs seen, evenly over all of them


class OpenVINOInt8(OpenVINO):
    """OpenVINO with the denoiser in eight bits, where a checkpoint's owner wants it so."""

    summary = "OpenVINO in eight bits: calibrated once for a model, measure what it costs"

    def missing(self) -> str:
        missing = [name for name in ("openvino", "nncf") if find_spec(name) is None]
        return "it needs pip install 'izograf[int8]'" if missing else ""

    def version(self) -> str:
        with suppress(PackageNotFoundError):
            return f"{super().version()} nncf {version('nncf')}"
        return super().version()

    def network_type(self, kind: str) -> type[OpenVINONetwork]:
        return QuantisedNetwork if kind == "denoiser" else super().network_type(kind)


BACKENDS.register(OPENVINO_INT8)(OpenVINOInt8())


class QuantisedNetwork(OpenVINONetwork):
    """An `OpenVINONetwork` whose whole evaluations are in eight bits.

    The outer layers alone, where deep ones are reused, are few and stay in `precision`.
    """

    _seen: list[dict[str, Tensor]] | None = None
    _rows: dict[str, Tensor] | None = None

    @property
    def needs_calibration(self) -> bool:
        return self._rows is None and read_program(self._calibration_key()) is None

    @contextmanager
    def calibrating(self) -> Iterator[None]:
        """Inside the block the network computes unquantised and remembers what it is asked."""
        self._seen = []
        try:
            yield
            rows = self._seen
        finally:
            self._seen = None
            self.forget_programs()
        count = min(len(rows), ROWS_OF_LARGE if self.is_large else ROWS)
        kept = [rows[number * len(rows) // count] for number in range(count)]
        stacked = {name: torch.cat([row[name] for row in kept]) for name in kept[0]}
        self._rows = stacked
        write_program(self._calibration_key(), lambda file: file.write(save(stacked)))

    def prepared_inputs(self, kind: str, named: dict[str, Tensor]) -> None:
        if self._seen is not None and kind in (PLAIN, KEEP):
            rows = len(named["x"])
            self._seen += [{k: t[i : i + 1].clone() for k, t in named.items()} for i in range(rows)]

    def change_of(self, kind: str, named: dict[str, Tensor]) -> Change | None:
        if self._seen is not None or kind not in (PLAIN, KEEP):
            return None
        rows, size = self._calibration(), len(named["x"])
        check_fits(rows, named)
        digest = hashlib.sha256(save(rows)).hexdigest()

        def quantise(graph: Any) -> Any:
            starts = range(0, len(rows["x"]), size)
            batches = [[_in_batches(rows[name], start, size) for name in named] for start in starts]
            return quantised(graph, batches)

        return Change(f"int8, nncf {version('nncf')}, {digest}", quantise)

    def _calibration(self) -> dict[str, Tensor]:
        """What was seen, which the cache may have lost meanwhile, or never could keep."""
        if self._rows is None:
            kept = read_program(self._calibration_key())
            if kept is None:
                raise RuntimeError("the network was not calibrated")
            self._rows = load(kept[:])
        return self._rows

    def _calibration_key(self) -> str:
        return program_key(
            network=self.identity, weights=self.known_weights(), calibration=OPENVINO_INT8,
            precision=self.precision,
        )  # fmt: skip


def check_fits(rows: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> None:
    """
    Raises:
        InvalidInput: inputs of another kind or size than those calibrated on.
    """
    if any(rows[n].shape[1:] != t.shape[1:] for n, t in named.items() if n in rows) or (
        named.keys() != rows.keys()
    ):
        raise InvalidInput(
            "Eight bits are calibrated for pictures of the model's own size, prompts of ordinary "
            "length, and what the model was asked by then: choose --backend openvino for others."
        )


def _in_batches(rows: Tensor, start: int, size: int) -> Any:
    """Rows from `start` on as an array of `size` of them, beginning again where they end."""
    wanted = torch.arange(start, start + size) % len(rows)
    return rows[wanted].float().contiguous().numpy()


def quantised(graph: Any, batches: Sequence[Sequence[Any]]) -> Any:
    """The openvino.Model with quantised products and convolutions, calibrated on `batches`."""
    nncf = quantiser()
    log.info("Quantising for OpenVINO, once for this model: minutes for a large one.")
    convolutions = [op for op in graph.get_ordered_ops() if op.get_type_name() == "Convolution"]
    names = [op.get_friendly_name() for op in (*convolutions[:1], *convolutions[-1:])]
    with redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            graph,
            nncf.Dataset(list(batches)),
            subset_size=len(batches),
            fast_bias_correction=True,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=names),
        )


@cache
def quantiser() -> Any:
    """The module nncf, quiet, reporting to nobody, and compiling as `conversion` does."""
    with without_telemetry():
        nncf = importlib.import_module("nncf")
        engine: Any = importlib.import_module("nncf.openvino.engine")
    nncf.set_log_level(logging.ERROR)
    openvino = runtime()

    class Core(openvino.Core):  # type: ignore[misc,name-defined]
        """One that does not crash on chains of linear layers in float32."""

        def compile_model(self, model: Any, device_name: Any = None, config: Any = None) -> Any:
            threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
            given = {**(config or {}), **UNFUSED, **threads}
            return super().compile_model(model, device_name, given)

    engine.ov = SimpleNamespace(
        Core=Core, Model=openvino.Model, CompiledModel=openvino.CompiledModel
    )
    return nncf
