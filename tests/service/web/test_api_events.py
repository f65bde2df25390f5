"""P6: whoever follows a job sees each of its events once, in order, wherever they come back."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_support import Live, assert_problem, live, submit
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from web_support import MakeService, wait_until_ended

from izograf.engine.fake import FakeEngine
from izograf.schema.request import GenerationRequest
from izograf.service.api import events as events_module
from izograf.service.api.events import stream_events
from izograf.service.app import create_app
from izograf.service.context import Service
from izograf.service.hub import EventHub

PNG = b"\x89PNG a small preview"


@dataclass(frozen=True)
class Seen:
    """One event as a browser's EventSource hears it."""

    number: int
    kind: str
    data: dict[str, Any]


def parse(text: str) -> list[Seen]:
    """The events in a stream; comments and the retry time are passed over."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "data" in fields:
            data = json.loads(fields["data"])
            found.append(Seen(int(fields["id"]), fields["event"], data))
    return found


@pytest.fixture
def still(make_service: MakeService) -> Service:
    """A service that computes nothing by itself: the test is its dispatcher."""
    service = make_service()
    service.dispatcher.stop(0)  # type: ignore[attr-defined]
    hub = EventHub(service.store.jobs.last_events, poll_seconds=0.002)
    return replace(service, hub=hub)


def test_a_finished_job_is_replayed_from_anywhere(client: TestClient) -> None:
    job = submit(client)
    wait_until_ended(client, job["id"])
    url = job["links"]["events"]
    response = client.get(url)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert "no-cache" in response.headers["cache-control"]
    everything = parse(response.text)
    assert [event.number for event in everything] == list(range(1, len(everything) + 1))
    assert [event.kind for event in everything][:2] == ["queued", "started"]
    assert everything[-1].kind == "done"
    assert len(everything[-1].data["images"]) == 2
    assert all(event.data["at"].endswith("Z") for event in everything)
    for after in range(len(everything)):
        assert parse(client.get(url, params={"after": after}).text) == everything[after:]
        again = client.get(url, headers={"Last-Event-ID": str(after)}, params={"after": 0})
        assert parse(again.text) == everything[after:], "the header is newer than the address"


def test_after_the_last_event_there_is_nothing_to_come_back_for(client: TestClient) -> None:
    job = submit(client)
    wait_until_ended(client, job["id"])
    last = parse(client.get(job["links"]["events"]).text)[-1].number
    for number in (last, last + 1, 2**31 - 1, 10**10 - 1):
        headers = {"Last-Event-ID": str(number)}
        response = client.get(job["links"]["events"], headers=headers)
        assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "9" * 40, "²"])
def test_what_is_no_event_number_is_refused(client: TestClient, number: str) -> None:
    job = submit(client)
    headers = {"Last-Event-ID": number.encode("utf-8")}
    response = client.get(job["links"]["events"], headers=headers)
    assert_problem(response, 422, "invalid_input")


def test_p6_reconnecting_anywhere_shows_each_event_once(still: Service) -> None:
    """Writer and reader take turns as hypothesis says; the reader's connection breaks as often."""
    jobs = still.store.jobs

    def write(kind: str, job_id: str, attempt: int, step: int) -> int:
        if kind == "death":
            jobs.worker_died(job_id, attempt, "It died.")
            claimed = jobs.claim_next()
            return attempt if claimed is None else claimed[1]
        jobs.record_step(job_id, attempt, step, 18, PNG if kind == "preview" else None)
        return attempt

    async def follow(job_id: str, kinds: Sequence[str], breaks: Sequence[int]) -> list[Seen]:
        async def writer() -> None:
            attempt = 1
            for step, kind in enumerate(kinds):
                attempt = await asyncio.to_thread(write, kind, job_id, attempt, step)
            await asyncio.to_thread(jobs.cancel, job_id)

        writing = asyncio.create_task(writer())
        seen: list[Seen] = []
        for length in (*breaks, 10_000):
            after = seen[-1].number if seen else 0
            stream = stream_events(still, job_id, after, heartbeat_seconds=60)
            seen += await read(stream, length)
            if seen and seen[-1].kind in events_module.FINAL:
                break
        await writing
        return seen

    async def read(stream: AsyncIterator[bytes], length: int) -> list[Seen]:
        found: list[Seen] = []
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                found += parse(chunk.decode())
                if len(found) >= length:
                    break
        return found

    @settings(max_examples=40)
    @given(
        kinds=st.lists(st.sampled_from(["step", "step", "preview", "death"]), max_size=12),
        breaks=st.lists(st.integers(1, 4), max_size=8),
    )
    def check(kinds: list[str], breaks: list[int]) -> None:
        job = jobs.submit("ann", "generate", GenerationRequest("scenes"))
        assert jobs.claim_next() is not None
        # no heartbeat comes to the aid of a waiting client that was not woken
        seen = asyncio.run(asyncio.wait_for(follow(job.id, kinds, breaks), 20))
        stored = jobs.events_after(job.id)
        assert [event.number for event in seen] == list(range(1, len(stored) + 1))
        assert [event.kind for event in seen] == [event.kind for event in stored]
        for event in seen:
            assert event.data.get("step") == stored[event.number - 1].data.get("step")

    check()


