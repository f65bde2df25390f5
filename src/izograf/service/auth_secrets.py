"""Passwords, session tokens and API keys: how they are made, checked and kept. No web here.

Passwords are kept as argon2id (RFC 9106, section 4, the second recommended option: 64 MiB, three
passes). Tokens and key secrets carry 256 random bits, so their sha256 is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from functools import cache

from argon2 import PasswordHasher, Type
from argon2.exceptions import HashingError as Argon2Failed
from argon2.exceptions import InvalidHashError, VerificationError

from izograf.schema.errors import InvalidInput, IzografError

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1000
FEWEST_CHARACTERS = 5
"""Different ones that a password must have."""
KEY_START = "izo_"
KEY_PATTERN = re.compile(r"(izo_[0-9a-z]{12})\.([A-Za-z0-9_-]{43})")

_SEQUENCES = ("0123456789", "1234567890", "qwertyuiop", "abcdefghij", "password", "йцукенгшщз")
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
_hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4, type=Type.ID)


def check_password(password: str, user_name: str) -> None:
    """
    Raises:
        InvalidInput: the password is too short, too long, or among the first that are guessed.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidInput(
            f"A password has from {SHORTEST_PASSWORD} to {LONGEST_PASSWORD:,} characters, "
            f"this one has {len(password):,}."
        )
    plain, name = password.casefold(), user_name.strip().casefold()
    rest = plain.replace(name, "") if name else plain
    for sequence in _SEQUENCES:
        rest = rest.replace(sequence, "")
    if len(set(plain)) < FEWEST_CHARACTERS or len(rest.strip("0123456789!.?* ")) < 3:
        raise InvalidInput(
            "This password is guessed at once: take several words, or let a program make one."
        )


def hash_password(password: str) -> str:
    """The password as it is kept; takes some 50 ms and 64 MiB."""
    try:
        return _hasher.hash(password.encode("utf-8", "surrogatepass"))
    except Argon2Failed as error:
        raise IzografError(f"The password cannot be hashed ({error}): free some memory.") from error


def password_fits(password_hash: str | None, password: str) -> bool:
    """Whether the password is the one that was hashed; as slow for None, which nothing fits."""
    encoded = password[:LONGEST_PASSWORD].encode("utf-8", "surrogatepass")
    try:
        fits = _hasher.verify(password_hash or _hash_of_nobody(), encoded)
    except (VerificationError, InvalidHashError):
        return False
    return fits and password_hash is not None and len(password) <= LONGEST_PASSWORD


@cache
def _hash_of_nobody() -> str:
    return hash_password(secrets.token_urlsafe(32))


def make_token() -> str:
    """A session's token: 256 random bits."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """The form in which a token or a key's secret is kept: its sha256 in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class NewKey:
    """An API key that was just made: `text` is shown once and never kept."""

    prefix: str
    secret: str

    @property
    def text(self) -> str:
        return f"{self.prefix}.{self.secret}"


def make_key() -> NewKey:
    """A fresh API key `izo_<prefix>.<secret>`."""
    prefix = KEY_START + "".join(secrets.choice(_LETTERS) for _ in range(12))
    return NewKey(prefix, secrets.token_urlsafe(32))


def parse_key(text: str) -> NewKey | None:
    """The parts of an API key; None of anything that is none."""
    match = KEY_PATTERN.fullmatch(text)
    return None if match is None else NewKey(match[1], match[2])


def secret_fits(secret_hash: str, secret: str) -> bool:
    """Whether the secret is the one whose sha256 is kept; in constant time."""
    return hmac.compare_digest(secret_hash, digest(secret))
