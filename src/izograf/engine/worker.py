"""What computes in a worker process: models kept loaded, requests turned into PNG files.

The one module of the engine that knows torch; it is imported inside the spawned process only.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import io
import os
import resource
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from izograf.checkpoints.load import load_generator
from izograf.core.backends import BACKENDS
from izograf.core.devices import configure_threads, fingerprint
from izograf.core.energy import Energy, measure_energy
from izograf.core.pixels import to_uint8
from izograf.core.types import Generator, OnStep
from izograf.engine.batching import batch_record, compose
from izograf.engine.messages import WorkerSettings, WorkerState
from izograf.engine.protocol import Cost, EnginePicture, OriginalFiles
from izograf.engine.serving import Progress, Rendered, Verified, serve
from izograf.generators.network import modules_of
from izograf.generators.original import Original, brightness, prepare_original, read_plain
from izograf.generators.registry import FAMILIES, weight_files
from izograf.generators.render import (
    Picture,
    decode_png,
    encode_png,
    recorded,
    render,
    render_rows,
    require_same_weights,
    verify,
)
from izograf.generators.sheet import to_pil
from izograf.models.registry import NETWORKS
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, IzografError
from izograf.schema.library import CARD, find_model, read_card
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request

PREVIEW_PICTURES = 4
PREVIEW_SIZE = 128  # larger pictures are shrunk to this in a preview
# of torch's CPU allocators, and of OpenVINO's
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Failed to allocate")


def run(connection: Connection, settings: WorkerSettings) -> None:
    """The body of a worker process."""
    configure_threads()
    import_families()
    gc.freeze()  # what is imported stays for good; a collection need not look at it (0.1 s)
    serve(connection, settings, TorchRenderer(settings))


def import_families() -> None:
    """Imports every family and network now, instead of under the first request's eyes."""
    for registry in (FAMILIES, NETWORKS, BACKENDS):
        len(registry)
    with torch.device("meta"):
        nn.Embedding(1, 1)  # torch imports its compiler to initialise the first one: a second


@dataclass(frozen=True)
class Loaded:
    """A model ready to sample, the environment its pictures are made in, and its size."""

    generator: Generator
    environment: Mapping[str, str]
    identity: str

    @property
    def device(self) -> str:
        return self.environment["device"]

    @property
    def num_bytes(self) -> int:
        return model_bytes(self.generator)  # it may grow as it is used


class ModelCache:
    """Models by name, the least recently used ones dropped above `ceiling` bytes.

    The model asked for is always loaded, however large it is; room is made before, not after.
    A model whose card has changed on disk is loaded again.
    """

    def __init__(self, ceiling: int, *, device: str, precision: str, backend: str = "auto") -> None:
        self._ceiling = ceiling
        self._place = {"device": device, "precision": precision, "backend": backend}
        self._models: OrderedDict[str, Loaded] = OrderedDict()
        self.loads = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._models)

    def get(self, name: str) -> Loaded:
        """The model called `name`, loaded if need be.

        Raises:
            IzografError: as `load_generator`; MemoryError: it does not fit even on its own.
        """
        folder = find_model(name)
        identity = _identity(folder)
        known = self._models.pop(name, None)
        if known is not None and known.identity == identity:
            self._models[name] = known
            return known
        del known
        self._make_room(_expected_bytes(folder))
        try:
            loaded = self._load(name, identity)
        except MemoryError:
            loaded = None
        if loaded is None:
            self.clear()
            loaded = self._load(name, identity)
        trim_memory()  # the file's own tensors, in the precision of the disk
        self._models[name] = loaded
        return loaded

    def clear(self) -> None:
        self._models.clear()
        release_memory()

    def _make_room(self, wanted: int) -> None:
        dropped = False
        while self._models and wanted + self._sum() > self._ceiling:
            self._models.popitem(last=False)
            dropped = True
        if dropped:
            release_memory()

    def _sum(self) -> int:
        return sum(model.num_bytes for model in self._models.values())

    def _load(self, name: str, identity: str) -> Loaded:
        with memory_errors():
            generator, placement = load_generator(name, **self._place)
        self.loads += 1
        return Loaded(generator, fingerprint(placement), identity)


def _identity(folder: Path) -> str:
    """What changes when another model is put into the folder: the hash of the card's bytes."""
    with suppress(OSError):
        return hashlib.sha256((folder / CARD).read_bytes()).hexdigest()
    return ""  # loading will say what is wrong


def _expected_bytes(folder: Path) -> int:
    """The size of the model once loaded; on disk the weights are half precision."""
    try:
        files = weight_files(folder, read_card(folder))
        return 2 * sum(file.stat().st_size for file in files)
    except (OSError, IzografError):
        return 0  # loading will say what is wrong


def model_bytes(generator: Generator) -> int:
    """Bytes of every parameter and buffer that hangs on the generator, each counted once.

    A network that another runtime computes adds the `extra_bytes` it holds there.
    """
    tensors: dict[int, int] = {}
    extra = 0
    for module in modules_of(generator):
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            tensors[tensor.data_ptr()] = tensor.nbytes
        extra += getattr(module, "extra_bytes", 0)
    return sum(tensors.values()) + extra


