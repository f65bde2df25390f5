"""What the extra `stable-diffusion` brings, imported when it is needed."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from izograf.schema.errors import MissingExtra


@cache
def required(module: str) -> Any:
    """A module of the extra, which carries no types that could be used here.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).split(".")[0]
        raise MissingExtra(
            f'Stable Diffusion needs {missing}: pip install "izograf[stable-diffusion]".'
        ) from error
    return imported


def quiet() -> None:
    """No progress bars and no advice of the packages: what matters is said by us."""
    for package in ("diffusers", "transformers"):
        logging = required(f"{package}.utils.logging")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
