"""A training state on disk: safetensors for every tensor, JSON for the rest, no pickle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from izograf.core.storage import folder_atomically, load_tensors, save_tensors
from izograf.core.types import Objective
from izograf.schema.errors import CardError
from izograf.training.ema import MovingAverage
from izograf.training.trainer import TrainingState

PREFIX = "images-"


def checkpoint_name(images_seen: int) -> str:
    """The folder of the checkpoint written after so many images."""
    return f"{PREFIX}{images_seen:012d}"


def save_state(
    folder: Path, objective: Objective, state: TrainingState, extra: Mapping[str, Any]
) -> Path:
    """Writes `folder/images-<count>` atomically and returns it; an existing one is kept."""
    target = folder / checkpoint_name(state.images_seen)
    if target.exists():
        return target
    tensors: dict[str, Tensor] = {}
    tensors |= _prefixed("modules", objective.modules.state_dict())
    tensors |= _prefixed("average", state.average.modules.state_dict())
    groups: dict[str, Any] = {}
    for name, optimizer in objective.optimizers().items():
        saved = optimizer.state_dict()
        groups[name] = saved["param_groups"]
        for index, entries in saved["state"].items():
            tensors |= _prefixed(f"optimizer.{name}.{index}", entries)
    described = {
        "step": state.step,
        "images_seen": state.images_seen,
        "optimizers": groups,
        "extra": dict(extra),
    }
    with folder_atomically(target) as temporary:
        # shared storage (tied weights) is refused by safetensors; copies are what we restore
        save_tensors(temporary / "state.safetensors", {k: v.clone() for k, v in tensors.items()})
        (temporary / "state.json").write_text(json.dumps(described, indent=1))
    return target


def load_state(checkpoint: Path, objective: Objective, state: TrainingState) -> dict[str, Any]:
    """Restores `objective` and `state` in place from a checkpoint; returns what was `extra`.

    Raises:
        CardError: the checkpoint is incomplete or was written for another network.
    """
    try:
        described = json.loads((checkpoint / "state.json").read_text())
        tensors = load_tensors(checkpoint / "state.safetensors")
        objective.modules.load_state_dict(_under("modules", tensors))
        state.average.modules.load_state_dict(_under("average", tensors))
        for name, optimizer in objective.optimizers().items():
            _restore_optimizer(
                optimizer, _under(f"optimizer.{name}", tensors), described["optimizers"][name]
            )
        state.step, state.images_seen = described["step"], described["images_seen"]
    except (OSError, KeyError, ValueError, RuntimeError, CardError) as error:
        reason = "its tensors are incomplete" if isinstance(error, CardError) else error
        raise CardError(
            f"The checkpoint {checkpoint} cannot be resumed ({reason}): remove it to go on from "
            "the one before, or start anew."
        ) from error
    extra: dict[str, Any] = described["extra"]
    return extra


def load_average(checkpoint: Path, average: MovingAverage) -> None:
    """Restores only the averaged weights from a checkpoint.

    Raises:
        CardError: the checkpoint is incomplete.
    """
    tensors = load_tensors(checkpoint / "state.safetensors")
    average.modules.load_state_dict(_under("average", tensors))


def _restore_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        entries.setdefault(int(index), {})[name] = value
    for group in groups:
        group["betas"] = tuple(group["betas"]) if "betas" in group else None
        if group["betas"] is None:
            del group["betas"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    # Files hold contiguous tensors; fused optimisers walk weight and moments in memory order, so
    # both must have the same strides, or the moments of one weight meet another.
    for parameter, restored in optimizer.state.items():
        for name, value in restored.items():
            if value.shape == parameter.shape:
                restored[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints below `folder`, oldest first."""
    found = folder.glob(f"{PREFIX}*/state.json")
    return sorted(path.parent for path in found)


def prune(folder: Path, *, keep: int, also: Path | None = None) -> None:
    """Removes all but the newest `keep` checkpoints (and `also`, the best one, say).

    What a killed process left half-written goes too.
    """
    for unfinished in folder.glob(f".{PREFIX}*.tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)
    for old in checkpoints(folder)[:-keep]:
        if old != also:
            shutil.rmtree(old, ignore_errors=True)


def all_finite(modules: torch.nn.Module) -> bool:
    """Whether every floating-point weight is a number."""
    return all(bool(value.isfinite().all()) for value in modules.parameters())


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": torch.as_tensor(value) for key, value in values.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