class TorchRenderer:
    """Renders requests with the project's models (see `serving.Renderer`)."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._cache = ModelCache(
            settings.cache_bytes,
            device=settings.device,
            precision=settings.precision,
            backend=settings.backend,
        )

    def render(
        self,
        request: GenerationRequest,
        progress: Progress,
        original: OriginalFiles | None = None,
    ) -> Rendered:
        model = self._cache.get(request.model)
        begun = begun_with(model.generator.card, original)
        resolved = resolve_request(model.generator.card, request)
        size = self._settings.batch_size
        num_batches = -(-resolved.num_images // size)
        pictures: list[EnginePicture] = []

        def on_step(step: int, num_steps: int, preview: Tensor, /) -> None:
            batch = len(pictures) // size
            progress(batch * num_steps + step, num_batches * num_steps, lambda _: sheet(preview))

        with memory_errors(), measure_energy(model.device) as reading:
            for picture in render(
                model.generator, resolved, model.environment,
                original=begun, batch_size=size, on_step=on_step,
            ):  # fmt: skip
                pictures.append(engine_picture(picture))  # noqa: PERF401 (on_step counts them)
        return tuple(pictures), cost_of(reading.energy)

    def render_together(
        self, requests: Sequence[GenerationRequest], progress: Progress
    ) -> Sequence[Rendered]:
        model = self._cache.get(requests[0].model)
        resolved = [resolve_request(model.generator.card, request) for request in requests]
        ends = [sum(r.num_images for r in resolved[: i + 1]) for i in range(len(resolved))]
        spans = [slice(end - r.num_images, end) for r, end in zip(resolved, ends, strict=True)]

        def on_step(step: int, num_steps: int, preview: Tensor, /) -> None:
            progress(step, num_steps, lambda index: sheet(preview[spans[index]]))

        with memory_errors(), measure_energy(model.device) as reading:
            made = tuple(map(engine_picture, mixed_batch(model, resolved, on_step)))
        cost = cost_of(reading.energy)
        return [
            (made[span], cost.part(r.num_images / len(made)))
            for r, span in zip(resolved, spans, strict=True)
        ]

    def verify(
        self,
        request: GenerationRequest,
        png: bytes,
        progress: Progress,
        original: OriginalFiles | None = None,
    ) -> Verified:
        pixels, record = decode_png(png)

        def on_step(step: int, num_steps: int, preview: Tensor, /) -> None:
            progress(step, num_steps, lambda _: sheet(preview))

        try:
            model = self._cache.get(request.model)
            require_same_weights(model.generator.card, request.model, record)
            with memory_errors(), measure_energy(model.device) as reading:
                found = verify(
                    pixels, record, model.generator, model.environment,
                    original=begun_with(model.generator.card, original), on_step=on_step,
                )  # fmt: skip
        except InvalidInput as error:  # the model is gone, or takes something else now
            return {"verdict": "cannot", "psnr": None, "remarks": [str(error)]}, Cost()
        return found.to_json(), cost_of(reading.energy)

    def release_memory(self) -> None:
        release_memory()

    def state(self) -> WorkerState:
        return WorkerState(self._cache.names, resident_bytes(), self._cache.loads)


def begun_with(card: ModelCard, files: OriginalFiles | None) -> Original | None:
    """The picture to begin with, at the size of the card's model."""
    if files is None:
        return None
    mask = None if files.mask is None else brightness(read_plain(files.mask))
    return prepare_original(card, read_plain(files.picture), mask)


def mixed_batch(
    model: Loaded, requests: Sequence[GenerationRequest], on_step: OnStep
) -> list[Picture]:
    """The pictures of several resolved, compatible requests, computed in one tensor."""
    card, rows = model.generator.card, compose(requests)
    pixels = render_rows(model.generator, rows, requests[0].options, on_step=on_step)
    owners = [request for request in requests for _ in range(request.num_images)]
    return [
        recorded(picture, card, request, seed, batch_record(request, rows), model.environment)
        for (_, seed), request, picture in zip(rows, owners, pixels, strict=True)
    ]


def cost_of(energy: Energy) -> Cost:
    """What was measured, as it leaves the worker."""
    return Cost(energy.seconds, energy.joules, energy.method)


def engine_picture(picture: Picture) -> EnginePicture:
    """The picture as it leaves the worker."""
    _, height, width = picture.pixels.shape
    return EnginePicture(picture.seed, encode_png(picture), width, height, picture.record)


def sheet(images: Tensor) -> bytes:
    """A PNG of the first pictures [B,3,H,W] in [-1,1], edge to edge, small enough to send often."""
    shown = to_uint8(images[:PREVIEW_PICTURES].cpu())
    count, _, height, width = shown.shape
    shrink = min(1.0, PREVIEW_SIZE / max(height, width))
    cell = max(1, round(width * shrink)), max(1, round(height * shrink))
    columns = 1 if count == 1 else 2
    page = Image.new("RGB", (columns * cell[0], -(-count // columns) * cell[1]))
    for index, picture in enumerate(shown):
        row, column = divmod(index, columns)
        small = to_pil(picture).resize(cell, Image.Resampling.BOX)
        page.paste(small, (column * cell[0], row * cell[1]))
    buffer = io.BytesIO()
    page.save(buffer, "PNG", compress_level=1)  # it is looked at once
    return buffer.getvalue()


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns torch's several ways of running out of memory into `MemoryError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from None
    except RuntimeError as error:
        if any(text in str(error) for text in _NO_MEMORY):
            raise MemoryError(str(error)) from None
        raise


def release_memory() -> None:
    """Frees what nothing refers to any more, and returns it to the system."""
    gc.collect()
    trim_memory()


def trim_memory() -> None:
    """Returns freed memory to the device and the operating system, not only to allocators."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if _malloc_trim is not None:
        _malloc_trim(0)


def _find_malloc_trim() -> Callable[[int], Any] | None:
    try:
        trim: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None  # only glibc has it
    return trim


_malloc_trim = _find_malloc_trim()


def resident_bytes() -> int:
    """Resident memory of this process; its peak where the system does not tell the present."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
