"""One worker process, as its engine holds it: start it, talk to it, end it without a trace."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from izograf.engine.messages import Cancel, Close, Order, WorkerSettings

BODY = "izograf.engine.worker"  # by name: this side of the process border has no torch
EXIT_SECONDS = 5.0


class WorkerProcess:
    """A spawned process that runs `run(connection, settings)` of the module named `body`."""

    def __init__(self, name: str, settings: WorkerSettings, *, body: str = BODY) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=enter, args=(body, theirs, settings), name=name, daemon=True
        )
        try:
            with interrupts_blocked():
                self._process.start()
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()  # so that the pipe ends when the worker does

    @property
    def id(self) -> int:
        return self._process.pid or 0

    def send(self, message: Order | Cancel | Close) -> None:
        """Tells the worker; one that is gone is noticed by `receive`."""
        with suppress(OSError, ValueError):
            self._connection.send(message)

    def receive(self) -> object | None:
        """The worker's next message, waited for; None once there will be no more."""
        try:
            message: object = self._connection.recv()
        except Exception:  # the end of the pipe, or half a message of a worker that was killed
            return None
        return message

    def kill(self) -> None:
        """Ends the process at once. Its handle must still be reaped."""
        with suppress(ValueError):  # it was reaped meanwhile
            self._process.kill()

    def reap(self) -> str:
        """Waits for the end of the process, frees what it occupied, and says how it ended."""
        self._process.join(EXIT_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        code = self._process.exitcode or 0
        self._process.close()
        self._connection.close()
        return describe_exit(code)


def enter(body: str, connection: Connection, settings: WorkerSettings) -> None:
    """The first thing in the new process.

    Whoever interrupts the service means the service: it tells its workers itself when to leave,
    and one that is left alone finds its pipe closed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
    importlib.import_module(body).run(connection, settings)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """A process started inside begins deaf to SIGINT, before it could ignore it by itself."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def describe_exit(code: int) -> str:
    """How the process ended, as an operator would say it."""
    if code >= 0:
        return f"the worker process ended with exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        hint = ", as when the system runs out of memory" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{hint}"
    return f"the worker process was ended by signal {-code}"