def test_p6_what_happens_during_a_look_is_not_missed(still: Service) -> None:
    """The hub tells of an event while the listener is still reading what was before it."""
    jobs = still.store.jobs
    job = jobs.submit("ann", "generate", GenerationRequest("scenes"))
    jobs.claim_next()
    rest = iter([jobs.cancel])

    class Slow:
        def events_after(self, *arguments: Any) -> Any:
            found = jobs.events_after(*arguments)
            for change in rest:
                change(job.id)
                time.sleep(0.1)  # many polls of the hub
            return found

    service = replace(still, store=replace(still.store, jobs=Slow()))  # type: ignore[arg-type]

    async def everything() -> list[Seen]:
        stream = stream_events(service, job.id, 0, heartbeat_seconds=60)
        return parse("".join([chunk.decode() async for chunk in stream]))

    seen = asyncio.run(asyncio.wait_for(everything(), 10))
    assert [event.kind for event in seen] == ["queued", "started", "cancelled"]


def test_p6_a_cut_connection_continues_where_it_was(make_service: MakeService) -> None:
    service = make_service(engine=FakeEngine(step_seconds=0.02, preview_seconds=0.02))
    seen: list[Seen] = []
    with live(service) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        job = client.post("/api/v1/jobs", json={"model": "scenes"}).json()
        while not seen or seen[-1].kind != "done":
            headers = {"Last-Event-ID": str(seen[-1].number)} if seen else {}
            with client.stream("GET", job["links"]["events"], headers=headers) as response:
                part = ""
                for chunk in response.iter_text():
                    part += chunk
                    if len(parse(part[: part.rfind("\n\n") + 2])) >= 3:
                        break
                seen += parse(part[: part.rfind("\n\n") + 2])
    assert [event.number for event in seen] == list(range(1, len(seen) + 1))
    previews = [event for event in seen if event.kind == "preview"]
    assert len(previews) >= 5
    assert any("png" in event.data for event in previews), "they were seen while it ran"


@pytest.fixture
def held(make_service: MakeService) -> Iterator[tuple[Service, Live, str]]:
    """A live service with one job that will not end by itself."""
    service = make_service(engine=FakeEngine(step_seconds=60))
    with live(service) as server:
        job = httpx.post(f"{server.url}/api/v1/jobs", json={"model": "scenes"}, timeout=20).json()
        yield service, server, job["id"]


