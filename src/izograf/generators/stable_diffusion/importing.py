"""A checkpoint becomes a model of the library: a folder with a card that points at its files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from izograf import __version__
from izograf.core.devices import cache_folder
from izograf.core.storage import write_atomically
from izograf.generators.stable_diffusion.card import (
    FAST,
    card_options,
    checkpoint_card,
    model_name,
)
from izograf.generators.stable_diffusion.checkpoint import Checkpoint, read_checkpoint
from izograf.generators.stable_diffusion.lora import Lora
from izograf.schema.card import ModelCard
from izograf.schema.errors import Conflict
from izograf.schema.library import CARD


def library_folder() -> Path:
    """Where the user's own models go: the first folder of `$IZOGRAF_MODELS`, else `./runs`."""
    own = [part for part in os.environ.get("IZOGRAF_MODELS", "").split(os.pathsep) if part]
    return Path(own[0]) if own else Path("runs")


def import_checkpoint(
    path: Path,
    *,
    name: str = "",
    config: Path | None = None,
    loras: Sequence[Lora] = (),
    overwrite: bool = False,
) -> tuple[Path, ModelCard]:
    """Writes the card of the checkpoint at `path` into the user's library.

    The checkpoint stays where it is. `name` is made of its file name by default.

    Returns:
        The model's folder and its card.

    Raises:
        Conflict: there is a model of that name; see `read_checkpoint` for the others.
    """
    checkpoint = read_checkpoint(path, config)
    chosen = model_name(Path(name) if name else path.absolute())
    folder = library_folder() / chosen
    if folder.exists() and not overwrite:
        raise Conflict(
            f"There is a model in {folder} already: choose another --name, or add --overwrite."
        )
    card = checkpoint_card(checkpoint, chosen, loras=loras)
    write_atomically(folder / CARD, card.dumps())
    return folder, card


def adopted(path: Path) -> Path:
    """The folder of a card for the checkpoint folder `path`, made at its first use.

    Such cards are kept in the cache, by the files' names, sizes and times, so that the weights
    are hashed once.

    Raises:
        see `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path)
    folder = cache_folder() / "checkpoints" / f"{model_name(path.absolute())}-{_stamp(checkpoint)}"
    if not (folder / CARD).is_file():
        card = checkpoint_card(checkpoint, model_name(path.absolute()))
        write_atomically(folder / CARD, card.dumps())
    return folder


def _stamp(checkpoint: Checkpoint) -> str:
    facts = [
        [name, file.stat().st_size, file.stat().st_mtime_ns]
        for name, file in checkpoint.files.items()
    ]
    offered = [option.to_json() for option in card_options(checkpoint)]
    stated = [str(checkpoint.folder), dict(checkpoint.scheduler), __version__, facts, offered, FAST]
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]
