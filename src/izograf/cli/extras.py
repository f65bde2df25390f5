"""What is missing when an optional part is not installed, said in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from izograf.schema.errors import MissingExtra


@contextmanager
def service_extra() -> Iterator[None]:
    """
    Raises:
        MissingExtra: what is imported inside needs a package of the extra `service`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "izograf":
            raise
        raise MissingExtra(
            f'The service needs {error.name}: pip install "izograf[service]".'
        ) from error