def connect(server: Live, job_id: str) -> socket.socket:
    """A client that has asked for a job's events."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    request = f"GET /api/v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    connection.sendall(request.encode())
    return connection


def heard(connection: socket.socket, wanted: bytes) -> bytes:
    """What arrives until `wanted` is in it, or the end."""
    received = b""
    deadline = time.monotonic() + 20
    while wanted not in received and time.monotonic() < deadline:
        part = connection.recv(65536)
        received += part
        if not part:
            break
    return received


def until(condition: Any, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


def test_the_first_byte_comes_at_once(held: tuple[Service, Live, str]) -> None:
    _, server, job_id = held
    with connect(server, job_id) as connection:
        start = time.monotonic()
        assert b": events of a job" in heard(connection, b"retry: ")
        assert b"event: started" in heard(connection, b"event: started")
        assert time.monotonic() - start < 5


def test_a_silent_stream_has_a_heartbeat(
    held: tuple[Service, Live, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server, job_id = held
    monkeypatch.setitem(stream_events.__kwdefaults__, "heartbeat_seconds", 0.05)
    with connect(server, job_id) as connection:
        assert b": still here\n\n" in heard(connection, b": still here\n\n")
        assert b": still here\n\n" in heard(connection, b": still here\n\n"), "and another one"
    assert events_module.HEARTBEAT_SECONDS == 15


def test_streams_end_when_the_service_stops(held: tuple[Service, Live, str]) -> None:
    _, server, job_id = held
    with connect(server, job_id) as connection:
        heard(connection, b"event: started")
        start = time.monotonic()
        server.server.stop()
        assert heard(connection, b"never").endswith(b"0\r\n\r\n"), "a proper end"
        assert time.monotonic() - start < 4


def test_a_client_that_leaves_is_forgotten(held: tuple[Service, Live, str]) -> None:
    service, server, job_id = held
    with connect(server, job_id) as connection:
        heard(connection, b"event: started")
        assert service.hub.num_listeners == 1
    assert until(lambda: service.hub.num_listeners == 0)


def test_a_hundred_clients_cost_one_question(still: Service) -> None:
    """However many listen, the store is asked once a poll, and once for the events they share."""
    jobs, questions, reads = still.store.jobs, 0, 0
    lock = threading.Lock()

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(jobs, name)

        def last_events(self, ids: Sequence[str]) -> Any:
            nonlocal questions
            with lock:
                questions += 1
            return jobs.last_events(ids)

        def events_after(self, *arguments: Any) -> Any:
            nonlocal reads
            with lock:
                reads += 1
            return jobs.events_after(*arguments)

    counted = Counted()
    store = replace(still.store, jobs=counted)  # type: ignore[arg-type]
    service = replace(still, store=store, hub=EventHub(counted.last_events, poll_seconds=0.05))
    job = jobs.submit("ann", "generate", GenerationRequest("scenes"))
    jobs.claim_next()

    async def all_of_them() -> list[str]:
        async def one() -> str:
            return "".join([c.decode() async for c in stream_events(service, job.id, 0)])

        clients = [asyncio.create_task(one()) for _ in range(100)]
        for step in range(5):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(jobs.record_step, job.id, 1, step, 18)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(jobs.cancel, job.id)
        return await asyncio.gather(*clients)

    start = time.monotonic()
    texts = asyncio.run(all_of_them())
    polls = (time.monotonic() - start) / 0.05
    assert {tuple(event.number for event in parse(text)) for text in texts} == {tuple(range(1, 9))}
    assert questions <= polls + 2
    # clients that wake together read together; without sharing it would be 700
    assert reads < 200


def test_a_store_that_fails_ends_the_stream_for_the_client_to_come_back(
    still: Service, tmp_path: Path
) -> None:
    assert tmp_path
    job = still.store.jobs.submit("ann", "generate", GenerationRequest("scenes"))

    class Away:
        def events_after(self, *_: Any) -> Any:
            from izograf.schema.errors import StoreUnavailable

            raise StoreUnavailable("away")

    service = replace(still, store=replace(still.store, jobs=Away()))  # type: ignore[arg-type]

    async def everything() -> list[bytes]:
        return [chunk async for chunk in stream_events(service, job.id, 0)]

    assert len(asyncio.run(everything())) == 1


def test_the_application_opens_its_streams_again(service: Service) -> None:
    for _ in range(2):
        with TestClient(create_app(service), base_url="http://localhost") as client:
            job = submit(client)
            assert parse(client.get(job["links"]["events"]).text)[-1].kind == "done"
