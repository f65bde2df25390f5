"""The queue's contract, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event

from izograf.schema.errors import Conflict, InvalidInput, NotFound, QueueFull, StorageError
from izograf.schema.job import EventKind, Job, Status, StoredImage
from izograf.schema.request import GenerationRequest
from izograf.store import jobs as jobs_module
from izograf.store.open import Store
from izograf.store.orders import QueueLimits
from izograf.store.tables import jobs as jobs_table

ESTIMATED = "estimated: by hand"

Request = Callable[..., GenerationRequest]


def claimed(store: Store) -> tuple[Job, int]:
    claim = store.jobs.claim_next()
    assert claim is not None
    return claim


def picture(store: Store, job: Job, seed: int = 0) -> StoredImage:
    png = f"{job.id} {seed}".encode()
    return store.images.stage(job, seed=seed, png=png, width=1, height=1, record={})


def kinds(store: Store, job: Job) -> list[EventKind]:
    events = store.jobs.events_after(job.id)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    return [event.kind for event in events]


def test_a_job_from_submit_to_done(store: Store, request_for: Request) -> None:
    request = request_for(num_images=2, seed=2**63 - 9, options={"steps": 3, "x": "\0\ud800é"})
    job = store.jobs.submit("ann", "generate", request, priority=3)
    assert (job.status, job.owner, job.priority, job.attempt) == (Status.QUEUED, "ann", 3, 0)
    assert store.jobs.get(job.id) == job
    assert job.request == request

    running, attempt = claimed(store)
    assert (running.id, running.status, attempt, running.attempt) == (job.id, "running", 1, 1)
    assert running.started is not None
    assert store.jobs.record_step(job.id, 1, 1, 3)
    assert store.jobs.record_step(job.id, 1, 2, 3, preview=b"png")
    assert store.jobs.events_after(job.id, 3)[0].data["png"] == "cG5n"
    pictures = [picture(store, job, seed) for seed in (1, 2)]
    assert store.jobs.finish(job.id, 1, pictures, seconds=1.5, joules=2.0)

    done = store.jobs.get(job.id)
    assert done.status is Status.DONE
    assert done.finished is not None
    assert done.started == running.started
    assert kinds(store, job) == ["queued", "started", "step", "preview", "done"]
    last = store.jobs.events_after(job.id, 4)[0]
    assert last.data["images"] == [one.id for one in pictures]
    assert last.data["seconds"] == 1.5
    assert "png" not in store.jobs.events_after(job.id, 3)[0].data, "previews go with the job"
    assert store.images.of_job(job.id) == tuple(pictures)
    assert store.jobs.claim_next() is None


def test_the_same_key_and_body_is_the_same_job(store: Store, request_for: Request) -> None:
    first = store.jobs.submit("ann", "generate", request_for(), idempotency_key="k")
    claimed(store)
    again = store.jobs.submit("ann", "generate", request_for(), idempotency_key="k")
    assert again == store.jobs.get(first.id)
    other = store.jobs.submit("bob", "generate", request_for(), idempotency_key="k")
    assert other.id != first.id
    for body in ({"seed": 1}, {"name": "forest"}):
        with pytest.raises(Conflict, match="idempotency key"):
            store.jobs.submit("ann", "generate", request_for(**body), idempotency_key="k")
    assert store.jobs.num_queued() == 1


@pytest.mark.parametrize("change", [{"priority": 1}, {"task": "verify"}])
def test_priority_and_task_belong_to_the_body_of_an_idempotency_key(
    store: Store, request_for: Request, change: dict[str, Any]
) -> None:
    order: dict[str, Any] = {"task": "generate", "request": request_for(), "idempotency_key": "k"}
    first = store.jobs.submit("ann", **order)
    with pytest.raises(Conflict, match="idempotency key"):
        store.jobs.submit("ann", **(order | change))
    assert store.jobs.submit("ann", **order).id == first.id
    assert store.jobs.num_queued() == 1


def test_one_key_from_many_threads_is_one_job(store: Store, request_for: Request) -> None:
    barrier = threading.Barrier(6)

    def submit(_: int) -> str:
        barrier.wait()
        return store.jobs.submit("ann", "generate", request_for(), idempotency_key="k").id

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(submit, range(6)))) == 1
    assert store.jobs.num_queued() == 1


def test_limits_refuse_the_next_job_but_not_a_repeated_one(
    store: Store, request_for: Request
) -> None:
    limits = QueueLimits(total=3, per_owner=2)
    for key in ("1", "2"):
        store.jobs.submit("ann", "generate", request_for(), idempotency_key=key, limits=limits)
    with pytest.raises(QueueFull, match="You have 2"):
        store.jobs.submit("ann", "generate", request_for(), limits=limits)
    store.jobs.submit("bob", "generate", request_for(), limits=limits)
    with pytest.raises(QueueFull, match="queue is full"):
        store.jobs.submit("eve", "generate", request_for(), limits=limits)
    store.jobs.submit("ann", "generate", request_for(), idempotency_key="1", limits=limits)
    claimed(store)
    store.jobs.submit("eve", "generate", request_for(), limits=limits)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"priority": 2**40}, "priority"),
        ({"owner": "a\0"}, "owner"),
        ({"owner": ""}, "owner"),
        ({"request": GenerationRequest("m" * 501)}, "model"),
        ({"request": GenerationRequest("\ud800")}, "model"),
        ({"idempotency_key": "k" * 256}, "idempotency key"),
        ({"request": GenerationRequest("m", options={"x": float("nan")})}, "JSON"),
    ],
)
def test_p8_what_cannot_be_stored_is_the_clients_mistake(
    store: Store, arguments: dict[str, object], complaint: str
) -> None:
    order = {"owner": "ann", "task": "generate", "request": GenerationRequest("m")} | arguments
    with pytest.raises(InvalidInput, match=complaint):
        store.jobs.submit(**order)  # type: ignore[arg-type]


@pytest.mark.parametrize("job_id", ["job_" + "0" * 26, "job_x", "../x", "\0", "\ud800"])
def test_an_unknown_job_is_not_found(store: Store, job_id: str) -> None:
    for ask in (store.jobs.get, store.jobs.cancel, store.jobs.queue_position):
        with pytest.raises(NotFound):
            ask(job_id)


def test_a_job_of_somebody_else_is_not_found(store: Store, request_for: Request) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    with pytest.raises(NotFound):
        store.jobs.get(job.id, owner="bob")
    with pytest.raises(NotFound):
        store.jobs.cancel(job.id, owner="bob")
    assert store.jobs.get(job.id, owner="ann").status is Status.QUEUED


def test_lists_are_complete_and_stable_while_jobs_come(store: Store, request_for: Request) -> None:
    made = []
    for number in range(7):
        owner, model = ("ann", "bob")[number % 2], ("cats", "dogs")[number // 4]
        made.append(store.jobs.submit(owner, "generate", request_for(model)).id)
    page = store.jobs.list_jobs(limit=3)
    store.jobs.submit("ann", "generate", request_for())
    seen = [job.id for job in page.items]
    while page.next_cursor is not None:
        page = store.jobs.list_jobs(limit=3, cursor=page.next_cursor)
        seen += [job.id for job in page.items]
    assert seen == made[::-1]
    assert len(store.jobs.list_jobs(owner="ann", model="cats").items) == 2
    job, _ = claimed(store)
    assert [one.id for one in store.jobs.list_jobs(status=Status.RUNNING).items] == [job.id]
    assert store.jobs.list_jobs(owner="nobody").items == ()


@pytest.mark.parametrize("arguments", [{"limit": 0}, {"limit": 201}, {"cursor": "x' OR 1=1"}])
def test_a_bad_page_is_refused(store: Store, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        store.jobs.list_jobs(**arguments)  # type: ignore[arg-type]


def test_p2_a_dead_worker_costs_an_attempt_and_three_cost_the_job(
    store: Store, request_for: Request
) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    for attempt, fate in ((1, Status.QUEUED), (2, Status.QUEUED), (3, Status.DEAD)):
        assert claimed(store)[1] == attempt
        assert store.jobs.worker_died(job.id, attempt, "killed by signal 9") is fate
        assert store.jobs.worker_died(job.id, attempt, "again") is None
    dead = store.jobs.get(job.id)
    assert (dead.status, dead.reason, dead.attempt) == (Status.DEAD, "killed by signal 9", 3)
    assert kinds(store, job) == ["queued", *["started", "retried"] * 2, "started", "dead"]
    assert store.jobs.claim_next() is None


def test_handing_back_is_no_death(store: Store, request_for: Request) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    for attempt in range(1, 6):
        assert claimed(store)[1] == attempt
        assert store.jobs.hand_back(job.id, attempt)
        assert not store.jobs.hand_back(job.id, attempt)
    assert store.jobs.get(job.id).started is None
    assert claimed(store)[0].status is Status.RUNNING


def test_failing_is_final_and_says_why(store: Store, request_for: Request) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    claimed(store)
    assert not store.jobs.fail(job.id, 2, "InvalidInput", "no")
    assert store.jobs.fail(job.id, 1, "InvalidInput", "No such\0 class.")
    assert store.jobs.get(job.id).reason == "No such\N{REPLACEMENT CHARACTER} class."
    assert store.jobs.events_after(job.id, 2)[0].data["code"] == "InvalidInput"
    assert not store.jobs.finish(job.id, 1, [])


@pytest.mark.parametrize("start", [False, True])
def test_p4_cancel_is_final(store: Store, request_for: Request, start: bool) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    if start:
        claimed(store)
    assert store.jobs.cancel(job.id, owner="ann")
    assert not store.jobs.cancel(job.id)
    late = picture(store, job)
    assert not store.jobs.finish(job.id, 1, [late])
    assert not store.jobs.record_step(job.id, 1, 1, 9)
    assert not store.jobs.fail(job.id, 1, "x", "y")
    assert store.jobs.worker_died(job.id, 1, "x") is None
    assert store.jobs.get(job.id).status is Status.CANCELLED
    assert kinds(store, job)[-1] == "cancelled"
    assert store.images.of_job(job.id) == ()
    assert (store.jobs.num_queued(), store.jobs.claim_next()) == (0, None)


def stalled_worker(store: Store, request: GenerationRequest) -> tuple[bool, bool, int]:
    """What a worker that wakes after its job was run again achieves: (late, current, images)."""
    job = store.jobs.submit("ann", "generate", request)
    claimed(store)
    store.jobs.worker_died(job.id, 1, "stalled")
    claimed(store)
    late = store.jobs.finish(job.id, 1, [picture(store, job, 1)])
    current = store.jobs.finish(job.id, 2, [picture(store, job, 2)])
    return late, current, len(store.images.of_job(job.id))


def test_p3_a_stalled_worker_changes_nothing(store: Store, request_for: Request) -> None:
    assert stalled_worker(store, request_for()) == (False, True, 1)


def test_p3_control_without_the_attempt_the_stalled_worker_wins(
    store: Store, request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = (jobs_table.c.status == Status.RUNNING,)
    monkeypatch.setattr(jobs_module, "is_current", lambda _attempt: running)
    assert stalled_worker(store, request_for()) == (True, False, 1)


def test_p3_control_without_the_check_there_are_two_results(
    store: Store, request_for: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "is_current", lambda _attempt: ())
    assert stalled_worker(store, request_for()) == (True, True, 2)


def test_no_row_without_its_file(store: Store, request_for: Request) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    claimed(store)
    lost = picture(store, job)
    store.files.path(lost.sha256).unlink()
    with pytest.raises(StorageError, match="not on disk"):
        store.jobs.finish(job.id, 1, [picture(store, job, 1), lost])
    assert store.jobs.get(job.id).status is Status.RUNNING
    assert store.images.of_job(job.id) == ()
    assert store.jobs.finish(job.id, 1, [picture(store, job)])


def test_a_start_queues_again_what_was_running(store: Store, request_for: Request) -> None:
    worn, fresh, waiting = (store.jobs.submit("ann", "generate", request_for()) for _ in range(3))
    for attempt in (1, 2):
        claimed(store)
        store.jobs.worker_died(worn.id, attempt, "x")
    for attempt in (3, 1):
        assert store.jobs.began(claimed(store)[0].id, attempt)
    recovered = store.jobs.recover()
    assert (recovered.requeued, recovered.dead) == (1, 1)
    assert store.jobs.get(worn.id).status is Status.DEAD
    assert store.jobs.get(fresh.id).attempt == 1
    assert kinds(store, fresh)[-1] == "retried"
    assert [claimed(store)[0].id for _ in range(2)] == [fresh.id, waiting.id]


def test_a_job_that_was_only_claimed_is_not_charged_with_a_crash(
    store: Store, request_for: Request
) -> None:
    """The service may die many times while a neighbour kills it."""
    job = store.jobs.submit("ann", "generate", request_for())
    for _ in range(5):
        claimed(store)
        assert store.jobs.requeue_running().requeued == 1
    _, attempt = claimed(store)
    assert not store.jobs.began(job.id, attempt - 1)
    for number in range(3):
        assert store.jobs.began(job.id, attempt + number)
        store.jobs.requeue_running()
        store.jobs.claim_next()
    assert store.jobs.get(job.id).status is Status.DEAD


def test_what_an_earlier_attempt_began_is_not_charged_to_the_next(
    store: Store, request_for: Request
) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    for attempt in (1, 2):
        claimed(store)
        assert store.jobs.began(job.id, attempt)
        assert store.jobs.worker_died(job.id, attempt, "x") is Status.QUEUED
    claimed(store)  # a third death would be the last
    assert store.jobs.requeue_running().requeued == 1
    assert store.jobs.get(job.id).status is Status.QUEUED


def test_a_step_shows_that_a_worker_took_the_job_up(store: Store, request_for: Request) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    for attempt in (1, 2, 3):
        claimed(store)
        store.jobs.record_step(job.id, attempt, 1, 9)
        store.jobs.requeue_running()
    assert store.jobs.get(job.id).status is Status.DEAD


def test_recover_counts_the_lines_anew(store: Store, request_for: Request) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    lie = "UPDATE queue_lines SET waiting = 0"
    store.database.write(lambda connection: connection.exec_driver_sql(lie) and None)
    assert store.jobs.claim_next() is None
    store.jobs.recover()
    assert claimed(store)[0].id == job.id


def test_inputs_and_result_are_kept_with_the_job(store: Store, request_for: Request) -> None:
    inputs = {"picture": store.files.write(b"a picture")}
    job = store.jobs.submit("ann", "verify", request_for(), inputs=inputs)
    assert (job.inputs, job.result, job.seconds, job.joules) == (inputs, {}, None, None)
    running, attempt = claimed(store)
    assert running.inputs == inputs
    found = {"verdict": "close", "psnr": 51.5, "remarks": ["с тех пор"]}
    assert store.jobs.finish(
        job.id, attempt, [], seconds=0.5, joules=3.0, energy_method=ESTIMATED, result=found
    )
    done = store.jobs.get(job.id)
    assert done.energy_method == ESTIMATED
    assert (done.inputs, done.result, done.seconds, done.joules) == (inputs, found, 0.5, 3.0)
    told = store.jobs.events_after(job.id)[-1].data
    assert told["result"] == found
    assert (told["joules"], told["energy_method"]) == (3.0, ESTIMATED)


def test_joules_are_summed_by_how_they_came_about(store: Store, request_for: Request) -> None:
    assert store.jobs.joules_by_method() == {}
    told = [(1.0, ESTIMATED), (2.5, "estimated: otherwise"), (4.0, "measured: RAPL"),
            (None, "unknown: no power reading of mps"), (None, "")]  # fmt: skip
    for joules, method in told:
        job = store.jobs.submit("ann", "generate", request_for())
        _, attempt = claimed(store)
        assert store.jobs.finish(job.id, attempt, [], joules=joules, energy_method=method)
        assert store.jobs.get(job.id).energy_method == method
    store.jobs.submit("ann", "generate", request_for())
    assert store.jobs.joules_by_method() == {"estimated": 3.5, "measured": 4.0}


@pytest.mark.parametrize(
    "inputs",
    [
        {"picture": "0" * 64}, {"picture": "../../etc/passwd"}, {"picture": ""},
        {"": "0" * 64}, {"x" * 41: "0" * 64}, {"\0": "0" * 64},
        {f"picture {n}": "0" * 64 for n in range(17)},
    ],
)  # fmt: skip
def test_p8_an_input_that_is_not_in_the_store_is_refused(
    store: Store, request_for: Request, inputs: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput):
        store.jobs.submit("ann", "verify", request_for(), inputs=inputs)
    assert store.jobs.num_queued() == 0


def test_inputs_belong_to_the_body_of_an_idempotency_key(
    store: Store, request_for: Request
) -> None:
    one, other = ({"picture": store.files.write(content)} for content in (b"1", b"2"))
    job = store.jobs.submit("ann", "verify", request_for(), idempotency_key="k", inputs=one)
    with pytest.raises(Conflict):
        store.jobs.submit("ann", "verify", request_for(), idempotency_key="k", inputs=other)
    store.files.path(one["picture"]).unlink()
    same = store.jobs.submit("ann", "verify", request_for(), idempotency_key="k", inputs=one)
    assert same.id == job.id


def test_the_last_events_of_many_jobs_are_one_question(store: Store, request_for: Request) -> None:
    first, second = (store.jobs.submit("ann", "generate", request_for()) for _ in range(2))
    claimed(store)
    store.jobs.record_step(first.id, 1, 1, 9)
    asked = [first.id, second.id, "job_" + "0" * 26, "nonsense"]
    assert store.jobs.last_events(asked) == {first.id: 3, second.id: 1}
    assert store.jobs.last_events([]) == {}


def test_p6_what_follows_many_positions_is_one_question(store: Store, request_for: Request) -> None:
    first, second, still = (store.jobs.submit("ann", "generate", request_for()) for _ in range(3))
    claimed(store)
    for step in range(1, 4):
        store.jobs.record_step(first.id, 1, step, 9, b"png" if step == 2 else None)
    positions = [
        (first.id, 0), (first.id, 3), (second.id, 0), (still.id, 1), (first.id, 99),
        ("job_" + "0" * 26, 0), ("non'sense", 0),
    ]  # fmt: skip
    asked: list[str] = []

    def executed(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    listening = (store.database.engine, "before_cursor_execute", executed)
    event.listen(*listening)
    found = store.jobs.events_since(positions, limit=3)
    event.remove(*listening)
    assert len([statement for statement in asked if "SELECT" in statement]) == 1
    numbers = {position: [e.number for e in following] for position, following in found.items()}
    assert numbers == {(first.id, 0): [1, 2, 3], (first.id, 3): [4, 5], (second.id, 0): [1]}
    assert found[first.id, 0] == store.jobs.events_after(first.id, 0, limit=3)
    assert found[first.id, 3][0].data["png"] == "cG5n"
    assert store.jobs.events_since([]) == {}


def test_counts(store: Store, request_for: Request) -> None:
    for owner in ("ann", "ann", "bob"):
        store.jobs.submit(owner, "generate", request_for())
    claimed(store)
    counts = store.jobs.count_by_status()
    assert {k: v for k, v in counts.items() if v} == {Status.QUEUED: 2, Status.RUNNING: 1}
    assert (store.jobs.num_queued(), store.jobs.num_queued("ann")) == (2, 1)


@pytest.mark.parametrize("number", [-5, 0, 2, 99, 2**70])
def test_p6_events_resume_anywhere(store: Store, request_for: Request, number: int) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    claimed(store)
    for step in range(1, 4):
        store.jobs.record_step(job.id, 1, step, 3)
    after = store.jobs.events_after(job.id, number, limit=2)
    first = max(number, 0) + 1
    assert [event.number for event in after] == [n for n in (first, first + 1) if n <= 5]
    with pytest.raises(InvalidInput):
        store.jobs.events_after(job.id, 0, limit=0)


def test_p6_events_from_many_threads_have_no_gap(store: Store, request_for: Request) -> None:
    job = store.jobs.submit("ann", "generate", request_for())
    claimed(store)

    def report(thread: int) -> None:
        for step in range(5):
            assert store.jobs.record_step(job.id, 1, thread * 5 + step, 20)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(report, range(4)))
    assert kinds(store, job) == ["queued", "started", *["step"] * 20]


def test_concurrent_claims_never_give_the_same_job(store: Store, request_for: Request) -> None:
    made = {store.jobs.submit("abc"[n % 3], "generate", request_for()).id for n in range(30)}

    def claim_all(_: int) -> list[str]:
        taken = []
        while (claim := store.jobs.claim_next()) is not None:
            taken.append(claim[0].id)
        return taken

    with ThreadPoolExecutor(4) as threads:
        taken = [job_id for part in threads.map(claim_all, range(4)) for job_id in part]
    assert sorted(taken) == sorted(made)


def test_purging_keeps_what_is_unfinished_or_has_pictures(
    store: Store, request_for: Request
) -> None:
    kept, gone = (store.jobs.submit("ann", "generate", request_for()) for _ in range(2))
    claimed(store)
    store.jobs.finish(kept.id, 1, [picture(store, kept)])
    store.jobs.cancel(gone.id)
    again = store.jobs.submit("ann", "generate", request_for(), idempotency_key="k")
    assert store.jobs.purge(finished_before=0, keys_before=0) == 0
    assert store.jobs.purge(finished_before=2e9, keys_before=2e9) == 1
    assert store.jobs.get(kept.id).status is Status.DONE
    assert store.jobs.events_after(gone.id) == ()
    new = store.jobs.submit("ann", "generate", request_for(), idempotency_key="k")
    assert new.id != again.id
