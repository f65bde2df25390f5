"""A training run in a folder: log, checkpoints, sample sheets, resume, early stopping.

runs/mine/run.json           what was asked; `--resume` must ask the same
runs/mine/log.jsonl          one object per logging interval
runs/mine/checkpoints/       images-<count>/{state.safetensors,state.json}
runs/mine/samples/           <count>.png
runs/mine/card.json, weights.safetensors     the model so far, ready for `izograf generate`
runs/mine/guide.safetensors  its weights at an early time, where that was asked for
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from torch import Tensor, nn

from izograf.core.devices import Placement
from izograf.core.storage import storage_errors, write_atomically
from izograf.core.types import Batch, Objective
from izograf.schema.errors import InvalidInput, TrainingDiverged
from izograf.training.ema import MovingAverage
from izograf.training.state import (
    all_finite,
    checkpoint_name,
    checkpoints,
    load_average,
    load_state,
    prune,
    save_state,
)
from izograf.training.trainer import StopTraining, TrainingConfig, TrainingState, train

Averaged = nn.ModuleDict
RATE = "images_per_second"
STOPPED_BY_SIGNAL = "stopped by a signal"


@dataclass(frozen=True)
class RunConfig:
    """Intervals of a run, in images seen, and when to give up early.

    Attributes:
        log_every, evaluate_every, checkpoint_every, sample_every: images between two of each.
        keep: newest checkpoints kept (the best one is kept besides).
        monitor: name of the evaluated number that early stopping and "best" go by; smaller is
            better. Empty for none.
        patience: stop after this many evaluations without improvement; 0 never stops.
        early_snapshot: `Job.keep_early` once this many images were seen; 0 never.
    """

    log_every: int = 5_000
    evaluate_every: int = 50_000
    checkpoint_every: int = 25_000
    sample_every: int = 50_000
    keep: int = 2
    monitor: str = ""
    patience: int = 0
    early_snapshot: int = 0


class OnProgress(Protocol):
    """Called at every step with images seen, images per second, and the latest statistics."""

    def __call__(self, images_seen: int, rate: float, stats: Mapping[str, float], /) -> None: ...


class Scalars(Protocol):
    """Where logged numbers also go (TensorBoard's SummaryWriter fits)."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Job:
    """Everything a run needs, put together by a recipe.

    Attributes:
        evaluate: averaged modules -> named held-out numbers.
        preview: averaged modules -> writes a sheet of samples to the path.
        export: (averaged modules, facts about the run) -> writes the model into the folder. A
            snapshot older than the model is among the facts: `early_snapshot`, images seen then.
        keep_early: averaged modules -> writes an early snapshot of them into the folder.
    """

    objective: Objective
    batches: Callable[[int], Batch]
    training: TrainingConfig
    run: RunConfig
    placement: Placement
    evaluate: Callable[[Averaged], Mapping[str, float]] | None = None
    preview: Callable[[Averaged, Path], None] | None = None
    export: Callable[[Averaged, Path, Mapping[str, Any]], None] | None = None
    keep_early: Callable[[Averaged, Path], None] | None = None


@dataclass
class _Progress:
    """What a run remembers between sessions besides weights; saved with every checkpoint.

    `early` is the number of images at which the early snapshot was taken, 0 before.
    """

    seconds: float = 0.0
    best: float = math.inf
    best_images: int = 0
    misses: int = 0
    early: int = 0
    done: dict[str, int] = field(default_factory=dict)


def execute(
    job: Job,
    folder: Path,
    *,
    asked: Mapping[str, Any],
    resume: bool = False,
    on_progress: OnProgress | None = None,
    open_scalars: Callable[[int], Scalars] | None = None,
) -> str:
    """Runs `job` in `folder` to its end, a stop signal, or early stopping; returns why it ended.

    `open_scalars` is called with the images seen so far, once the folder is known to be ours.

    Raises:
        InvalidInput: the folder holds another run, or `resume` finds none or a different one.
        TrainingDiverged: NaN or infinity; the last good checkpoint is kept.
        StorageError: the disk is full or not writable; the last checkpoint is kept.
    """
    check_folder(folder, asked, resume=resume)
    with storage_errors(folder), _locked(folder), ExitStack() as stack:
        if not resume:
            write_atomically(folder / "run.json", json.dumps(asked, indent=1, ensure_ascii=False))
        watcher = _RunWatcher(job, folder, on_progress)
        state = TrainingState(
            MovingAverage(
                job.objective.modules, job.objective.averaged, share=job.training.ema_share
            )
        )
        if resume and (saved := checkpoints(folder / "checkpoints")):
            watcher.restore(load_state(saved[-1], job.objective, state))
            watcher.remember(_truncate_log(folder / "log.jsonl", state.images_seen))
        if open_scalars is not None:
            watcher.scalars = stack.enter_context(closing(open_scalars(state.images_seen)))
        reason = "all images seen"
        with stop_signals() as stopped:
            watcher.stopped = stopped
            try:
                train(job.objective, job.batches, job.training, state, job.placement, watcher)
            except StopTraining as stop:
                reason = str(stop)
            watcher.save(state)
            if watcher.patience_is_over:
                watcher.export_best(state)
    return reason


def check_folder(folder: Path, asked: Mapping[str, Any], *, resume: bool) -> None:
    """Whether `folder` can take the run described by `asked`; writes nothing.

    Raises:
        InvalidInput: it holds something else, or `resume` finds no run or another one.
    """
    path = folder / "run.json"
    if not resume:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidInput(
                f"{folder} is not empty: choose another --out, or add --resume to go on with "
                "the run that is there."
            )
        return
    if not path.exists():
        raise InvalidInput(f"There is no run to resume in {folder}: leave out --resume to start.")
    try:
        before = _flat(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidInput(f"{path} cannot be read ({error}): start anew in another --out.") from (
            error
        )
    now = _flat(json.loads(json.dumps(asked)))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        what = "; ".join(f"{k}: was {before.get(k)!r}, now {now.get(k)!r}" for k in changed)
        raise InvalidInput(f"{folder} was started with other settings ({what}): resume with those.")


def _flat(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by their own names, so that a difference names the one that differs."""
    flat: dict[str, Any] = {}
    for key, value in asked.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process may train in a folder; the lock goes with the process, even when killed."""
    try:
        import fcntl
    except ImportError:  # not on Windows; there the check above is all there is
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(
                f"Another process is training in {folder}: wait for it, stop it, or choose "
                "another --out."
            ) from None
        yield


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Inside the block SIGINT and SIGTERM only raise a flag; a second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's business
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _RunWatcher:
    """Decides after every step what is due: log, evaluation, sheet, checkpoint, end."""

    def __init__(self, job: Job, folder: Path, on_progress: OnProgress | None) -> None:
        self.stopped: Callable[[], bool] = lambda: False
        self.scalars: Scalars | None = None
        self._job, self._folder = job, folder
        self._on_progress = on_progress
        self._memory = _Progress()
        self._clock = time.monotonic()
        self._last_log = (self._clock, 0)
        self._rate = 0.0
        self._latest: dict[str, float] = {}

    def restore(self, extra: Mapping[str, Any]) -> None:
        known = dict(extra)
        known["best"] = math.inf if known["best"] is None else known["best"]
        self._memory = _Progress(**known)

    def remember(self, logged: Mapping[str, float]) -> None:
        """Takes up the newest logged numbers of the sessions before; they go on the card."""
        self._latest |= logged

    def __call__(self, state: TrainingState, stats: Mapping[str, Tensor]) -> None:
        config = self._job.run
        if self._due("log", state.images_seen, config.log_every):
            self._log(state, {name: float(value) for name, value in stats.items()})
        if self._on_progress is not None:
            self._on_progress(state.images_seen, self._rate, self._latest)
        self._keep_early(state)  # before any checkpoint that says so
        last = state.images_seen >= self._job.training.images
        if self._due("evaluate", state.images_seen, config.evaluate_every) or last:
            self._evaluate(state)
        if self._due("sample", state.images_seen, config.sample_every) or last:
            self._preview(state)
        if self._due("checkpoint", state.images_seen, config.checkpoint_every):
            self.save(state)
        if self.stopped():
            self.save(state)
            raise StopTraining(STOPPED_BY_SIGNAL)

    @property
    def patience_is_over(self) -> bool:
        """Whether the monitored number has not improved for too many evaluations."""
        return 0 < self._job.run.patience <= self._memory.misses

    def export_best(self, state: TrainingState) -> None:
        """Makes the best checkpoint the model of the run, in place of the last one."""
        best = self._memory.best_images
        checkpoint = self._folder / "checkpoints" / checkpoint_name(best)
        if checkpoint.exists():  # it does not where no score ever was a number
            load_average(checkpoint, state.average)
            self._export(state, best)

    def _due(self, what: str, images_seen: int, interval: int) -> bool:
        count = images_seen // interval
        due = count > self._memory.done.get(what, 0)
        self._memory.done[what] = count
        return due

    def _log(self, state: TrainingState, stats: dict[str, float]) -> None:
        bad = [name for name, value in stats.items() if not math.isfinite(value)]
        if bad:
            self._diverged(state, bad)
        now, images = time.monotonic(), state.images_seen
        before, images_before = self._last_log
        if images_before:
            self._rate = (images - images_before) / max(1e-9, now - before)
        self._last_log = (now, images)
        self._write(state, stats | {RATE: round(self._rate, 2)})

    def _write(self, state: TrainingState, stats: Mapping[str, float]) -> None:
        self._latest |= {name: value for name, value in stats.items() if math.isfinite(value)}
        rounded = {
            name: float(f"{value:.6g}") if math.isfinite(value) else None  # NaN is not JSON
            for name, value in stats.items()
        }
        line = {"images_seen": state.images_seen, "seconds": round(self._elapsed(), 1), **rounded}
        with (self._folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.scalars is not None:
            for name, value in stats.items():
                self.scalars.add_scalar(name, value, state.images_seen)

    def _diverged(self, state: TrainingState, bad: list[str]) -> None:
        kept = checkpoints(self._folder / "checkpoints")
        where = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint existed yet"
        raise TrainingDiverged(
            f"Training diverged after {state.images_seen:,} images ({', '.join(bad)} is not "
            f"finite); {where}. Try a lower learning rate or --precision fp32."
        )

    def _evaluate(self, state: TrainingState) -> None:
        if self._job.evaluate is None:
            return
        scores = dict(self._job.evaluate(state.average.modules))
        self._write(state, scores)
        config, memory = self._job.run, self._memory
        value = scores.get(config.monitor)
        if value is None:
            return
        if value < memory.best:
            memory.best, memory.best_images, memory.misses = value, state.images_seen, 0
            self.save(state)
        else:
            memory.misses += 1
        if self.patience_is_over:
            raise StopTraining(
                f"{config.monitor} has not improved for {memory.misses} evaluations "
                f"(best {memory.best:.4g} at {memory.best_images:,} images)"
            )

    def _preview(self, state: TrainingState) -> None:
        if self._job.preview is not None:
            path = self._folder / "samples" / f"{state.images_seen:012d}.png"
            path.parent.mkdir(exist_ok=True)
            self._job.preview(state.average.modules, path)

    def _keep_early(self, state: TrainingState) -> None:
        """A run resumed from before the snapshot takes the same one again."""
        keep, wanted = self._job.keep_early, self._job.run.early_snapshot
        if keep is None or self._memory.early or not 0 < wanted <= state.images_seen:
            return
        keep(state.average.modules, self._folder)
        self._memory.early = state.images_seen

    def _elapsed(self) -> float:
        return self._memory.seconds + time.monotonic() - self._clock

    def save(self, state: TrainingState) -> None:
        if not all_finite(self._job.objective.modules):
            self._diverged(state, ["a weight"])
        memory, now = self._memory, time.monotonic()
        memory.seconds, self._clock = self._elapsed(), now
        extra = vars(memory) | {"best": memory.best if math.isfinite(memory.best) else None}
        folder = self._folder / "checkpoints"
        save_state(folder, self._job.objective, state, extra)
        best = folder / checkpoint_name(memory.best_images)
        prune(folder, keep=self._job.run.keep, also=best)
        self._export(state, state.images_seen)

    def _export(self, state: TrainingState, images_seen: int) -> None:
        if self._job.export is None:
            return
        scores = {k: v for k, v in self._latest.items() if "/" not in k and k != RATE}
        facts: dict[str, Any] = {
            "images_seen": images_seen,
            "seconds": round(self._memory.seconds, 1),
            "evaluated": scores,
        }
        if 0 < self._memory.early < images_seen:
            facts["early_snapshot"] = self._memory.early
        self._job.export(state.average.modules, self._folder, facts)


def _truncate_log(path: Path, images_seen: int) -> dict[str, float]:
    """Drops the lines a killed run logged after its last checkpoint: they will be logged again.

    Returns the newest of every logged number that is kept.
    """
    latest: dict[str, float] = {}
    if not path.exists():
        return latest
    kept = []
    for line in path.read_text().splitlines():
        try:
            logged = json.loads(line)
            if logged.pop("images_seen") > images_seen:
                continue
        except (ValueError, KeyError, AttributeError):  # a line cut short by the kill
            continue
        kept.append(line + "\n")
        logged.pop("seconds", None)
        latest |= {name: value for name, value in logged.items() if value is not None}
    write_atomically(path, "".join(kept))
    return latest
