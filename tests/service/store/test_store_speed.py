"""P18: with ten thousand queued jobs, submitting and claiming stay as fast as with none."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from sqlalchemy import delete, insert

from izograf.schema.request import GenerationRequest
from izograf.store import lines
from izograf.store.ids import Ids
from izograf.store.open import Store
from izograf.store.orders import QueueLimits
from izograf.store.tables import jobs, queue_lines

ORDER = GenerationRequest("scenes", {"type": "class", "class": "mountain"})
LIMITS = QueueLimits(total=100_000, per_owner=100_000)
NUM_QUEUED, NUM_OWNERS, NUM_CYCLES = 10_000, 200, 60


def fill(store: Store) -> None:
    """Ten thousand queued rows, as submit writes them, but at once."""
    new, owners = Ids(), [f"owner {number}" for number in range(NUM_OWNERS)]
    row = {
        "task": "generate", "model": "scenes", "request": ORDER.to_json(), "status": "queued",
        "priority": 0, "attempt": 0, "deaths": 0, "began": False, "inputs": {}, "result": {},
        "last_event": 0, "created": 0.0, "reason": "",
    }  # fmt: skip
    rows = [
        row | {"id": new.new("job"), "owner": owners[n % NUM_OWNERS]} for n in range(NUM_QUEUED)
    ]
    opened = [
        {"owner": owner, "priority": 0, "waiting": 0, "served": 0, "opened": rows[n]["id"]}
        for n, owner in enumerate(owners)
    ]

    def work(connection: object) -> None:
        connection.execute(delete(queue_lines))  # type: ignore[attr-defined]
        connection.execute(insert(jobs), rows)  # type: ignore[attr-defined]
        connection.execute(insert(queue_lines), opened)  # type: ignore[attr-defined]
        lines.recount(connection)  # type: ignore[arg-type]
        if not store.database.is_sqlite:  # what autovacuum does on a real server
            connection.exec_driver_sql("ANALYZE")  # type: ignore[attr-defined]

    store.database.write(work)


def cycle(store: Store) -> list[float]:
    """Seconds of submit, queue position and claim, which together leave the queue as it was."""
    times = [time.perf_counter()]
    job = store.jobs.submit("owner 7", "generate", ORDER, limits=LIMITS)
    times.append(time.perf_counter())
    store.jobs.queue_position(job.id)
    times.append(time.perf_counter())
    claim = store.jobs.claim_next()
    times.append(time.perf_counter())
    assert claim is not None
    return [later - earlier for earlier, later in pairwise(times)]


def fastest(store: Store) -> list[float]:
    """The shortest time of each over many cycles: a busy machine only ever adds time."""
    return [min(column) for column in zip(*(cycle(store) for _ in range(NUM_CYCLES)), strict=True)]


def test_p18_ten_thousand_waiting_jobs_do_not_matter(store: Store) -> None:
    empty = fastest(store)
    fill(store)
    full = fastest(store)
    submit, position, claim = (f / e for f, e in zip(full, empty, strict=True))
    assert submit < 2, f"submitting takes {submit:.1f} times as long"
    assert claim < 2, f"claiming takes {claim:.1f} times as long"
    assert position < 3, f"a queue position takes {position:.1f} times as long"


@pytest.mark.parametrize("kind", ["sqlite"])
def test_the_claim_uses_its_index(store: Store, kind: str) -> None:
    assert kind
    fill(store)
    plan = (
        "EXPLAIN QUERY PLAN SELECT id, attempt FROM jobs WHERE status = 'queued' AND priority = ? "
        "AND owner = ? ORDER BY id LIMIT 1"
    )
    with store.database.reading() as connection:
        steps = [row[3] for row in connection.exec_driver_sql(plan, (0, "owner 7"))]
    assert steps == ["SEARCH jobs USING INDEX ix_jobs_queued (priority=? AND owner=?)"]
