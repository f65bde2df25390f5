"""A trained model on disk: a folder with `card.json` and safetensors weights, hashed, atomic."""

from __future__ import annotations

from collections.abc import Mapping
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


def save_model(
    folder: Path, tensors: Mapping[str, Tensor], card: ModelCard, *, dtype: torch.dtype
) -> ModelCard:
    """Writes weights (floating-point ones as `dtype`) and the card naming their hash.

    The weights are in place before the card that names them: a reader of the pair either finds
    the hash it expects or reports a mismatch, never a silently wrong model.

    Raises:
        StorageError: no permission or no space; a model that was there is unharmed.
    """
    stored = {name: _stored(value, dtype) for name, value in tensors.items()}
    temporary = folder / f".{WEIGHTS}.tmp"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode  # safetensors writes for the owner's eyes only
            save_tensors(temporary, stored)
            temporary.chmod(mode)
            complete = replace(card, weights={WEIGHTS: file_sha256(temporary)})
            temporary.replace(folder / WEIGHTS)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)
    write_atomically(folder / CARD, complete.dumps())
    return complete


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """`value` as `dtype`, unless that cannot hold it (float16 ends at 65504) or it is not real."""
    if not value.is_floating_point():
        return value
    converted = value.to(dtype)
    return converted if bool(converted.isfinite().all()) else value


def read_weights(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """All tensors of the model, as float32, after checking every file against the card's hash.

    Raises:
        CardError: a file is missing, truncated, or not the one the card describes.
    """
    tensors: dict[str, Tensor] = {}
    for name, expected in card.weights.items():
        path = folder / Path(name).name
        if not path.is_file():
            raise CardError(f"{path} is missing: copy the model again or train it anew.")
        loaded = load_tensors(path)
        if file_sha256(path) != expected:
            raise CardError(
                f"{path} is not the file its card describes (sha256 differs): "
                "copy the model again or train it anew."
            )
        tensors |= {k: v.float() if v.is_floating_point() else v for k, v in loaded.items()}
    return tensors
