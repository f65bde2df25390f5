"""One database, SQLite or PostgreSQL, behind two methods: `reading` and `write`.

SQLite runs in WAL mode with `synchronous=FULL`, so a committed row survives a power cut. The
standard library's driver begins transactions by itself and too late; it is told not to, and every
transaction begins explicitly: `BEGIN IMMEDIATE` for writers, so that none fails halfway with a
lock it could not have foreseen (SQLAlchemy's documentation, "Pysqlite: transactions").

Whatever goes wrong with the database itself leaves here as `StoreUnavailable` (try again later)
or `StorageError` (an operator must act).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, exc, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url

from izograf.schema.errors import InvalidInput, MissingExtra, StorageError, StoreUnavailable

T = TypeVar("T")

LOCK_TIMEOUT = 5.0  # seconds a transaction waits for another before it gives up
PAUSES = (0.02, 0.1, 0.4)  # seconds before a transaction that lost a race is tried again
_BEGIN = "izograf_begin"

# SQLSTATE codes and classes of PostgreSQL (its documentation, appendix A)
_LOST_RACE = frozenset({"40001", "40P01", "55P03"})  # serialisation, deadlock, lock timeout
_DISK_FULL = frozenset({"53100"})
_DOWN = ("08", "53", "57", "58")  # connection, resources, operator intervention, system error


def sqlite_url(path: Path) -> str:
    """The URL of the SQLite database in the file `path`."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


class Database:
    """The only holder of connections; safe to share between threads, not between processes.

    Attributes:
        engine: SQLAlchemy's engine, for migrations, backup and tests.
        is_sqlite: else it is PostgreSQL.
    """

    def __init__(
        self, url: str, *, lock_timeout: float = LOCK_TIMEOUT, foreign_keys: bool = True
    ) -> None:
        """Connects to nothing yet.

        Raises:
            InvalidInput: the URL names neither a SQLite file nor PostgreSQL.
            MissingExtra: the PostgreSQL driver is not installed.
        """
        parsed = _checked_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.engine = (
            _sqlite_engine(parsed, lock_timeout, foreign_keys)
            if self.is_sqlite
            else _postgresql_engine(parsed, lock_timeout)
        )
        self._lock_timeout = lock_timeout
        self._readers = self.engine.execution_options(**{_BEGIN: "BEGIN"})
        # SQLite lets one writer in and makes the others poll; threads of one process can wait
        self._writer = threading.Lock() if self.is_sqlite else None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the committed rows and changes nothing.

        Raises:
            StoreUnavailable: locked, down or unreachable.
        """
        with self._typed_errors(), self._readers.begin() as connection:
            yield connection

    def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, its changes committed: all of them, or on any error none.

        `work` may run again when it lost a race or the connection broke before the commit, so it
        must have no effect besides its statements.

        Raises:
            StoreUnavailable: locked, down or unreachable. If that happened during the commit
                itself, the message says that the outcome is unknown.
            StorageError: the disk is full or the database read-only.
        """
        with self._typed_errors():
            for pause in (*PAUSES, None):
                try:
                    return self._write_once(work)
                except exc.DBAPIError as error:
                    if pause is None or not _may_retry(error):
                        raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _write_once(self, work: Callable[[Connection], T]) -> T:
        with self._turn(), self.engine.connect() as connection:
            transaction = connection.begin()
            try:
                result = work(connection)
            except BaseException:
                with suppress(exc.DBAPIError):  # the first error is the one that matters
                    transaction.rollback()
                raise
            try:
                transaction.commit()
            except exc.DBAPIError as error:
                if error.connection_invalidated or _state(error).startswith(("08", "57")):
                    raise StoreUnavailable(
                        "The connection to the database broke while a change was being committed, "
                        "so it is unknown whether it was kept: look before asking again."
                    ) from error
                raise
            return result

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._writer is None:
            yield
            return
        if not self._writer.acquire(timeout=self._lock_timeout):
            raise StoreUnavailable(_LOCKED)
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.TimeoutError as error:
            raise StoreUnavailable("Every database connection is in use: try again.") from error
        except exc.DBAPIError as error:
            if (typed := _typed(error)) is not None:
                raise typed from error
            raise

    def advisory_lock(self, connection: Connection, number: int, *, shared: bool = False) -> None:
        """Waits until this transaction alone holds lock `number`; SQLite's writers always do.

        With `shared`, other shared holders are welcome and only exclusive ones excluded.
        """
        if not self.is_sqlite:
            suffix = "_shared" if shared else ""
            connection.execute(text(f"SELECT pg_advisory_xact_lock{suffix}(:n)"), {"n": number})

    def close(self) -> None:
        """Closes every idle connection; the object can be used again."""
        self.engine.dispose()


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT with `on_conflict_do_update`, in the dialect of `connection`."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


