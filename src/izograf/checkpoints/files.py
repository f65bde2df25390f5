"""A trained model on disk: a folder with `card.json` and safetensors weights, hashed, atomic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from izograf.core.storage import (
    file_sha256,
    load_tensors,
    save_tensors,
    storage_errors,
    sync_folder,
    write_atomically,
)
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError
from izograf.schema.library import CARD

WEIGHTS = "weights.safetensors"
GUIDE = "guide.safetensors"  # an early snapshot of the network, what autoguidance moves away from


def save_model(
    folder: Path,
    tensors: Mapping[str, Tensor],
    card: ModelCard,
    *,
    dtype: torch.dtype,
    beside: Sequence[str] = (),
) -> ModelCard:
    """Writes weights (floating-point ones as `dtype`) and the card naming their hash.

    `beside` are other files of the model that lie in the folder already; the card names them too.

    The weights are in place before the card that names them: a reader of the pair either finds
    the hash it expects or reports a mismatch, never a silently wrong model.

    Raises:
        StorageError: no permission or no space; a model that was there is unharmed.
        CardError: one of those `beside` is missing.
    """
    others = {name: file_sha256(_present(folder, name)) for name in beside}
    digest = save_weights(folder, WEIGHTS, tensors, dtype=dtype)
    complete = replace(card, weights={WEIGHTS: digest, **others})
    write_atomically(folder / CARD, complete.dumps())
    return complete


def save_weights(
    folder: Path, name: str, tensors: Mapping[str, Tensor], *, dtype: torch.dtype
) -> str:
    """Writes the file `name` of a model, floating-point tensors as `dtype`; returns its sha256.

    Raises:
        StorageError: no permission or no space; a file that was there is unharmed.
    """
    stored = {key: _stored(value, dtype) for key, value in tensors.items()}
    temporary = folder / f".{name}.tmp"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode  # safetensors writes for the owner's eyes only
            save_tensors(temporary, stored)
            temporary.chmod(mode)
            digest = file_sha256(temporary)
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)
    return digest


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """`value` as `dtype`, unless that cannot hold it (float16 ends at 65504) or it is not real."""
    if not value.is_floating_point():
        return value
    converted = value.to(dtype)
    return converted if bool(converted.isfinite().all()) else value


def read_weights(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """All tensors of the model, as float32, after checking every file against the card's hash.

    Its guide, which few pictures need, must be there and is left unread (`read_guide`).

    Raises:
        CardError: a file is missing, truncated, or not the one the card describes.
    """
    tensors: dict[str, Tensor] = {}
    for name, expected in card.weights.items():
        path = _present(folder, name)
        if path.name != GUIDE:
            tensors |= _read(path, expected)
    return tensors


def read_guide(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """The tensors of the network that autoguidance moves away from, as float32.

    Raises:
        CardError: as `read_weights`.
    """
    return _read(_present(folder, GUIDE), card.weights.get(GUIDE, ""))


def _present(folder: Path, name: str) -> Path:
    path = folder / Path(name).name
    if not path.is_file():
        raise CardError(f"{path} is missing: copy the model again or train it anew.")
    return path


def _read(path: Path, expected: str) -> dict[str, Tensor]:
    loaded = load_tensors(path)
    if file_sha256(path) != expected:
        raise CardError(
            f"{path} is not the file its card describes (sha256 differs): "
            "copy the model again or train it anew."
        )
    return {k: v.float() if v.is_floating_point() else v for k, v in loaded.items()}
