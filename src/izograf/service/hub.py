"""Tells the listeners of jobs that something happened, with one question to the store for all.

The store is the truth, so the hub asks it, and only while somebody listens: how far has each job
with a listener come? It asks when this process wrote something (`nudge`), and now and then besides,
because other processes may write as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast

from starlette.concurrency import run_in_threadpool

from izograf.schema.errors import StorageError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
REST_SECONDS = 0.001  # for each listener, between two questions: a question for all costs the same
LONGEST_REST = 0.1

LastEvents = Callable[[Sequence[str]], Mapping[str, int]]
"""Job identifiers -> number of each job's last event (`JobStore.last_events`)."""

T = TypeVar("T")


class EventHub:
    """Lives in the event loop of the web process.

    Attributes:
        closing: the service stops; whoever waits for events must not wait any longer.
    """

    def __init__(self, last_events: LastEvents, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._last_events, self._poll_seconds = last_events, poll_seconds
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._seen: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._reads: dict[Hashable, asyncio.Task[Any]] = {}
        self._nudged = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closing = False

    def nudge(self) -> None:
        """Says that something was written; may be called from any thread."""
        if self._loop is not None and self._listeners:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._nudged.set)

    @asynccontextmanager
    async def listen(self, job_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the job may have come further; clear it before looking."""
        changed = asyncio.Event()
        self._listeners[job_id].add(changed)
        if not self.closing and (self._task is None or self._task.done()):
            self._loop, self._nudged = asyncio.get_running_loop(), asyncio.Event()
            self._task = asyncio.create_task(self._watch(), name="event-hub")
        try:
            yield changed
        finally:
            self._listeners[job_id].discard(changed)
            if not self._listeners[job_id]:
                del self._listeners[job_id]
                self._seen.pop(job_id, None)

    async def read(self, read: Callable[..., T], *arguments: Hashable) -> T:
        """`read(*arguments)` in a thread, once for everybody who asks for it at the same time.

        All listeners of a job wake at once and ask for the same events.
        """
        key = (read, arguments)
        if key not in self._reads:
            self._reads[key] = asyncio.create_task(self._read_once(key, read, *arguments))
        return cast(T, await asyncio.shield(self._reads[key]))

    async def _read_once(self, key: Hashable, read: Callable[..., T], *arguments: Hashable) -> T:
        # nobody may join once it has begun: it would not see what they were woken for
        await asyncio.sleep(0)
        self._reads.pop(key, None)
        return await run_in_threadpool(read, *arguments)

    @property
    def num_listeners(self) -> int:
        return sum(map(len, self._listeners.values()))

    def open(self) -> None:
        """Begins anew in the running event loop, after `close` in another one."""
        self.closing = False
        self._task = None
        self._reads.clear()

    async def close(self) -> None:
        """Ends the watching and wakes every listener, for good."""
        self.closing = True
        for listeners in self._listeners.values():
            for changed in listeners:
                changed.set()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while self._listeners:
            self._nudged.clear()
            for job_id, number in (await self._ask()).items():
                if self._seen.get(job_id) != number and job_id in self._listeners:
                    self._seen[job_id] = number
                    for changed in self._listeners[job_id]:
                        changed.set()
            await asyncio.sleep(min(LONGEST_REST, REST_SECONDS * self.num_listeners))
            await set_within(self._nudged, self._poll_seconds)

    async def _ask(self) -> Mapping[str, int]:
        try:
            return await run_in_threadpool(self._last_events, tuple(self._listeners))
        except StorageError as error:
            log.warning("The store does not answer, events wait: %s", error)
        except Exception:
            log.exception("The hub met an error of its own; it goes on.")
        return {}


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event was, or came to be, set within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
