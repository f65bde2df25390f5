"""A Stable Diffusion checkpoint on disk, in diffusers' layout or as one file; nothing is loaded.

The layout: a folder with `model_index.json` and a folder for each part (`unet`, `vae`,
`text_encoder`, `tokenizer`, `scheduler`, and for SDXL `text_encoder_2` and `tokenizer_2`), each
with its configuration, the networks' weights beside theirs. Only safetensors are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from izograf.schema.errors import CardError, NotFound, UnsafeFile
from izograf.schema.library import PICKLED, refuse_pickle

INDEX = "model_index.json"
LARGEST_JSON = 64 * 1024 * 1024
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_TEXT_STEM = "model"
_VARIANTS = ("", "fp16", "bf16")  # the same numbers; the plain ones lose least

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Weights:
    """The files of one part's weights: `variant` is the infix of their names, may be empty."""

    variant: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint; made by `read_checkpoint`.

    Attributes:
        folder: where configurations and tokenizers are, and the weights of a folder checkpoint.
        single: the one file that holds all weights instead; None for a folder checkpoint.
        index, unet, vae, scheduler: `model_index.json` and the parts' configurations.
    """

    folder: Path
    single: Path | None
    index: Json
    unet: Json
    vae: Json
    scheduler: Json

    @property
    def xl(self) -> bool:
        """Whether it is of SDXL's kind: two text encoders and pictures' sizes as a condition."""
        return bool(self.unet.get("addition_embed_type") == "text_time")

    @property
    def networks(self) -> tuple[str, ...]:
        """The parts that have weights."""
        second = ("text_encoder_2",) if self.xl else ()
        safety = ("safety_checker",) if self.has_safety_checker else ()
        return ("unet", "vae", "text_encoder", *second, *safety)

    @property
    def has_safety_checker(self) -> bool:
        """One file never holds it; a folder may name it and not have it."""
        named = self.index.get("safety_checker")
        stated = isinstance(named, list) and bool(named) and named[0] is not None
        return stated and self.single is None and (self.folder / "safety_checker").is_dir()

    @cached_property
    def weights(self) -> Mapping[str, Weights]:
        """The files of every part that has weights; empty for one file."""
        if self.single is not None:
            return {}
        return {name: weights_of(self.folder / name, name) for name in self.networks}

    @property
    def files(self) -> Mapping[str, Path]:
        """Every file of weights, by its name on a card."""
        if self.single is not None:
            return {self.single.name: self.single}
        parts = self.weights.items()
        return {f"{name}/{file.name}": file for name, part in parts for file in part.files}

    @property
    def factor(self) -> int:
        """Pixels along a side of one latent."""
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))

    @property
    def image_size(self) -> int:
        """Height and width of the pictures it was trained for."""
        side = self.unet.get("sample_size") or 64
        return self.factor * int(side[0] if isinstance(side, list) else side)


def read_checkpoint(path: Path, config: Path | None = None) -> Checkpoint:
    """The checkpoint at `path`, a folder, or one safetensors file with the folder `config`.

    Raises:
        NotFound: nothing there, or no configuration for one file.
        UnsafeFile: weights only as pickles.
        CardError: a file is missing or malformed, or it is of a kind that is not supported.
    """
    if path.suffix.lower() in PICKLED or path.is_file():
        refuse_pickle(path)
    if path.is_file() and config is None:
        raise NotFound(
            f"{path} holds weights but no tokenizer and no configuration: add --config FOLDER, "
            "any folder in diffusers' layout of the same kind of model (its weights are not read)."
        )
    folder = path if config is None else config
    if not (folder / INDEX).is_file():
        raise NotFound(
            f"There is no Stable Diffusion checkpoint in {folder}: a folder with {INDEX} was "
            "expected."
        )
    found = Checkpoint(
        folder=folder.absolute(),
        single=path.absolute() if path.is_file() else None,
        index=read_json(folder / INDEX),
        unet=read_json(folder / "unet" / "config.json"),
        vae=read_json(folder / "vae" / "config.json"),
        scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
    )
    _check_kind(found)
    found.files  # noqa: B018 - so that missing and pickled weights are refused here
    return found


def read_json(path: Path) -> Json:
    """
    Raises:
        CardError: missing, no JSON object, or too large to be one.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise CardError(f"{path} is too large for a configuration.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CardError(f"{path} is missing: download the checkpoint again.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CardError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise CardError(f"{path} is not a configuration: a JSON object was expected.")
    return values


def weights_of(folder: Path, part: str) -> Weights:
    """The safetensors of one part.

    Raises:
        UnsafeFile: there are pickles only; CardError: there is nothing.
    """
    stem = _STEMS.get(part, _TEXT_STEM)
    for variant in _VARIANTS:
        infix = f".{variant}" if variant else ""
        whole = folder / f"{stem}{infix}.safetensors"
        if whole.is_file():
            return Weights(variant, (whole,))
        shards = folder / f"{stem}.safetensors.index{infix}.json"
        if shards.is_file():
            return Weights(variant, _shards(folder, shards))
    found = sorted(folder.glob("*")) if folder.is_dir() else []
    pickles = [file for file in found if file.suffix.lower() in PICKLED]
    if pickles:
        raise UnsafeFile(
            f"{pickles[0]} is a pickle, which can execute code when loaded, so it is refused. "
            "Convert the checkpoint on a machine you trust: load it there with diffusers' "
            "DiffusionPipeline.from_pretrained and write it with save_pretrained(FOLDER, "
            "safe_serialization=True)."
        )
    raise CardError(
        f"{folder / stem}.safetensors is missing: download the checkpoint again, with weights as "
        "safetensors."
    )


def _shards(folder: Path, index: Path) -> tuple[Path, ...]:
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise CardError(f"{index} does not name any weights.")
    files = tuple(folder / Path(str(name)).name for name in sorted(set(named.values())))
    for file in files:
        if file.suffix != ".safetensors" or not file.is_file():
            raise CardError(f"{file} is missing: download the checkpoint again.")
    return files


def _check_kind(found: Checkpoint) -> None:
    """
    Raises:
        CardError: no network for pictures from text, or one of a kind that is not supported.
    """
    unet, where = found.unet, found.folder / "unet"
    if unet.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel":
        raise CardError(
            f"{where} is a {unet['_class_name']}: Stable Diffusion 1, 2 or XL expected."
        )
    if unet.get("in_channels", 4) != found.vae.get("latent_channels", 4):
        raise CardError(
            f"{where} takes {unet.get('in_channels')} channels: checkpoints made for inpainting or "
            "editing only are not supported; a plain one takes pictures and masks as well."
        )
    if unet.get("time_cond_proj_dim") or unet.get("encoder_hid_dim_type"):
        raise CardError(
            f"{where} takes more than levels and text: such variants are not supported."
        )
    if unet.get("addition_embed_type") not in (None, "text_time"):
        raise CardError(f"{where} has an addition_embed_type that is not supported.")
    if not isinstance(found.vae.get("block_out_channels"), list):
        raise CardError(f"{found.folder / 'vae'} does not state its block_out_channels.")
    if not (found.folder / "text_encoder").is_dir():
        raise CardError(
            f"{found.folder} has no text_encoder: refiners, which repaint another model's "
            "pictures, are not supported."
        )
