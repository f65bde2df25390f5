"""Whether there is room for more pictures: asked before a job is accepted, not after it is done."""

from __future__ import annotations

import shutil
from pathlib import Path

from izograf.schema.errors import StorageError

MIN_FREE_BYTES = 64 << 20


def require_space(data_dir: Path) -> None:
    """
    Raises:
        StorageError: the disk of pictures is full, or as good as.
    """
    try:
        free = shutil.disk_usage(data_dir).free
    except OSError as error:
        raise StorageError(f"The folder of data cannot be read: {error.strerror}.") from error
    if free < MIN_FREE_BYTES:
        raise StorageError(
            "The disk for pictures is full: an operator has to free some space before new jobs "
            "can be taken."
        )
