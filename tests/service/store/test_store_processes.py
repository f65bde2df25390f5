"""What only several processes can show: kills, races, two starts at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from store_postgres import Server

from izograf.schema.job import EventKind, Status
from izograf.schema.request import GenerationRequest
from izograf.store.database import Database
from izograf.store.migrate import current_revision, newest_revision, upgrade
from izograf.store.open import Store

Call = Callable[..., dict[str, Any]]


def test_p1_an_acknowledged_job_survives_a_kill(
    store: Store, url: str, folder: Path, zygote: Call
) -> None:
    for number in range(12):
        before = {job.id for job in store.jobs.list_jobs(limit=200).items}
        answer = zygote(
            "crash_while_submitting", url=url, data_dir=str(folder), delay=number * 0.004
        )
        after = {job.id for job in store.jobs.list_jobs(limit=200).items}
        acknowledged = set(answer["acknowledged"])
        assert acknowledged
        assert acknowledged <= after - before
        assert len(after - before - acknowledged) <= 1, "at most the one it died with"
        for job_id in after - before:
            assert [e.kind for e in store.jobs.events_after(job_id)] == [EventKind.QUEUED]
            store.jobs.cancel(job_id)
        assert store.jobs.num_queued() == 0, "the line counted every row"
        store.jobs.purge(finished_before=2e9, keys_before=0)


def test_concurrent_claims_from_processes_never_give_the_same_job(
    store: Store, url: str, folder: Path, zygote: Call
) -> None:
    order = GenerationRequest("scenes")
    made = [store.jobs.submit("abc"[n % 3], "generate", order).id for n in range(30)]
    claims = zygote("race_claims", url=url, data_dir=str(folder), num_processes=3)["claims"]
    taken = [tuple(claim) for part in claims for claim in part]
    assert sorted(taken) == sorted((job_id, 1) for job_id in made)
    assert store.jobs.count_by_status()[Status.RUNNING] == 30


def test_two_starts_at_once_migrate_once(empty_url: str, zygote: Call) -> None:
    answer = zygote("race_upgrades", url=empty_url, num_processes=3)
    assert answer["revisions"] == [[newest_revision()]] * 3


def test_p12_a_kill_in_the_middle_of_a_migration_is_safe(empty_url: str, zygote: Call) -> None:
    database = Database(empty_url)
    for statement in (1, 2, 9, 25):
        assert zygote("kill_upgrade", url=empty_url, statement=statement)["killed"]
        assert current_revision(database) is None
        with database.reading() as connection:
            assert tables(connection, database) == []
    assert not zygote("kill_upgrade", url=empty_url, statement=10_000)["killed"]
    assert current_revision(database) == newest_revision()
    assert upgrade(empty_url) == newest_revision()
    database.close()


def tables(connection: Any, database: Database) -> list[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    if database.is_sqlite:
        query = "SELECT name FROM sqlite_master"
    return [row[0] for row in connection.exec_driver_sql(query)]


def test_the_server_of_the_tests_is_not_run_by_root(postgres: Server) -> None:
    owners = {
        process.stat().st_uid
        for process in Path("/proc").glob("[0-9]*/cmdline")
        if f"\0-p\0{postgres.port}\0".encode() in process.read_bytes()
    }
    assert owners
    assert 0 not in owners
