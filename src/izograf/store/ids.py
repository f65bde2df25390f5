"""Identifiers: a kind, an underscore and 26 characters of `[0-9a-z]` that sort by creation.

The 26 characters are 128 bits in Crockford's base 32, as in the ULID specification: 48 bits of
milliseconds since the epoch, then 80 bits of randomness. Identifiers made by one `Ids` always
increase, also within a millisecond and when the clock is set back.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable

from izograf.schema.errors import NotFound

JOB = "job"
IMAGE = "img"
USER = "usr"
KEY = "key"
COLLECTION = "col"

KINDS = {
    JOB: "job",
    IMAGE: "image",
    USER: "user",
    KEY: "key",
    COLLECTION: "collection",
}
PATTERN = re.compile(r"(?:job|img|usr|key|col)_[0-9a-z]{26}")

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26
_RANDOM_BITS = 80


class Ids:
    """Makes identifiers; safe to share between threads.

    `clock` gives seconds since the epoch, `randomness(n)` n random bytes.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._clock = clock
        self._randomness = randomness
        self._lock = threading.Lock()
        self._last = 0

    def new(self, kind: str) -> str:
        """A fresh identifier of `kind`, one of `KINDS`."""
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not a kind of identifier")
        with self._lock:
            milliseconds = int(self._clock() * 1000)
            # when the clock stands still or was set back, the number is simply counted up
            if milliseconds > self._last >> _RANDOM_BITS:
                random = int.from_bytes(self._randomness(_RANDOM_BITS // 8))
                self._last = milliseconds << _RANDOM_BITS | random
            else:
                self._last += 1
            return f"{kind}_{_encoded(self._last)}"


def _encoded(number: int) -> str:
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))


def is_id(kind: str, text: str) -> bool:
    """Whether `text` has the form of an identifier of `kind`."""
    return text.startswith(f"{kind}_") and PATTERN.fullmatch(text) is not None


def require_id(kind: str, text: str) -> str:
    """`text`, if it has the form of an identifier of `kind`.

    Raises:
        NotFound: it has not, so nothing of that name can exist.
    """
    if not is_id(kind, text):
        raise not_found(kind, text)
    return text


def not_found(kind: str, text: str) -> NotFound:
    """The error for an identifier of `kind` that names nothing (or nothing one may see)."""
    return NotFound(f"There is no {KINDS[kind]} {text[:40]!r}.")
