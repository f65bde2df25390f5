"""The queue: jobs, who is next, and what happened to each. The row is the truth.

Every method is one transaction; when it returns, its change is on disk. A worker's report counts
only while its attempt is the current one (promise P3): `is_current` is the whole check.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, exc, exists, func, select, update

from izograf.schema.errors import InvalidInput
from izograf.schema.job import MAX_ATTEMPTS, EventKind, Job, JobEvent, Status, StoredImage
from izograf.schema.request import GenerationRequest
from izograf.store import events, ids, lines, orders
from izograf.store.database import Database
from izograf.store.files import ImageFiles
from izograf.store.images import insert_images
from izograf.store.orders import QueueLimits, build_job
from izograf.store.pages import Page, fetch_page
from izograf.store.tables import idempotency_keys, images, jobs
from izograf.store.text import checked_text, cleaned_text

MAX_EVENTS = 1000  # of one answer
LONGEST_REASON = 2000
SERVICE_STOPPED = "The service stopped while the job was running."

_CLAIMS = 0x1207_0001  # PostgreSQL's lock under which dispatchers take turns


@dataclass(frozen=True)
class Recovered:
    """What a start found running: jobs queued again, and jobs that used up their attempts."""

    requeued: int
    dead: int


def is_current(attempt: int) -> tuple[ColumnElement[bool], ...]:
    """What must hold of a job's row for a report of `attempt` to count."""
    return (jobs.c.status == Status.RUNNING, jobs.c.attempt == attempt)


