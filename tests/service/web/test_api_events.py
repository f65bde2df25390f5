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
from functools import partial
from typing import Any

import httpx
import pytest
from api_support import Live, assert_problem, live, submit
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from web_support import MakeService, wait_until_ended

from izograf.engine.fake import FakeEngine
from izograf.schema.errors import StoreUnavailable
from izograf.schema.request import GenerationRequest
from izograf.service.api import events as events_module
from izograf.service.api.events import batches, stream_events
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
    return with_jobs(service, service.store.jobs)


def with_jobs(service: Service, jobs: Any, poll_seconds: float = 0.002) -> Service:
    """The service, its streams reading from `jobs`."""
    return replace(service, hub=EventHub(partial(batches, jobs), poll_seconds=poll_seconds))


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


async def text_of(service: Service, job_id: str, after: int = 0) -> str:
    """All that a stream says, to its end."""
    stream = stream_events(service, job_id, after, heartbeat_seconds=60)
    return "".join([chunk.decode() async for chunk in stream])


def test_p6_what_happens_during_a_look_is_not_missed(still: Service) -> None:
    """The job ends while the store is still giving what was before it, and nobody says so."""
    jobs = still.store.jobs
    job = jobs.submit("ann", "generate", GenerationRequest("scenes"))
    jobs.claim_next()
    rest = iter([jobs.cancel])

    class Slow:
        def events_since(self, *arguments: Any) -> Any:
            found = jobs.events_since(*arguments)
            for change in rest:
                change(job.id)
            return found

    service = with_jobs(still, Slow(), poll_seconds=60)
    seen = parse(asyncio.run(asyncio.wait_for(text_of(service, job.id), 10)))
    assert [event.kind for event in seen] == ["queued", "started", "cancelled"]


def test_p6_a_stream_is_not_held_up_by_others_of_its_job(still: Service) -> None:
    """One is not read from at all, one begins far behind, one follows as it happens."""
    jobs = still.store.jobs
    job = jobs.submit("ann", "generate", GenerationRequest("scenes"))
    jobs.claim_next()
    steps = 2 * events_module.AT_ONCE + 20
    for step in range(steps):
        jobs.record_step(job.id, 1, step, steps)
    last = steps + 2

    async def everybody() -> tuple[str, str, str]:
        unread = stream_events(still, job.id, 0, heartbeat_seconds=60)
        begun = [await anext(unread), await anext(unread)]
        newest = asyncio.create_task(text_of(still, job.id, last))
        behind = asyncio.create_task(text_of(still, job.id))
        await asyncio.to_thread(jobs.cancel, job.id)
        texts = await asyncio.wait_for(asyncio.gather(newest, behind), 20)
        assert still.hub.num_listeners == 1
        assert len(parse(begun[1].decode())) == events_module.AT_ONCE, "what it holds is bounded"
        late = b"".join([*begun, *[chunk async for chunk in unread]]).decode()
        return (*texts, late)

    newest, behind, late = asyncio.run(everybody())
    assert [event.number for event in parse(newest)] == [last + 1]
    assert [event.number for event in parse(behind)] == list(range(1, last + 2))
    assert late == behind


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
        first = heard(connection, b"retry: ")
        assert b": events of a job" in first
        if b"event: started" not in first:  # both may come at once
            heard(connection, b"event: started")
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


@pytest.mark.parametrize("num_jobs", [1, 100])
def test_a_hundred_clients_cost_one_question(still: Service, num_jobs: int) -> None:
    """However many listen, to one job or to many, the store is asked for all of them at once."""
    jobs, questions = still.store.jobs, 0

    class Counted:
        def events_since(self, *arguments: Any) -> Any:
            nonlocal questions
            questions += 1
            return jobs.events_since(*arguments)

    service = with_jobs(still, Counted(), poll_seconds=60)
    order = GenerationRequest("scenes")
    made = [jobs.submit("ann", "generate", order).id for _ in range(num_jobs)]

    async def all_of_them() -> list[str]:
        listening = (text_of(service, made[n % num_jobs]) for n in range(100))
        clients = [asyncio.create_task(one) for one in listening]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(lambda: [jobs.cancel(job_id) for job_id in made])
        service.hub.nudge()
        return await asyncio.wait_for(asyncio.gather(*clients), 20)

    texts = asyncio.run(all_of_them())
    assert [[event.kind for event in parse(text)] for text in texts] == [
        ["queued", "cancelled"]
    ] * 100
    # what there was, nothing yet, what came; and one more if the second was asked late
    assert 2 <= questions <= 4


def test_what_this_process_writes_is_heard_without_a_poll(still: Service) -> None:
    jobs = still.store.jobs
    job = jobs.submit("ann", "generate", GenerationRequest("scenes"))
    service = with_jobs(still, jobs, poll_seconds=60)

    async def follow() -> str:
        client = asyncio.create_task(text_of(service, job.id))
        await asyncio.sleep(0.1)  # it has heard what there was
        await asyncio.to_thread(jobs.cancel, job.id)
        await asyncio.to_thread(service.hub.nudge)
        return await asyncio.wait_for(client, 10)

    assert [event.kind for event in parse(asyncio.run(follow()))] == ["queued", "cancelled"]


def test_an_event_is_encoded_once_for_all_who_hear_it(still: Service) -> None:
    jobs = still.store.jobs
    job = jobs.submit("ann", "generate", GenerationRequest("scenes"))
    jobs.claim_next()
    jobs.record_step(job.id, 1, 1, 18, PNG)

    async def one() -> bytes:
        stream = stream_events(still, job.id, 0)
        chunk = [await anext(stream), await anext(stream)][1]
        await stream.aclose()  # type: ignore[attr-defined]
        return chunk

    async def many() -> list[bytes]:
        return await asyncio.gather(*[one() for _ in range(5)])

    first, *others = asyncio.run(many())
    assert parse(first.decode())[-1].data["png"]
    assert all(other is first for other in others)


def test_a_store_that_fails_ends_the_streams_for_the_clients_to_come_back(still: Service) -> None:
    jobs = still.store.jobs
    job = jobs.submit("ann", "generate", GenerationRequest("scenes"))
    away = threading.Event()

    class SometimesAway:
        def events_since(self, *arguments: Any) -> Any:
            if away.is_set():
                raise StoreUnavailable("away")
            return jobs.events_since(*arguments)

    service = with_jobs(still, SometimesAway())

    async def both() -> list[str]:
        clients = [asyncio.create_task(text_of(service, job.id)) for _ in range(2)]
        await asyncio.sleep(0.05)
        away.set()
        texts = await asyncio.wait_for(asyncio.gather(*clients), 10)
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(events_module.wait_until_ended(service, job.id), 10)
        away.clear()
        jobs.cancel(job.id)
        return [*texts, await asyncio.wait_for(text_of(service, job.id), 10)]

    kinds = [[event.kind for event in parse(text)] for text in asyncio.run(both())]
    assert kinds == [["queued"], ["queued"], ["queued", "cancelled"]]


def test_the_application_opens_its_streams_again(service: Service) -> None:
    for _ in range(2):
        with TestClient(create_app(service), base_url="http://localhost") as client:
            job = submit(client)
            assert parse(client.get(job["links"]["events"]).text)[-1].kind == "done"
