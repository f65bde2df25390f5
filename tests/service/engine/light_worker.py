"""A worker body without torch, so that spawning it takes a moment; requests say what goes wrong.

Options: `num_inference_steps`, `step_seconds`, and a step at which to `die_at`, `hang_at`,
`oom_at` or `raise_at`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from izograf.engine.batching import batch_record, compose
from izograf.engine.messages import WorkerSettings, WorkerState
from izograf.engine.picture import fake_picture, verify_fake
from izograf.engine.protocol import Cost, EnginePicture, OriginalFiles
from izograf.engine.serving import Progress, Rendered, Verified, serve
from izograf.schema.request import GenerationRequest

SIZE = 8
MEGABYTE = 1 << 20


def run(connection: Connection, settings: WorkerSettings) -> None:
    serve(connection, settings, LightRenderer())


class LightRenderer:
    def __init__(self) -> None:
        self._model = ""
        self._loads = 0

    def render(
        self,
        request: GenerationRequest,
        progress: Progress,
        original: OriginalFiles | None = None,
    ) -> Rendered:
        if original is None:
            return self.render_together([request], progress)[0]
        made = [fake_picture(request, s, size=SIZE, original=original) for s in request.seeds]
        return tuple(made), Cost()

    def render_together(
        self, requests: Sequence[GenerationRequest], progress: Progress
    ) -> Sequence[Rendered]:
        if requests[0].model != self._model:
            self._model, self._loads = requests[0].model, self._loads + 1
        options = requests[0].options
        num_steps = int(options.get("num_inference_steps", 4))
        self._misbehave(requests, 0)
        for step in range(1, num_steps + 1):
            time.sleep(float(options.get("step_seconds", 0)))
            self._misbehave(requests, step)
            progress(step, num_steps, lambda index: b"preview of %d" % requests[index].seed)
        rows = compose(requests)
        rendered = []
        for request in requests:
            pictures = [fake_picture(request, seed, size=SIZE) for seed in request.seeds]
            record = batch_record(request, rows)
            rendered.append(
                (tuple(EnginePicture(p.seed, p.png, SIZE, SIZE, {**p.record, **record})
                       for p in pictures), Cost())
            )  # fmt: skip
        return rendered

    def verify(
        self,
        request: GenerationRequest,
        png: bytes,
        progress: Progress,
        original: OriginalFiles | None = None,
    ) -> Verified:
        progress(1, 1, lambda _: b"")
        return verify_fake(png, model=request.model, size=SIZE, original=original), Cost()

    def release_memory(self) -> None:
        pass

    def state(self) -> WorkerState:
        return WorkerState((self._model,) if self._model else (), 100 * MEGABYTE, self._loads)

    def _misbehave(self, requests: Sequence[GenerationRequest], step: int) -> None:
        options = requests[0].options
        if step == options.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == options.get("hang_at"):
            time.sleep(1000)
        if step == options.get("raise_at"):
            raise RuntimeError("a secret of the operator's")
        # a request for many pictures is the one that does not fit, alone or among others
        if any(request.num_images >= options.get("oom_from", 1000) for request in requests):
            raise MemoryError
