"""Hands new events of jobs to whoever waits for them, with one question to the store for all.

The store is the truth, so the hub asks it, and only while somebody waits: what follows the event
that each one knows? It asks when somebody begins to wait, when this process wrote something
(`nudge`), and now and then besides, because other processes may write as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from izograf.store.events import Position

POLL_SECONDS = 0.25
REST_SECONDS = 0.001  # for each listener, between two questions: a question for all costs the same
LONGEST_REST = 0.1


@dataclass(frozen=True)
class Batch:
    """Consecutive events of a job, ready to be sent.

    Attributes:
        content: all of them, encoded; the same object for everybody at the same position.
        last: the number of the last one.
        final: whether the last one is the job's end.
    """

    content: bytes
    last: int
    final: bool


Ask = Callable[[Collection[Position]], Mapping[Position, Batch]]
"""What follows each position now; positions that nothing follows are left out."""


class EventHub:
    """Lives in the event loop of the web process.

    Attributes:
        closing: the service stops; whoever waits for events must not wait any longer.
        num_listeners: how many follow a job.
    """

    def __init__(self, ask: Ask, *, poll_seconds: float = POLL_SECONDS) -> None:
        """`ask` is called in a thread."""
        self._ask, self._poll_seconds = ask, poll_seconds
        self._waiting: dict[asyncio.Future[Batch | None], Position] = {}
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closing = False
        self.num_listeners = 0

    def nudge(self) -> None:
        """Says that something was written; may be called from any thread."""
        if self._loop is not None and self.num_listeners and not self._wanted.is_set():
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._wanted.set)

    async def follow(
        self, job_id: str, after: int, quiet_seconds: float
    ) -> AsyncGenerator[Batch | None, None]:
        """What follows event `after`, each event once and in order, up to the final one.

        None stands for `quiet_seconds` without any. Ends early when the hub is closed.

        Raises:
            StorageError: the store does not answer.
        """
        self.num_listeners += 1
        try:
            while not self.closing:
                batch = await self._next((job_id, after), quiet_seconds)
                yield batch
                if batch is not None and batch.final:
                    return
                after = after if batch is None else batch.last
        finally:
            self.num_listeners -= 1

    async def _next(self, position: Position, seconds: float) -> Batch | None:
        """What follows the position; None if nothing does within `seconds`, or the hub closes."""
        answer: asyncio.Future[Batch | None] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = position
        if self._task is None or self._task.done():
            self._loop, self._wanted = asyncio.get_running_loop(), asyncio.Event()
            self._task = asyncio.create_task(self._watch(), name="event-hub")
        self._wanted.set()
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._waiting[answer]

    def open(self) -> None:
        """Begins anew in the running event loop, after `close` in another one."""
        self.closing, self._task = False, None

    async def close(self) -> None:
        """Ends the watching and the waiting, for good."""
        self.closing = True
        for answer in self._waiting:
            _settle(answer, None)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while self.num_listeners:
            self._wanted.clear()
            if self._waiting:
                await self._answer()
            await asyncio.sleep(min(LONGEST_REST, REST_SECONDS * self.num_listeners))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._wanted.wait()

    async def _answer(self) -> None:
        """One question for everybody who waits; if it fails, they all have to know."""
        try:
            found = await run_in_threadpool(self._ask, set(self._waiting.values()))
        except Exception as error:
            for answer in self._waiting:
                _settle(answer, error)
            return
        for answer, position in self._waiting.items():
            if position in found:
                _settle(answer, found[position])


def _settle(answer: asyncio.Future[Batch | None], result: Batch | Exception | None) -> None:
    if answer.done():  # it has an answer, or nobody waits any more
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
