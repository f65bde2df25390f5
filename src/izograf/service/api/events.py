"""What happens to a job, as server-sent events (HTML Standard, section 9.2; promise P6)."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from izograf.schema.errors import IzografError
from izograf.schema.job import EventKind, JobEvent
from izograf.service.api.views import moment
from izograf.service.context import Service
from izograf.service.hub import set_within

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
RETRY_MILLISECONDS = 1000
AT_ONCE = 200  # events of one read
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
    data = json.dumps({"at": moment(event.at), **event.data}, separators=(",", ":"))
    return f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n".encode()


async def stream_events(
    service: Service, job_id: str, after: int, *, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> AsyncIterator[bytes]:
    """Everything that follows event `after`, in order, each once; ends after the final event.

    It also ends, for the client to come back, when the service stops or the store fails.
    """
    yield _FIRST
    async with service.hub.listen(job_id) as changed:
        while not service.hub.closing:
            changed.clear()
            try:
                events = await service.hub.read(
                    service.store.jobs.events_after, job_id, after, AT_ONCE
                )
            except IzografError as error:
                log.warning("A stream of events ends early: %s", error)
                return
            for event in events:
                yield encode(event)
                after = event.number
            if events and events[-1].kind in FINAL:
                return
            if len(events) < AT_ONCE and not await set_within(changed, heartbeat_seconds):
                yield _HEARTBEAT


async def wait_until_ended(service: Service, job_id: str) -> bool:
    """Waits for the job's final event; False if the service stops meanwhile.

    Raises:
        StorageError: the store does not answer.
    """
    after = 0
    async with service.hub.listen(job_id) as changed:
        while not service.hub.closing:
            changed.clear()
            events = await service.hub.read(service.store.jobs.events_after, job_id, after, AT_ONCE)
            if events and events[-1].kind in FINAL:
                return True
            after = events[-1].number if events else after
            if len(events) < AT_ONCE:
                await set_within(changed, HEARTBEAT_SECONDS)
    return False
