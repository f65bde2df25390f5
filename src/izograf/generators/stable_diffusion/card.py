"""The card of a checkpoint: what may be chosen, where its files lie, and their hashes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from izograf.core.storage import file_sha256
from izograf.diffusion.reuse import INTERVAL
from izograf.diffusion.schedules import SCHEDULES
from izograf.generators.diffusion_options import diffusion_options
from izograf.generators.stable_diffusion.checkpoint import Checkpoint, read_checkpoint
from izograf.generators.stable_diffusion.levels import (
    OWN,
    SPACINGS,
    prediction_of,
    recommended_sampler,
    table_from,
)
from izograf.generators.stable_diffusion.lora import Lora
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError
from izograf.schema.options import OptionSpec

FAMILY = "stable-diffusion"
CHECKPOINT, CONFIG, LORAS = "checkpoint", "config", "loras"  # in `card.sampling`
STEPS = 20
GUIDANCE, GUIDANCE_XL = 7.5, 5.0
FAST = {INTERVAL: 2, "guidance_low": 1.2}
"""Deep layers at every second step, and no guidance at the last 8 of 20: there it no longer decides
what is drawn (Castillo et al. 2023, "Adaptive Guidance", arXiv:2312.12487).
"""
LARGEST_SIDE, TILE = 4096, 1024
HIGHEST_LEVEL = 10_000.0  # above that of a table whose last timestep has no signal, 4096
_COMMON = (
    "num_inference_steps", "guidance_scale", "guidance_low", "guidance_high", "guidance_rescale",
    "sampler", "strength", INTERVAL,
)  # fmt: skip


def checkpoint_card(checkpoint: Checkpoint, name: str, *, loras: Sequence[Lora] = ()) -> ModelCard:
    """The card of a checkpoint with the changes of `loras`; reads and hashes all weights.

    Raises:
        CardError: its noise levels or what it predicts are not known here.
    """
    table, _ = table_from(checkpoint.scheduler), prediction_of(checkpoint.scheduler)
    files = {**checkpoint.files, **lora_files(loras)}
    kind = "Stable Diffusion XL" if checkpoint.xl else "Stable Diffusion"
    predicts = checkpoint.scheduler.get("prediction_type", "epsilon")
    return ModelCard(
        name=name,
        family=FAMILY,
        network={
            "name": FAMILY,
            "config": {"width": int(checkpoint.unet["block_out_channels"][0]),
                       "xl": checkpoint.xl, "prediction": predicts},
        },
        image_size=checkpoint.image_size,
        conditions=("text",),
        options=card_options(checkpoint),
        fast=FAST,
        sampling={
            CHECKPOINT: str(checkpoint.single or checkpoint.folder),
            **({CONFIG: str(checkpoint.folder)} if checkpoint.single else {}),
            LORAS: [[str(lora.path), lora.scale] for lora in loras],
            "sigma_min": float(table[0]), "sigma_max": float(table[-1]),
            "recommended_sampler": recommended_sampler(checkpoint.scheduler),
        },
        weights={key: file_sha256(file) for key, file in files.items()},
        summary=f"{kind}, {checkpoint.image_size} px, from a checkpoint of its own",
        notes="Imported, not trained here; its author's licence and terms apply.",
        licence="as its author states",
    )  # fmt: skip


def card_options(checkpoint: Checkpoint) -> tuple[OptionSpec, ...]:
    """What may be chosen: DPM-Solver++ at 20 of the checkpoint's own levels by default."""
    known = diffusion_options(
        num_inference_steps=STEPS, guidance_scale=GUIDANCE_XL if checkpoint.xl else GUIDANCE,
        reuses=True,
    )  # fmt: skip
    common = {spec.name: spec for spec in known if spec.name in _COMMON}
    steps = replace(common.pop("num_inference_steps"), maximum=999)
    scale = replace(common.pop("guidance_scale"), maximum=30)
    high = replace(common["guidance_high"], default=HIGHEST_LEVEL, maximum=HIGHEST_LEVEL)
    common["guidance_high"] = high
    sides = (
        OptionSpec(
            side, "integer", checkpoint.image_size, minimum=checkpoint.factor,
            maximum=LARGEST_SIDE, help=f"in pixels, a multiple of {checkpoint.factor}",
        )
        for side in ("width", "height")
    )  # fmt: skip
    return (
        steps, scale, *common.values(),
        OptionSpec(
            "schedule", "choice", OWN, choices=(OWN, *SPACINGS, *SCHEDULES),
            help="where the noise levels of the steps lie; native is as the checkpoint says",
        ),
        *sides,
        OptionSpec(
            "tile", "integer", TILE, minimum=64, maximum=LARGEST_SIDE,
            help="pixels along a side up to which a picture is decoded whole",
        ),
        *(_as_saved(spec, checkpoint) for spec in known if spec.of_a_method),
    )  # fmt: skip


def _as_saved(spec: OptionSpec, checkpoint: Checkpoint) -> OptionSpec:
    """A method's option, by default as diffusers runs the checkpoint."""
    scheduler = checkpoint.scheduler
    if spec.name == "plms.combines" and scheduler.get("prediction_type") == "v_prediction":
        return replace(spec, default="velocity")
    if spec.name == "unipc.solver_order":
        return replace(spec, default=int(scheduler.get("solver_order", 2)))
    return spec


def checkpoint_of(card: ModelCard) -> Checkpoint:
    """The checkpoint that a card points at.

    Raises:
        CardError: the card does not say where, or it is no longer there.
    """
    place, config = card.sampling.get(CHECKPOINT), card.sampling.get(CONFIG)
    if not isinstance(place, str) or not (config is None or isinstance(config, str)):
        raise CardError(f"The card of {card.name!r} does not say where its checkpoint is.")
    if not Path(place).exists():
        raise CardError(
            f"The checkpoint {place} of the model {card.name!r} is no longer there: put it back, "
            "or import it again from where it is now."
        )
    return read_checkpoint(Path(place), Path(config) if config else None)


def loras_of(card: ModelCard) -> tuple[Lora, ...]:
    """The LoRA files of a card.

    Raises:
        CardError: they are not stated as `checkpoint_card` does, or one is no longer there.
    """
    return tuple(_lora(card, entry) for entry in card.sampling.get(LORAS, ()))


def weight_files(card: ModelCard) -> list[Path]:
    """Where the weights of a card's checkpoint lie, those of its LoRA files with them.

    Raises:
        CardError: as `checkpoint_of` and `loras_of`.
    """
    files = {**checkpoint_of(card).files, **lora_files(loras_of(card))}
    return list(dict.fromkeys(files.values()))


def lora_files(loras: Sequence[Lora]) -> dict[str, Path]:
    """Their files by the names that a card's hashes have."""
    return {f"lora-{i}/{lora.path.name}": lora.path for i, lora in enumerate(loras)}


def _lora(card: ModelCard, entry: Any) -> Lora:
    try:
        path, scale = entry
        lora = Lora(Path(path), float(scale))
    except (TypeError, ValueError) as error:
        raise CardError(f"The card of {card.name!r} states a LoRA wrongly: {error}.") from error
    if not lora.path.is_file():
        raise CardError(f"The LoRA {path} of the model {card.name!r} is no longer there.")
    return lora


def model_name(path: Path) -> str:
    """A card's name made of a file's or folder's."""
    stem = path.stem if path.suffix == ".safetensors" else path.name
    return re.sub(r"[^a-z0-9]+", "-", stem.casefold()).strip("-") or "checkpoint"
