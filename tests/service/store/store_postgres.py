"""A PostgreSQL server of our own: Debian's programs, an unprivileged user, a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg


@dataclass(frozen=True)
class Server:
    """A running server; everybody on this machine's loopback may do anything in it."""

    port: int
    programs: Path

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://izograf@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        address = f"postgresql://izograf@127.0.0.1:{self.port}/{database}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())

    def create(self, database: str) -> str:
        """The URL of a new, empty database."""
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self.execute(f"CREATE DATABASE {database}")
        return self.url(database)


def reason_to_skip() -> str | None:
    """Why no server can be started here; None if one can."""
    if _programs() is None:
        return "PostgreSQL's programs are not installed (apt-get install postgresql)"
    if os.geteuid() == 0 and _unprivileged() is None:
        return "PostgreSQL refuses to run as root, and there is no user `postgres`"
    return None


@contextmanager
def running_server() -> Iterator[Server]:
    """Initialises a cluster, starts it, and removes it at the end. It never syncs to disk."""
    programs = _programs()
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="izograf-postgres-", dir=_fast_place()) as folder:
        data = Path(folder) / "data"
        user = _unprivileged() if os.geteuid() == 0 else None
        identity: dict[str, Any] = {"cwd": folder}
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
            identity |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        # a locale that does not sort byte by byte, so that the tests notice who relies on it
        initialise = [programs / "initdb", "-D", data, "-U", "izograf", "-A", "trust", "-N"]
        initialise += ["-E", "UTF8", "--locale=C", "--locale-provider=icu", "--icu-locale=en"]
        subprocess.run(initialise, check=True, capture_output=True, **identity)
        port = _free_port()
        start = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1"]
        start += ["-k", folder, "-F", "-c", "full_page_writes=off", "-c", "max_connections=60"]
        start += ["-c", "autovacuum=off", "-c", "shared_buffers=16MB"]
        with subprocess.Popen(
            start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **identity
        ) as process:
            try:
                server = Server(port, programs)
                _wait(server, process)
                yield server
            finally:
                process.send_signal(signal.SIGQUIT)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(psycopg.OperationalError):
            return server.execute("SELECT 1")
        time.sleep(0.05)
    raise RuntimeError("PostgreSQL did not start")


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in versions), default=None, key=lambda p: int(p.parent.name))


def _unprivileged() -> pwd.struct_passwd | None:
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    return None


def _fast_place() -> str | None:
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and os.access(memory, os.W_OK) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
