"""`izograf serve`: the application behind a socket, from the first check to the last signal.

A first signal stops in good order: no new connection, event streams end, running jobs finish or are
handed back within the grace time. A second one ends the grace time; a third the process.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType

import uvicorn

from izograf import __version__
from izograf.schema.errors import Conflict, InvalidInput
from izograf.service.app import create_app
from izograf.service.auth import refuse_unsafe_bind
from izograf.service.context import Service
from izograf.service.logs import configure_logs
from izograf.service.run import running_service
from izograf.service.settings import ServiceSettings

log = logging.getLogger(__name__)

BACKLOG = 2048
ANSWER_SECONDS = 5  # at most, for answers under way when the service is told to stop
KEEP_ALIVE_SECONDS = 20
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(settings: ServiceSettings, *, on_ready: Callable[[str], None]) -> None:
    """Serves until a signal; `on_ready` gets the address as soon as requests are answered.

    Raises:
        Conflict: the port, the folder of data or the database is in use.
        InvalidInput, StorageError, MissingExtra: a setting cannot work, said in one sentence.
    """
    check_proxies(settings)
    with closing(listen(settings.host, settings.port)) as listener, Signals() as signals:
        configure_logs(settings.log_format)
        with running_service(settings) as service:
            refuse_unsafe_bind(settings, service.store)
            address = address_of(settings.host, listener.getsockname()[1])
            server = Server(service, lambda: on_ready(address))
            signals.first, signals.second = server.stop, lambda: hurry(server, service)
            if not signals.count:
                log.info("service started", extra={"address": address, "version": __version__})
                asyncio.run(server.serve(sockets=[listener]))
            log.info("service stops", extra={"grace_seconds": settings.grace_seconds})
    log.info("service stopped")


class Server(uvicorn.Server):
    """uvicorn, told how to stop by us: streams first, and no signal handlers of its own."""

    def __init__(self, service: Service, on_started: Callable[[], None]) -> None:
        settings = service.settings
        config = uvicorn.Config(
            create_app(service),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,  # see `logs.AccessLog`
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, min(ANSWER_SECONDS, round(settings.grace_seconds))),
        )
        super().__init__(config)
        self._service, self._on_started = service, on_started

    def stop(self) -> None:
        """Says that it is time; may be called from a signal handler."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self.servers:  # before streams end, so that none begins anew
            listening.close()
        await self._service.hub.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Signals:
    """Counts the signals to stop. Its callbacks run inside a handler: they may only set flags."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Callable[[], None] = lambda: None
        self.second: Callable[[], None] = lambda: None
        self._before: dict[
            signal.Signals, signal.Handlers | Callable[..., object] | int | None
        ] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.count += 1
        if self.count == 1:
            self.first()
            return
        self.second()
        for waiting in SIGNALS:
            signal.signal(waiting, signal.SIG_DFL)


def hurry(server: Server, service: Service) -> None:
    """Ends every grace time; may be called from a signal handler."""
    server.force_exit = True
    service.dispatcher.hurry()


def check_proxies(settings: ServiceSettings) -> None:
    """
    Raises:
        InvalidInput: requests of strangers, forwarded to loopback, would be the administrator's.
    """
    if settings.trusted_proxies and not settings.login_required:
        raise InvalidInput(
            "Behind a reverse proxy everybody would be the administrator of this service: "
            'set login to "always" (--login always).'
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any free one.

    Raises:
        Conflict: the port is taken. InvalidInput: the host is not this machine, or not allowed.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        # a name with both kinds of address is reached by the older one from everywhere
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0])
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"The host {host!r} cannot be used: {error}.") from None
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _bind_error(host, port, error) from None
    return listener


def _bind_error(host: str, port: int, error: OSError) -> InvalidInput:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"Port {port} of {host} is taken by another program: choose another with --port "
            "(0 takes any free one)."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return InvalidInput(f"Port {port} is reserved to the system: choose one from 1024 on.")
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidInput(f"{host} is no address of this machine: give one of its own as --host.")
    return InvalidInput(f"{host} port {port} cannot be used: {error.strerror}.")


def address_of(host: str, port: int) -> str:
    """What to type into a browser on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
