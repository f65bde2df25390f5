"""P5, as a user would check it: by what was claimed, knowing nothing of how it was chosen."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from store_support import Clock, seeded_ids

from izograf.schema.request import GenerationRequest
from izograf.store import lines
from izograf.store.open import Store, open_store

Line = tuple[str, int]  # owner, priority
SUBMIT = st.tuples(st.sampled_from("abcd"), st.sampled_from([0, 0, 0, 5]))
OPERATION = st.one_of(SUBMIT, SUBMIT, st.just("claim"), st.just("claim"), st.just("die"))
ORDER = GenerationRequest("scenes")


@contextmanager
def fresh(make_url: Callable[[], str], folder: Path) -> Iterator[Store]:
    clock = Clock()
    store = open_store(folder, make_url(), clock=clock, make_ids=seeded_ids(clock))
    try:
        yield store
    finally:
        store.close()


class Referee:
    """Watches who is served while whose oldest job waits."""

    def __init__(self) -> None:
        self.waiting: dict[Line, list[str]] = defaultdict(list)
        self.served: dict[Line, Counter[str]] = defaultdict(Counter)

    def joined(self, line: Line, job_id: str) -> None:
        if not self.waiting[line]:
            self.served[line].clear()
        self.waiting[line] = sorted([*self.waiting[line], job_id])

    def claimed(self, line: Line, job_id: str) -> None:
        open_lines = {other for other, jobs in self.waiting.items() if jobs}
        assert line[1] == max(priority for _, priority in open_lines), "higher priority first"
        assert self.waiting[line].pop(0) == job_id, "oldest of an owner first"
        self.served[line].clear()
        for other in open_lines - {line}:
            if other[1] == line[1]:
                self.served[other][line[0]] += 1
                assert self.served[other][line[0]] <= 1, f"{other} waits behind two of {line}"


def play(store: Store, operations: list[object]) -> None:
    referee, running = Referee(), []
    for operation in operations:
        if isinstance(operation, tuple):
            owner, priority = operation
            job = store.jobs.submit(owner, "generate", ORDER, priority=priority)
            referee.joined((owner, priority), job.id)
        elif operation == "claim" and (claim := store.jobs.claim_next()) is not None:
            referee.claimed((claim[0].owner, claim[0].priority), claim[0].id)
            running.append(claim)
        elif operation == "die" and running:
            job, attempt = running.pop(0)
            if store.jobs.worker_died(job.id, attempt, "x") == "queued":
                referee.joined((job.owner, job.priority), job.id)


def check(make_url: Callable[[], str], folder: Path, examples: int, *, fails: bool = False) -> None:
    @settings(
        max_examples=examples,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if fails else list(Phase),
        report_multiple_bugs=False,
    )
    @given(st.lists(OPERATION, min_size=10, max_size=40))
    def play_fresh(operations: list[object]) -> None:
        with fresh(make_url, folder) as store:
            play(store, operations)

    play_fresh()


def test_p5_no_owner_waits_behind_two_jobs_of_another(
    make_url: Callable[[], str], folder: Path, kind: str
) -> None:
    check(make_url, folder, 25 if kind == "sqlite" else 8)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_p5_control_serving_the_oldest_job_is_unfair(
    make_url: Callable[[], str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "serve", lines.leave)  # nobody goes to the end of the round
    with pytest.raises(AssertionError, match="waits behind two"):
        check(make_url, folder, 25, fails=True)


def test_what_comes_next_is_listed_in_the_order_of_the_claims(store: Store) -> None:
    for number in range(12):
        owner = ("ann", "bob", "eve")[number % 3 if number < 6 else 0]
        store.jobs.submit(owner, "generate", ORDER, priority=number == 7)
    store.jobs.claim_next()
    listed = [job.id for job in store.jobs.next_in_turn(50)]
    assert [job.id for job in store.jobs.next_in_turn(4)] == listed[:4]
    anns = [job.id for job in store.jobs.next_in_turn(3, "ann")]
    claimed = []
    while (claim := store.jobs.claim_next()) is not None:
        claimed.append(claim[0])
    assert listed == [job.id for job in claimed]
    assert len(listed) == 11
    assert anns == [job.id for job in claimed if job.owner == "ann"][:3]
    assert store.jobs.next_in_turn(5) == ()


def test_a_queue_position_is_when_the_job_is_claimed(store: Store) -> None:
    orders = ["a0", "a0", "a0", "b0", "a5", "c0", "b0", "b5", "a0", "c5", "c0", "c0", "c0"]
    for owner, priority in orders:
        store.jobs.submit(owner, "generate", ORDER, priority=int(priority))
    for _ in range(3):  # so that the lines have been served at different times
        store.jobs.claim_next()
    queued = [job.id for job in store.jobs.list_jobs().items if job.status == "queued"]
    told = {store.jobs.queue_position(job_id): job_id for job_id in queued}
    came = []
    while (claim := store.jobs.claim_next()) is not None:
        came.append(claim[0].id)
    assert [told[position] for position in sorted(told)] == came  # type: ignore[type-var]
    assert sorted(told) == list(range(1, len(queued) + 1))  # type: ignore[type-var]
    assert store.jobs.queue_position(queued[0]) is None


def test_what_is_told_to_come_next_comes_next_over_every_priority(store: Store) -> None:
    orders = ["a0", "a0", "b0", "a5", "c0", "b5", "a0", "a5", "a5", "c-3", "b-3", "c-3"]
    for place in orders:
        store.jobs.submit(place[0], "generate", ORDER, priority=int(place[1:]))
    store.jobs.claim_next()  # so that one line has been served
    queued = [job.id for job in store.jobs.list_jobs().items if job.status == "queued"]
    positions = {job_id: store.jobs.queue_position(job_id) for job_id in queued}
    upcoming = [job.id for job in store.jobs.next_in_turn(100)]
    first = [job.id for job in store.jobs.next_in_turn(4)]
    of_a = [job.id for job in store.jobs.next_in_turn(100, "a")]
    claims = iter(store.jobs.claim_next, None)
    came = [(job.id, job.owner) for job, _ in claims]
    assert [job_id for job_id, _ in came] == upcoming
    assert first == upcoming[:4]
    assert of_a == [job_id for job_id, owner in came if owner == "a"]
    assert [positions[job_id] for job_id in upcoming] == list(range(1, len(orders)))


def test_p5_dispatchers_that_race_are_fair_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, other = (store.jobs.submit(owner, "generate", ORDER).id for owner in "aab")
    serving = threading.Event()
    serve = lines.serve

    def slow(*arguments: Any) -> None:
        if not serving.is_set():
            serving.set()
            time.sleep(0.3)  # the claimed row is locked, its line not yet at the end of the round
        serve(*arguments)

    monkeypatch.setattr(lines, "serve", slow)
    with ThreadPoolExecutor(2) as threads:
        slow_claim = threads.submit(store.jobs.claim_next)
        serving.wait()
        fast_claim = threads.submit(store.jobs.claim_next)
        claims = [slow_claim.result(), fast_claim.result()]
    assert [claim[0].id for claim in claims if claim is not None] == [first, other]
