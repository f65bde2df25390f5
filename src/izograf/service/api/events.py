"""What happens to a job, as server-sent events (HTML Standard, section 9.2; promise P6)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse

from izograf.schema.errors import IzografError
from izograf.schema.job import EventKind, JobEvent
from izograf.service.api.views import moment
from izograf.service.context import Service
from izograf.service.hub import Batch
from izograf.store.events import Position
from izograf.store.jobs import JobStore

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
RETRY_MILLISECONDS = 1000
AT_ONCE = 100  # events of a job in one answer
GONE = "gone"  # said in a stream of several jobs of one that does not exist any more
FINAL = frozenset({EventKind.DONE, EventKind.FAILED, EventKind.CANCELLED, EventKind.DEAD})
# a proxy must pass every event on at once
HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

_FIRST = f": events of a job\nretry: {RETRY_MILLISECONDS}\n\n".encode()
_HEARTBEAT = b": still here\n\n"


class EventStream(StreamingResponse):
    """A response of server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, headers=HEADERS)


def encode(event: JobEvent) -> bytes:
    """The event on the wire: its number as the id, its kind, and its data as one line of JSON."""
    data = {"at": moment(event.at), "job": event.job_id, **event.data}
    return f"id: {event.number}\nevent: {event.kind}\ndata: {_json(data)}\n\n".encode()


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"))


def batches(jobs: JobStore, positions: Collection[Position]) -> dict[Position, Batch]:
    """What follows each position, for the hub; nobody else reads or encodes events of a stream.

    Raises:
        StorageError: the store does not answer.
    """
    return {
        position: Batch(b"".join(map(encode, events)), events[-1].number, events[-1].kind in FINAL)
        for position, events in jobs.events_since(positions, AT_ONCE).items()
    }


async def stream_events(
    service: Service, job_id: str, after: int, *, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> AsyncIterator[bytes]:
    """Everything that follows event `after`, in order, each once; ends after the final event.

    It also ends, for the client to come back, when the service stops or the store fails.
    """
    yield _FIRST
    try:
        async with aclosing(service.hub.follow(job_id, after, heartbeat_seconds)) as found:
            async for batch in found:
                yield _HEARTBEAT if batch is None else batch.content
    except IzografError as error:
        log.warning("A stream of events ends early: %s", error)


async def stream_jobs(
    service: Service,
    positions: Mapping[str, int],
    gone: Collection[str],
    *,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[bytes]:
    """The streams of several jobs in one, each in order; first, which jobs there are none of."""
    yield _FIRST
    for job_id in gone:
        yield f"event: {GONE}\ndata: {_json({'job': job_id})}\n\n".encode()
    waiting: dict[asyncio.Task[Batch | None], AsyncGenerator[Batch | None, None]] = {}
    try:
        for job_id, after in positions.items():
            found = service.hub.follow(job_id, after, heartbeat_seconds)
            waiting[_next(found)] = found
        while waiting:
            ready, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in ready:
                found = waiting.pop(task)
                try:
                    batch = task.result()
                except StopAsyncIteration:
                    continue
                waiting[_next(found)] = found
                yield _HEARTBEAT if batch is None else batch.content
    except IzografError as error:
        log.warning("A stream of events ends early: %s", error)
    finally:
        for task in waiting:
            task.cancel()  # its generator ends where it waits


def _next(found: AsyncGenerator[Batch | None, None]) -> asyncio.Task[Batch | None]:
    return asyncio.ensure_future(anext(found))


async def wait_until_ended(service: Service, job_id: str) -> bool:
    """Waits for the job's final event; False if the service stops meanwhile.

    Raises:
        StorageError: the store does not answer.
    """
    async with aclosing(service.hub.follow(job_id, 0, HEARTBEAT_SECONDS)) as found:
        return any([batch.final async for batch in found if batch is not None])