class JobStore:
    """The jobs of one database; safe to share between threads."""

    def __init__(
        self,
        database: Database,
        files: ImageFiles,
        *,
        make_ids: ids.Ids | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._files = files
        self._ids = make_ids or ids.Ids(clock)
        self._clock = clock

    def submit(
        self,
        owner: str,
        task: str,
        request: GenerationRequest,
        *,
        priority: int = 0,
        idempotency_key: str | None = None,
        limits: QueueLimits | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> Job:
        """The accepted job; the same one again for the same owner, key and body.

        `inputs` names files that were written before (`Store.files.write`), by their sha256; the
        sweep keeps them until the job has ended.

        Raises:
            InvalidInput: a text or number that cannot be stored, an input that is not there.
            Conflict: the owner used the key for another body.
            QueueFull: `limits` are reached.
        """
        order = orders.checked_order(owner, task, request, priority, idempotency_key, inputs or {})
        job_id, now = self._ids.new(ids.JOB), self._clock()

        def work(connection: Connection) -> Job:
            return orders.accept(connection, order, job_id, now, limits, self._require_files)

        try:
            return self._database.write(work)
        except exc.IntegrityError:  # another submit with this key was committed in between
            return self._database.write(work)

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """The job; with `owner`, only if it is theirs.

        Raises:
            NotFound: there is none.
        """
        with self._database.reading() as connection:
            return build_job(_row(connection, job_id, owner))

    def list_jobs(
        self,
        *,
        owner: str | None = None,
        status: Status | None = None,
        model: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Job]:
        """Jobs, newest first; `limit` from 1 to 200."""
        query = select(jobs)
        for column, value in ((jobs.c.owner, owner), (jobs.c.model, model)):
            if value is not None:
                checked_text(f"The {column.name}", value, longest=500)
                query = query.where(column == value)
        if status is not None:
            query = query.where(jobs.c.status == status)
        with self._database.reading() as connection:
            return fetch_page(connection, query, jobs, ids.JOB, cursor, limit, build_job)

    def claim_next(self, now: float | None = None) -> tuple[Job, int] | None:
        """The job whose turn it is, now running, and its attempt; None if none waits.

        No two callers, in whatever thread, process or machine, are given the same attempt.
        """
        at = self._clock() if now is None else now

        def work(connection: Connection) -> tuple[Job, int] | None:
            # fairness needs one order of all claims, so on PostgreSQL dispatchers take turns;
            # a job that somebody is cancelling right now is stepped over instead of waited for
            self._database.advisory_lock(connection, _CLAIMS)
            for owner, priority in lines.in_turn(connection):
                first = connection.execute(
                    select(jobs.c.id, jobs.c.attempt)
                    .where(lines.IS_QUEUED, jobs.c.priority == priority, jobs.c.owner == owner)
                    .order_by(jobs.c.id)
                    .limit(1)
                    .with_for_update(skip_locked=True)
                ).one_or_none()
                if first is None:
                    continue
                attempt = first.attempt + 1
                row = events.change(
                    connection, first.id, (lines.IS_QUEUED,), EventKind.STARTED, at,
                    {"attempt": attempt}, status=Status.RUNNING, attempt=attempt, started=at,
                    began=False,
                )  # fmt: skip
                if row is not None:
                    lines.serve(connection, owner, priority)
                    return build_job(row), attempt
            return None

        return self._database.write(work)

    def began(self, job_id: str, attempt: int) -> bool:
        """Notes that a worker took the attempt up; False if it is not current.

        Only then is the job charged with a crash that nobody reported (`requeue_running`).
        """
        change = update(jobs).where(jobs.c.id == job_id, *is_current(attempt)).values(began=True)
        return self._database.write(lambda c: c.execute(change).rowcount == 1)

    def record_step(
        self, job_id: str, attempt: int, step: int, num_steps: int, preview: bytes | None = None
    ) -> bool:
        """Records progress, with a small PNG if given; False if the attempt is not current.

        The PNG is in the event's data as base64 under `png` until the job ends.
        """
        kind = EventKind.STEP if preview is None else EventKind.PREVIEW
        data = {"attempt": attempt, "step": step, "num_steps": num_steps}
        return self._report(job_id, attempt, kind, data, preview=preview, began=True)

    def finish(
        self,
        job_id: str,
        attempt: int,
        pictures: Sequence[StoredImage],
        *,
        seconds: float | None = None,
        joules: float | None = None,
        energy_method: str = "",
        result: Mapping[str, Any] | None = None,
    ) -> bool:
        """Makes the pictures and `result` (JSON) the job's; False, and nothing changes, unless
        current.

        Raises:
            StorageError: a picture's file is not on disk (see `ImageStore.stage`).
        """
        data = {
            "images": [picture.id for picture in pictures], "attempt": attempt,
            "seconds": seconds, "joules": joules, "energy_method": energy_method or None,
            "result": dict(result or {}),
        }  # fmt: skip
        now = self._clock()

        def work(connection: Connection) -> bool:
            row = events.change(
                connection, job_id, is_current(attempt), EventKind.DONE, now, data,
                status=Status.DONE, finished=now, seconds=seconds, joules=joules,
                energy_method=data["energy_method"], result=data["result"],
            )  # fmt: skip
            if row is None:
                return False
            self._files.lock(self._database, connection, shared=True)
            insert_images(connection, self._files, row.id, row.owner, attempt, pictures)
            events.forget_previews(connection, job_id)
            return True

        return self._database.write(work)

    def fail(self, job_id: str, attempt: int, code: str, reason: str) -> bool:
        """Ends the job because its request cannot be carried out; False unless current."""
        sentence = cleaned_text(reason, longest=LONGEST_REASON)
        data = {"code": code, "reason": sentence, "attempt": attempt}
        return self._report(
            job_id, attempt, EventKind.FAILED, data,
            status=Status.FAILED, finished=self._clock(), reason=sentence,
        )  # fmt: skip

    def worker_died(self, job_id: str, attempt: int, reason: str) -> Status | None:
        """Queues the job again, or makes it `dead` when its attempts are used up.

        Returns the new status; None, and nothing changes, if the attempt is not current.
        """
        sentence = cleaned_text(reason, longest=LONGEST_REASON)
        now = self._clock()

        def work(connection: Connection) -> Status | None:
            row = connection.execute(
                select(jobs).where(jobs.c.id == job_id, *is_current(attempt)).with_for_update()
            ).one_or_none()
            return None if row is None else _count_death(connection, row, now, sentence)

        return self._database.write(work)

    def hand_back(self, job_id: str, attempt: int) -> bool:
        """Queues a job again whose worker was stopped in good order; that is not a death.

        False, and nothing changes, if the attempt is not current.
        """
        now = self._clock()
        data = {"attempt": attempt, "reason": SERVICE_STOPPED}

        def work(connection: Connection) -> bool:
            row = events.change(
                connection, job_id, is_current(attempt), EventKind.RETRIED, now, data,
                status=Status.QUEUED, started=None,
            )  # fmt: skip
            if row is not None:
                lines.join(connection, job_id, row.owner, row.priority)
            return row is not None

        return self._database.write(work)

    def cancel(self, job_id: str, *, owner: str | None = None) -> bool:
        """Ends the job for good, whatever a worker reports afterwards; False if it had ended.

        Raises:
            NotFound: there is no such job, or it is not `owner`'s.
        """
        now = self._clock()

        def work(connection: Connection) -> bool:
            before = _row(connection, job_id, owner, lock=True)
            if Status(before.status).final:
                return False
            events.change(
                connection, job_id, (), EventKind.CANCELLED, now, {},
                status=Status.CANCELLED, finished=now,
            )  # fmt: skip
            events.forget_previews(connection, job_id)
            if before.status == Status.QUEUED:
                lines.leave(connection, before.owner, before.priority)
            return True

        return self._database.write(work)

    def requeue_running(self) -> Recovered:
        """Queues every running job again, for the one dispatcher before its first claim.

        A job that a worker had taken up is charged with a death; one that was only claimed is not.
        Safe to kill: each job is its own transaction.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                select(jobs.c.id, jobs.c.attempt, jobs.c.began)
                .where(jobs.c.status == Status.RUNNING)
                .order_by(jobs.c.id)
            ).all()
        fates = [self._fate(row.id, row.attempt, row.began) for row in rows]
        return Recovered(fates.count(Status.QUEUED), fates.count(Status.DEAD))

    def _fate(self, job_id: str, attempt: int, began: bool) -> Status | None:
        """The status that a job found running has now; None if it changed meanwhile."""
        if began:
            return self.worker_died(job_id, attempt, SERVICE_STOPPED)
        return Status.QUEUED if self.hand_back(job_id, attempt) else None

    def recover(self) -> Recovered:
        """`requeue_running`, and the lines of the queue counted anew: what a start does."""
        recovered = self.requeue_running()
        self._database.write(lines.recount)
        return recovered

    def next_in_turn(self, limit: int, owner: str | None = None) -> tuple[Job, ...]:
        """The queued jobs that come next if nobody else submits; of one owner or of all."""
        with self._database.reading() as connection:
            wanted = lines.upcoming(connection, limit, owner)
            rows = connection.execute(select(jobs).where(jobs.c.id.in_(wanted)))
            found = {row.id: build_job(row) for row in rows}
        return tuple(found[job_id] for job_id in wanted if job_id in found)

    def queue_position(self, job_id: str) -> int | None:
        """When the job will be claimed if nobody else submits: 1 is next; None if not queued."""
        with self._database.reading() as connection:
            row = _row(connection, job_id, None)
            if row.status != Status.QUEUED:
                return None
            return lines.position(connection, job_id, row.owner, row.priority)

    def num_queued(self, owner: str | None = None) -> int:
        """How many jobs wait, of one owner or of all; fast however many there are."""
        with self._database.reading() as connection:
            return lines.num_waiting(connection, owner)

    def count_by_status(self) -> Mapping[Status, int]:
        """How many jobs there are in every status."""
        query = select(jobs.c.status, func.count()).group_by(jobs.c.status)
        with self._database.reading() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(query)}
        return {status: found.get(status, 0) for status in Status}

    def joules_by_method(self) -> Mapping[str, float]:
        """The joules of all kept jobs: measured, estimated; only what there is any of."""
        query = (
            select(jobs.c.energy_method, func.sum(jobs.c.joules))
            .where(jobs.c.joules.is_not(None))
            .group_by(jobs.c.energy_method)
        )
        found: dict[str, float] = {}
        with self._database.reading() as connection:
            for method, joules in connection.execute(query):
                kind = (method or "unknown").partition(":")[0]
                found[kind] = found.get(kind, 0.0) + float(joules)
        return found

    def events_after(
        self, job_id: str, number: int = 0, limit: int = MAX_EVENTS
    ) -> tuple[JobEvent, ...]:
        """At most `limit` events of a job that follow event `number`, oldest first."""
        if not 1 <= limit <= MAX_EVENTS:
            raise InvalidInput(f"limit must be from 1 to {MAX_EVENTS}, got {limit}.")
        position = (ids.require_id(ids.JOB, job_id), min(max(number, 0), 2**31 - 1 - limit))
        return self.events_since([position], limit).get(position, ())

    def events_since(
        self, positions: Collection[events.Position], limit: int = MAX_EVENTS
    ) -> Mapping[events.Position, tuple[JobEvent, ...]]:
        """At most `limit` events that follow each position, oldest first; one question.

        A position that nothing follows is left out.
        """
        with self._database.reading() as connection:
            return events.since(connection, positions, limit)

    def last_events(self, job_ids: Collection[str]) -> Mapping[str, int]:
        """The number of the last event of each of these jobs that exists; one question."""
        query = select(jobs.c.id, jobs.c.last_event).where(jobs.c.id.in_(job_ids))
        with self._database.reading() as connection:
            return {row.id: row.last_event for row in connection.execute(query)}

    def purge(self, *, finished_before: float, keys_before: float, limit: int = 1000) -> int:
        """Forgets old idempotency keys, and old ended jobs that left no picture.

        Returns the number of jobs deleted, at most `limit`; call again while it is `limit`.
        """
        old = (
            select(jobs.c.id)
            .where(
                jobs.c.status.not_in((Status.QUEUED, Status.RUNNING)),
                jobs.c.finished < finished_before,
                ~exists().where(images.c.job_id == jobs.c.id),
            )
            .limit(limit)
        )

        def work(connection: Connection) -> int:
            keys = idempotency_keys
            connection.execute(delete(keys).where(keys.c.created < keys_before))
            return connection.execute(delete(jobs).where(jobs.c.id.in_(old))).rowcount

        return self._database.write(work)

    def _require_files(self, connection: Connection, inputs: Mapping[str, str]) -> None:
        if inputs:
            self._files.lock(self._database, connection, shared=True)
        for name, sha256 in inputs.items():
            if not self._files.exists(sha256):
                raise InvalidInput(f"The file of the input {name} is not here: send it again.")

    def _report(
        self,
        job_id: str,
        attempt: int,
        kind: EventKind,
        data: Mapping[str, Any],
        *,
        preview: bytes | None = None,
        **values: Any,
    ) -> bool:
        """One change by the worker of `attempt`; False unless that is current."""
        now = self._clock()

        def work(connection: Connection) -> bool:
            row = events.change(
                connection, job_id, is_current(attempt), kind, now, data, preview=preview, **values
            )
            if row is not None and Status(row.status).final:
                events.forget_previews(connection, job_id)
            return row is not None

        return self._database.write(work)


def _count_death(connection: Connection, row: Row[Any], now: float, reason: str) -> Status:
    deaths = row.deaths + 1
    data = {"attempt": row.attempt, "reason": reason}
    if deaths >= MAX_ATTEMPTS:
        events.change(
            connection, row.id, (), EventKind.DEAD, now, data,
            status=Status.DEAD, deaths=deaths, finished=now, reason=reason,
        )  # fmt: skip
        events.forget_previews(connection, row.id)
        return Status.DEAD
    events.change(
        connection, row.id, (), EventKind.RETRIED, now, data,
        status=Status.QUEUED, deaths=deaths, started=None,
    )  # fmt: skip
    lines.join(connection, row.id, row.owner, row.priority)
    return Status.QUEUED


def _row(connection: Connection, job_id: str, owner: str | None, *, lock: bool = False) -> Row[Any]:
    query = select(jobs).where(jobs.c.id == ids.require_id(ids.JOB, job_id))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None or owner not in (None, row.owner):
        raise ids.not_found(ids.JOB, job_id)
    return row
