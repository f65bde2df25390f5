"""A process that has imported the store and forks: what must happen in several processes.

Reads one JSON call per line, `{"action": name, ...arguments}`, and answers one JSON line. It is
single-threaded and holds no connection, so its children are as good as freshly started programs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from izograf.schema.request import GenerationRequest
from izograf.store.migrate import upgrade
from izograf.store.open import open_store


def forked(work: Callable[[Callable[[Any], None]], None]) -> tuple[int, int]:
    """(process id, readable pipe) of a child that runs `work(say)`; what it says are JSON lines."""
    reading, writing = os.pipe()
    if (child := os.fork()) != 0:
        os.close(writing)
        return child, reading
    status = 1
    try:
        os.close(reading)
        work(lambda value: os.write(writing, json.dumps(value).encode() + b"\n") and None)
        status = 0
    finally:
        os._exit(status)


def heard(pipe: int) -> list[Any]:
    """Everything a child says until it ends."""
    with os.fdopen(pipe) as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]


def crash_while_submitting(url: str, data_dir: str, delay: float) -> dict[str, Any]:
    """The ids a child was given before it was killed, `delay` seconds after the first one."""

    def work(say: Callable[[Any], None]) -> None:
        store = open_store(Path(data_dir), url)
        while True:
            say(store.jobs.submit("owner", "generate", GenerationRequest("scenes")).id)

    child, pipe = forked(work)
    first = b""
    while not first.endswith(b"\n"):
        first += os.read(pipe, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {"acknowledged": [json.loads(first), *heard(pipe)]}


def race_claims(url: str, data_dir: str, num_processes: int) -> dict[str, Any]:
    """What each of several processes claimed until nothing was left."""

    def work(say: Callable[[Any], None]) -> None:
        store = open_store(Path(data_dir), url)
        while (claim := store.jobs.claim_next()) is not None:
            say([claim[0].id, claim[1]])

    return {"claims": _all(work, num_processes)}


def race_upgrades(url: str, num_processes: int) -> dict[str, Any]:
    """The revision each of several processes reports after upgrading at the same time."""
    return {"revisions": _all(lambda say: say(upgrade(url)), num_processes)}


def kill_upgrade(url: str, statement: int) -> dict[str, Any]:
    """Whether a child was killed after the given statement of its migration."""

    def work(_say: Callable[[Any], None]) -> None:
        seen = 0

        @event.listens_for(Engine, "after_cursor_execute")
        def executed(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
            nonlocal seen
            seen += sql.lstrip().upper().startswith(("CREATE", "ALTER", "INSERT", "DROP"))
            if seen == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        upgrade(url)

    child, pipe = forked(work)
    heard(pipe)
    _, status = os.waitpid(child, 0)
    return {"killed": os.WIFSIGNALED(status)}


def _all(work: Callable[[Callable[[Any], None]], None], num_processes: int) -> list[list[Any]]:
    children = [forked(work) for _ in range(num_processes)]
    said = [heard(pipe) for _, pipe in children]
    assert all(os.waitpid(child, 0)[1] == 0 for child, _ in children)
    return said


ACTIONS = {
    action.__name__: action
    for action in (crash_while_submitting, race_claims, race_upgrades, kill_upgrade)
}

if __name__ == "__main__":
    for line in sys.stdin:
        call = json.loads(line)
        answer = ACTIONS[call.pop("action")](**call)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
