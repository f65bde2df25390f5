"""The one exception hierarchy: every failure a user can cause, mapped once to an exit code.

A message is one clear sentence (or two) that says what was wrong, what was expected, and what
to do. The command line prints it and exits with `exit_code`; the service will answer with
`http_status`. Anything that is not an `IzografError` is a bug.
"""

from __future__ import annotations

from typing import ClassVar


class IzografError(Exception):
    """Base of all errors meant for the user's eyes."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class InvalidInput(IzografError):
    """A value the user gave is unusable: a wrong number, an unknown option, a bad path."""

    exit_code = 2
    http_status = 422


class NotFound(InvalidInput):
    """A named thing does not exist: model, class, recipe, file."""

    exit_code = 3
    http_status = 404


class DataError(InvalidInput):
    """A dataset cannot be read or cannot serve the purpose asked of it."""

    exit_code = 4


class CardError(InvalidInput):
    """A model card or weights file is malformed, truncated, too new, or does not match."""

    exit_code = 5


class UnsafeFile(InvalidInput):
    """A file that could execute code on loading (pickle) was refused unread."""

    exit_code = 6


class StorageError(IzografError):
    """Writing failed: no permission, no space, or a read-only place."""

    exit_code = 7
    http_status = 507


class StoreUnavailable(StorageError):
    """The database is locked, down or unreachable just now; the same request may work later."""

    exit_code = 10
    http_status = 503


class Conflict(InvalidInput):
    """The request contradicts what is already there: a taken name, a reused idempotency key."""

    exit_code = 11
    http_status = 409


class QueueFull(IzografError):
    """As many jobs are waiting as the operator allows; the same request may work later."""

    exit_code = 12
    http_status = 429


class TrainingDiverged(IzografError):
    """A loss became NaN or infinite; the last good checkpoint was kept."""

    exit_code = 8


class MissingExtra(IzografError):
    """An optional dependency is not installed; the message names the extra to install."""

    exit_code = 9
    http_status = 501


class Cancelled(IzografError):
    """Raised inside a step callback to stop sampling; carries no message of its own."""

    exit_code = 130
    http_status = 409