_LOCKED = "The database is locked by another program: try again in a moment."


def _checked_url(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except exc.ArgumentError:
        parsed, backend = None, ""
    if parsed is None or backend not in ("sqlite", "postgresql"):
        raise InvalidInput(
            "The database URL must be sqlite:///file.sqlite3 or "
            "postgresql+psycopg://user:password@host/name."
        )
    if backend == "sqlite" and (parsed.database or ":memory:") == ":memory:":
        raise InvalidInput("The database must be a file: jobs in memory would be lost.")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed.set(drivername="sqlite+pysqlite")


def _sqlite_engine(url: URL, lock_timeout: float, foreign_keys: bool) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": lock_timeout},
        hide_parameters=True,  # an error's text, which is logged, must not quote requests
        pool_size=10,
        max_overflow=30,
        pool_timeout=10,
    )

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transaction of its own
        _use_wal(connection, lock_timeout)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get(_BEGIN, "BEGIN IMMEDIATE"))

    return engine


def _use_wal(connection: sqlite3.Connection, lock_timeout: float) -> None:
    """Switches to WAL; SQLite does not wait by itself when two processes switch at once."""
    deadline = time.monotonic() + lock_timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _postgresql_engine(url: URL, lock_timeout: float) -> Engine:
    timeout = f"-c lock_timeout={int(lock_timeout * 1000)}"
    options = f"{timeout} -c idle_in_transaction_session_timeout=60000"
    arguments = {"connect_timeout": 5, "options": options}
    try:
        return create_engine(
            url,
            connect_args={k: v for k, v in arguments.items() if k not in url.query},
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=30,
            pool_timeout=10,
        )
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "PostgreSQL needs its driver: pip install 'izograf[postgresql]'."
        ) from error


def _is_busy(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes keep the base below
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _state(error: exc.DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _may_retry(error: exc.DBAPIError) -> bool:
    """Whether nothing was committed and another try may succeed. SQLite has waited already."""
    return error.connection_invalidated or _state(error) in _LOST_RACE


def _typed(error: exc.DBAPIError) -> StorageError | None:
    """The error as the user is to read it; None for mistakes of this program."""
    state, code = _state(error), getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if _is_busy(error.orig) or state in _LOST_RACE:
        return StoreUnavailable(_LOCKED)
    if code == sqlite3.SQLITE_FULL or state in _DISK_FULL:
        return StorageError("The disk of the database is full: free some space and try again.")
    if code == sqlite3.SQLITE_READONLY or state == "25006":
        return StorageError("The database is read-only: change its permissions.")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM):
        return StoreUnavailable(f"The database file cannot be opened or read: {error.orig}.")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageError(f"The database file is damaged ({error.orig}): restore a backup.")
    lost = error.connection_invalidated or (isinstance(error, exc.OperationalError) and not state)
    if state.startswith(_DOWN) or (lost and not code):
        return StoreUnavailable("The database cannot be reached: try again in a moment.")
    return None
