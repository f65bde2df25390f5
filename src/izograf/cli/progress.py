"""Progress on standard error: bars where it is a terminal, a line now and then where not."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

LINE_EVERY_SECONDS = 30.0


@contextmanager
def training_progress(total: int) -> Iterator[Callable[[int, float, Mapping[str, float]], None]]:
    """A bar with images per second and time left."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=total, rate="")

        def update(images_seen: int, rate: float, stats: Mapping[str, float]) -> None:
            loss = next((value for name, value in stats.items() if name.endswith("/loss")), None)
            text = f"{rate:.0f} images/s" + (f"  loss {loss:.4f}" if loss is not None else "")
            progress.update(task, completed=images_seen, rate=text if rate else "")

        yield update


def _lines(total: int) -> Callable[[int, float, Mapping[str, float]], None]:
    last = time.monotonic() - LINE_EVERY_SECONDS

    def update(images_seen: int, rate: float, stats: Mapping[str, float]) -> None:
        nonlocal last
        now = time.monotonic()
        if rate and (now - last >= LINE_EVERY_SECONDS or images_seen >= total):
            last = now
            left = max(0, total - images_seen) / rate / 60
            numbers = "  ".join(f"{k} {v:.4g}" for k, v in stats.items() if k.endswith("loss"))
            line = (
                f"{images_seen:,} / {total:,} images  {rate:.0f}/s  {left:.0f} min left  {numbers}"
            )
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    return update


@contextmanager
def counting_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for (done, total) callbacks; silent where standard error is not a terminal.

    What the library has to say meanwhile, that a model is being prepared, say, stands above it.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(description, total=None)
        spoken, log = _Spoken(progress.console), logging.getLogger("izograf")
        level = log.level
        log.addHandler(spoken)
        log.setLevel(logging.INFO)
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total)
        finally:
            log.removeHandler(spoken)
            log.setLevel(level)


class _Spoken(logging.Handler):
    """Log records as plain lines, where somebody reads them."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if self._console.is_terminal:
            self._console.print(record.getMessage(), highlight=False)
