"""Promises P1 to P4 under every order of submit, claim, step, cancel, crash, outage and restart."""

from __future__ import annotations

from engine_support import make_job
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_dispatcher import Service

from izograf.engine.fake import Fault, FaultKind
from izograf.schema.job import MAX_ATTEMPTS, EventKind, Job, Status

FAULTS: tuple[FaultKind, ...] = ("crash", "error", "oom", "stall")
ENDS = {EventKind.DONE, EventKind.FAILED, EventKind.CANCELLED, EventKind.DEAD}


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[tuple[str, int], Fault] = {}
        self.kills = 0
        self.service = Service(
            lambda job, attempt: self.faults.get((job.id, attempt)), num_workers=2
        )
        self.final: dict[str, Status] = {}

    @rule(
        steps=st.integers(1, 12),
        faults=st.dictionaries(
            st.integers(1, 3), st.builds(Fault, st.sampled_from(FAULTS), st.integers(0, 11))
        ),
    )
    def submit(self, steps: int, faults: dict[int, Fault]) -> None:
        job = make_job(len(self.service.queue.rows), num_images=2, num_inference_steps=steps)
        self.faults |= {(job.id, attempt): fault for attempt, fault in faults.items()}
        self.service.submit(job)

    @rule(turns=st.integers(1, 12))
    def work(self, turns: int) -> None:
        for _ in range(turns):
            self.service.turn()

    @rule(seconds=st.floats(0.1, 8))
    def wait(self, seconds: float) -> None:
        self.service.clock.sleep(seconds)

    @precondition(lambda self: self.service.queue.rows)
    @rule(data=st.data(), told=st.booleans())
    def cancel(self, data: st.DataObject, told: bool) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.service.queue.rows)))
        if self.service.queue.cancel(job_id) and told:
            self.service.dispatcher.cancel(job_id)

    @rule(calls=st.integers(1, 5), committed=st.booleans(), turns=st.integers(0, 6))
    def lose_the_store(self, calls: int, committed: bool, turns: int) -> None:
        self.service.queue.away, self.service.queue.committed = calls, committed
        self.work(turns)

    @rule(turns=st.integers(0, 3))
    def kill(self, turns: int) -> None:
        self.kills += 1
        self.service.boot()
        self.work(turns)

    @rule(grace=st.sampled_from([0.0, 0.3, 5.0]))
    def restart(self, grace: float) -> None:
        self.service.queue.away = 0
        self.service.dispatcher.stop(grace)
        self.service.boot()

    @invariant()
    def nothing_final_changes(self) -> None:
        for job_id, status in self.final.items():
            assert self.service.queue.status(job_id) is status
        for job_id, row in self.service.queue.rows.items():
            if row.job.status.final:
                self.final[job_id] = row.job.status

    @invariant()
    def one_result_at_most_and_only_of_done_jobs(self) -> None:
        for row in self.service.queue.rows.values():
            assert len(row.images) == (row.job.status is Status.DONE)
            assert sum(kind in ENDS for kind, _ in row.events) == row.job.status.final
            assert row.deaths <= MAX_ATTEMPTS
            for images in row.images:
                assert [image.seed for image in images] == [0, 1]

    @invariant()
    def steps_only_go_back_with_a_new_attempt(self) -> None:
        for row in self.service.queue.rows.values():
            seen = [(d["attempt"], d["step"]) for _, d in row.events if "step" in d]
            assert seen == sorted(seen)

    def teardown(self) -> None:
        self.service.queue.away = 0
        self.service.run()
        self.nothing_final_changes()
        self.one_result_at_most_and_only_of_done_jobs()
        for row in self.service.queue.rows.values():
            self._check_end(row.job)

    def _check_end(self, job: Job) -> None:
        planned = [fault for (job_id, _), fault in self.faults.items() if job_id == job.id]
        if job.status is Status.FAILED:
            assert any(fault.kind in ("error", "oom") for fault in planned)
        if job.status is Status.DEAD:
            fatal = sum(fault.kind in ("crash", "stall") for fault in planned)
            assert fatal + self.kills >= MAX_ATTEMPTS


QueueMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestQueue = QueueMachine.TestCase
