"""How often somebody may ask: token buckets for requests and jobs, growing waits for log-ins.

Everything lives in the memory of the web process and in its event loop; the number of clients
remembered is bounded, the ones not seen for longest are forgotten first.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from izograf.schema.errors import IzografError

MAX_CLIENTS = 10_000
FREE_ATTEMPTS = 5
"""Failed log-ins of one name from one address before the next has to wait."""
LONGEST_WAIT = 300.0
FORGET_SECONDS = 3600.0
ATTEMPTS_PER_MINUTE = 30
"""Log-ins from one address, whatever the names."""

Clock = Callable[[], float]
Value = TypeVar("Value")


class TooManyRequests(IzografError):
    """A client asks more often than it may; `retry_after` seconds later it may again."""

    exit_code = 12
    http_status = 429

    def __init__(self, sentence: str, retry_after: float) -> None:
        super().__init__(sentence)
        self.retry_after = max(1, math.ceil(retry_after))


class Recent(Generic[Value]):
    """A dictionary that forgets what was not used for longest when it is full."""

    def __init__(self, make: Callable[[], Value], *, size: int = MAX_CLIENTS) -> None:
        self._make, self._size = make, size
        self._entries: OrderedDict[str, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Value:
        """The value of `key`, made if there is none."""
        if key not in self._entries:
            self._entries[key] = self._make()
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]

    def forget(self, key: str) -> None:
        """Drops the value of `key`, if there is one."""
        self._entries.pop(key, None)


@dataclass
class _Bucket:
    tokens: float
    filled: float


class RateLimit:
    """So many a minute for each client, in bursts of as many."""

    def __init__(self, per_minute: int, *, clock: Clock = time.monotonic) -> None:
        self._capacity, self._clock = float(per_minute), clock
        self._buckets = Recent(lambda: _Bucket(self._capacity, self._clock()))

    def take(self, client: str) -> None:
        """Counts one request.

        Raises:
            TooManyRequests: the client has none left just now.
        """
        bucket, now, rate = self._buckets.get(client), self._clock(), self._capacity / 60
        bucket.tokens = min(self._capacity, bucket.tokens + (now - bucket.filled) * rate)
        bucket.filled = now
        if bucket.tokens < 1:
            raise TooManyRequests(
                f"Too many requests: at most {self._capacity:.0f} a minute are answered.",
                (1 - bucket.tokens) / rate,
            )
        bucket.tokens -= 1


@dataclass
class _Failures:
    count: int = 0
    last: float = -math.inf


class LoginAttempts:
    """Slows the guessing of passwords: per name and address by waits that double, per address."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._failures: Recent[_Failures] = Recent(_Failures)
        self._addresses = RateLimit(ATTEMPTS_PER_MINUTE, clock=clock)

    def begin(self, name: str, address: str) -> None:
        """Counts an attempt, as failed until `succeeded` says otherwise.

        Raises:
            TooManyRequests: it comes too soon after the ones before; its password is not looked at.
        """
        self._addresses.take(address)
        failures, now = self._failures.get(_attempt_key(name, address)), self._clock()
        if now - failures.last > FORGET_SECONDS:
            failures.count = 0
        if (left := failures.last + _wait(failures.count) - now) > 0:
            raise TooManyRequests(
                f"Too many failed log-ins: try again in {math.ceil(left)} seconds.", left
            )
        failures.count, failures.last = failures.count + 1, now

    def succeeded(self, name: str, address: str) -> None:
        """Forgets the failures before."""
        self._failures.forget(_attempt_key(name, address))


def _wait(failures: int) -> float:
    return 0.0 if failures < FREE_ATTEMPTS else min(LONGEST_WAIT, 2.0 ** (failures - FREE_ATTEMPTS))


def _attempt_key(name: str, address: str) -> str:
    return f"{address} {name.strip().casefold()[:200]}"


def client_address(host: str | None) -> str:
    """Whom a limit counts: an IPv4 address, or the /64 network that one IPv6 client owns."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
