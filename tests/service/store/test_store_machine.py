"""The queue against a plain-Python model, under every order of events hypothesis thinks of.

Reports come from any attempt ever made, current or long overtaken, and the service may restart
between any two calls. Afterwards every row, event and picture must be what the model says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_support import Clock, seeded_ids

from izograf.schema.errors import Conflict
from izograf.schema.job import MAX_ATTEMPTS, Status
from izograf.schema.request import GenerationRequest
from izograf.store import jobs as jobs_module
from izograf.store.open import Store, open_store
from izograf.store.tables import jobs as jobs_table

NUM_EXAMPLES = 40


@dataclass
class ModelJob:
    """What the store should hold of one job."""

    id: str
    owner: str
    priority: int
    status: str = "queued"
    attempt: int = 0
    deaths: int = 0
    began: bool = False
    events: list[str] = field(default_factory=lambda: ["queued"])
    images: list[str] = field(default_factory=list)

    def end(self, status: str) -> None:
        self.status = status
        self.events.append(status)

    def die(self) -> None:
        self.deaths += 1
        if self.deaths == MAX_ATTEMPTS:
            self.end("dead")
        else:
            self.go_back()

    def go_back(self) -> None:
        self.status, self.began = "queued", False
        self.events.append("retried")


class Model:
    """The queue in a few lines: lists, and a turn counter."""

    def __init__(self) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.keys: dict[tuple[str, str], tuple[str, int]] = {}
        self.served: dict[tuple[str, int], int] = {}
        self.turn = 0

    def next(self) -> ModelJob | None:
        """Highest priority, then the owner served longest ago, then the oldest job."""
        queued = sorted((job for job in self.jobs.values() if job.status == "queued"), key=by_id)
        if not queued:
            return None
        highest = max(job.priority for job in queued)
        # owners never served come in the order of the first job they ever submitted
        opened = {(job.owner, job.priority): job.id for job in sorted(
            self.jobs.values(), key=by_id, reverse=True)}  # fmt: skip

        def turn(job: ModelJob) -> tuple[int, str, str]:
            line = (job.owner, job.priority)
            return self.served.get(line, 0), opened[line], job.id

        return min((job for job in queued if job.priority == highest), key=turn)

    def claim(self) -> ModelJob | None:
        if (job := self.next()) is not None:
            self.turn += 1
            self.served[job.owner, job.priority] = self.turn
            job.attempt += 1
            job.status = "running"
            job.events.append("started")
        return job


def by_id(job: ModelJob) -> str:
    return job.id


class Queue(RuleBasedStateMachine):
    """The rules; `open_fresh` and `open_again` are given by the test."""

    open_fresh: Callable[[], Store]
    open_again: Callable[[], Store]

    @initialize()
    def begin(self) -> None:
        self.store = type(self).open_fresh()
        self.model = Model()
        self.attempts: list[tuple[str, int]] = []
        self.pictures = 0
        for owner in "aab":
            self.submit(owner, 0, None, 0)
        self.claim()

    @rule(
        owner=st.sampled_from("abc"),
        priority=st.sampled_from([0, 0, 5]),
        key=st.sampled_from([None, None, "k"]),
        seed=st.integers(0, 1),
    )
    def submit(self, owner: str, priority: int, key: str | None, seed: int) -> None:
        order = GenerationRequest("scenes", seed=seed)
        known = self.model.keys.get((owner, key or ""))
        body = (priority, seed)
        try:
            job = self.store.jobs.submit(
                owner, "generate", order, priority=priority, idempotency_key=key
            )
        except Conflict:
            assert known is not None
            assert known[1] != body
            return
        if known is not None:
            assert known == (job.id, body)
            return
        assert job.id not in self.model.jobs
        self.model.jobs[job.id] = ModelJob(job.id, owner, priority)
        if key is not None:
            self.model.keys[owner, key] = (job.id, body)

    @precondition(lambda self: self.model.next() is not None)
    @rule()
    def claim_next(self) -> None:
        self.claim()

    @precondition(lambda self: self.model.next() is None)
    @rule()
    def claim_nothing(self) -> None:
        self.claim()

    def claim(self) -> None:
        expected = self.model.claim()
        claim = self.store.jobs.claim_next()
        assert (claim and claim[0].id) == (expected and expected.id)
        if claim is not None and expected is not None:
            assert claim[1] == claim[0].attempt == expected.attempt
            self.attempts.append((claim[0].id, claim[1]))

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        job, attempt, current = self.any_attempt(data)
        preview = data.draw(st.sampled_from([None, b"png"]))
        assert self.store.jobs.record_step(job.id, attempt, 1, 9, preview) == current
        if current:
            job.began = True
            job.events.append("step" if preview is None else "preview")

    @rule(data=st.data())
    def begin_computing(self, data: st.DataObject) -> None:
        job, attempt, current = self.any_attempt(data)
        assert self.store.jobs.began(job.id, attempt) == current
        job.began |= current

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.report_finished(*self.any_attempt(data))

    @precondition(lambda self: self.overtaken())
    @rule(data=st.data())
    def stalled_worker_wakes(self, data: st.DataObject) -> None:
        job_id, attempt = data.draw(st.sampled_from(self.overtaken()))
        self.report_finished(self.model.jobs[job_id], attempt, False)

    def report_finished(self, job: ModelJob, attempt: int, current: bool) -> None:
        self.pictures += 1
        stored = self.store.jobs.get(job.id)
        picture = self.store.images.stage(
            stored, seed=0, png=b"%d" % self.pictures, width=1, height=1, record={}
        )
        assert self.store.jobs.finish(job.id, attempt, [picture]) == current
        if current:
            job.end("done")
            job.images.append(picture.id)

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        job, attempt, current = self.any_attempt(data)
        assert self.store.jobs.fail(job.id, attempt, "Code", "reason") == current
        if current:
            job.end("failed")

    @rule(data=st.data())
    def worker_died(self, data: st.DataObject) -> None:
        job, attempt, current = self.any_attempt(data)
        fate = self.store.jobs.worker_died(job.id, attempt, "reason")
        if current:
            job.die()
        assert fate == (job.status if current else None)

    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        job, attempt, current = self.any_attempt(data)
        assert self.store.jobs.hand_back(job.id, attempt) == current
        if current:
            job.go_back()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.model.jobs[data.draw(st.sampled_from(sorted(self.model.jobs)))]
        open_before = job.status in ("queued", "running")
        assert self.store.jobs.cancel(job.id) == open_before
        if open_before:
            job.end("cancelled")

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = type(self).open_again()
        running = [job for job in self.model.jobs.values() if job.status == "running"]
        for job in running:
            if job.began:
                job.die()
            else:
                job.go_back()
        recovered = self.store.jobs.recover()
        assert recovered.requeued == sum(job.status == "queued" for job in running)
        assert recovered.dead == sum(job.status == "dead" for job in running)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "store"):
            statuses = [job.status for job in self.model.jobs.values()]
            assert self.store.jobs.num_queued() == statuses.count("queued")

    def any_attempt(self, data: st.DataObject) -> tuple[ModelJob, int, bool]:
        """One attempt made so far, and whether it is the current one."""
        job_id, attempt = data.draw(st.sampled_from(self.attempts))
        job = self.model.jobs[job_id]
        return job, attempt, job.status == "running" and job.attempt == attempt

    def overtaken(self) -> list[tuple[str, int]]:
        """Attempts whose job is running again under a later one."""
        found = [(self.model.jobs[job_id], attempt) for job_id, attempt in self.attempts]
        return [(job.id, a) for job, a in found if job.status == "running" and job.attempt > a]

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.check_everything()
        finally:
            self.store.close()

    def check_everything(self) -> None:
        counts = self.store.jobs.count_by_status()
        for status in Status:
            expected = sum(job.status == status for job in self.model.jobs.values())
            assert counts[status] == expected
        for job in self.model.jobs.values():
            stored = self.store.jobs.get(job.id)
            assert (stored.status, stored.attempt) == (job.status, job.attempt)
            assert (stored.finished is not None) == stored.status.final
            events = self.store.jobs.events_after(job.id)
            assert [event.kind for event in events] == job.events
            assert [event.number for event in events] == list(range(1, len(events) + 1))
            assert [image.id for image in self.store.images.of_job(job.id)] == job.images
        if (following := self.model.next()) is not None:
            assert self.store.jobs.queue_position(following.id) == 1


def play(make_url: Callable[[], str], folder: Path, examples: int, *, fails: bool = False) -> None:
    """Runs the machine; where it is bound to fail, the first failure is enough."""
    url = make_url()

    def open_again() -> Store:
        clock = Clock()
        clock.now += len(made) * 1000.0
        made.append(clock)
        return open_store(folder, url, clock=clock, make_ids=seeded_ids(clock))

    def open_fresh() -> Store:
        make_url()
        return open_again()

    made: list[Clock] = []
    machine = type("Machine", (Queue,), {
        "open_fresh": staticmethod(open_fresh), "open_again": staticmethod(open_again),
    })  # fmt: skip
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate] if fails else [Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )


def test_p3_p4_p6_the_store_is_what_the_model_says(
    make_url: Callable[[], str], folder: Path, kind: str
) -> None:
    play(make_url, folder, NUM_EXAMPLES if kind == "sqlite" else 12)


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("check", ["attempt", "status"])
def test_control_without_half_of_the_check_the_model_disagrees(
    make_url: Callable[[], str], folder: Path, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(attempt: int) -> tuple[object, ...]:
        if check == "status":
            return (jobs_table.c.attempt == attempt,)
        return (jobs_table.c.status == Status.RUNNING,)

    monkeypatch.setattr(jobs_module, "is_current", half)
    with pytest.raises(AssertionError):
        play(make_url, folder, NUM_EXAMPLES, fails=True)
