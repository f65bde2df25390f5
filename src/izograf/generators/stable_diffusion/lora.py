"""LoRA files (Hu et al. 2022): low-rank changes of a checkpoint, added to its weights for good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from izograf.core.storage import load_tensors
from izograf.generators.stable_diffusion.extra import required
from izograf.schema.errors import CardError, InvalidInput, NotFound
from izograf.schema.library import refuse_pickle


@dataclass(frozen=True)
class Lora:
    """One LoRA file and the factor its change is multiplied with."""

    path: Path
    scale: float = 1.0


def parse_lora(text: str) -> Lora:
    """`file.safetensors`, or with a factor `file.safetensors:0.8`.

    Raises:
        NotFound: no such file; UnsafeFile: a pickle; InvalidInput: the factor is no number.
    """
    name, separator, number = text.rpartition(":")
    if not separator or Path(text).is_file():
        name, number = text, "1"
    try:
        scale = float(number)
    except ValueError:
        name, scale = text, 1.0
    path = Path(name)
    refuse_pickle(path)
    if not math.isfinite(scale) or abs(scale) > 10:
        raise InvalidInput(f"The scale of a LoRA must be from -10 to 10, got {number}.")
    if not path.is_file():
        raise NotFound(f"There is no LoRA file {name}: a .safetensors file was expected.")
    return Lora(path.absolute(), scale)


def add_lora(lora: Lora, unet: Any, encoders: Mapping[str, Any], *, xl: bool) -> None:
    """Adds the change to the U-Net's and the text encoders' weights, in place.

    Args:
        encoders: by the prefix of their keys, `text_encoder` and for SDXL `text_encoder_2`.

    Raises:
        CardError: it was made for networks of other shapes, or is no LoRA.
        MissingExtra: peft is not installed.
    """
    required("peft")
    pipelines = required("diffusers.loaders.lora_pipeline")
    kind = "StableDiffusionXLLoraLoaderMixin" if xl else "StableDiffusionLoraLoaderMixin"
    mixin = getattr(pipelines, kind)
    tensors = load_tensors(lora.path)
    try:
        found = mixin.lora_state_dict(tensors, unet_config=unet.config)
        changes, alphas = found[0], found[1]
        parts = _parts(changes, ("unet", *encoders))
        if not parts:
            raise CardError(f"{lora.path} is no LoRA of Stable Diffusion: it changes none of its "
                            "networks.")  # fmt: skip
        if "unet" in parts:
            mixin.load_lora_into_unet(changes, network_alphas=alphas, unet=unet)
            _fuse(unet, lora.scale)
        for prefix, encoder in encoders.items():
            if prefix in parts:
                mixin.load_lora_into_text_encoder(
                    changes, network_alphas=alphas, text_encoder=encoder, prefix=prefix
                )
                _fuse(encoder, lora.scale)
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CardError(
            f"{lora.path} does not fit this checkpoint: it was made for another kind of model "
            f"({reason[:200]})."
        ) from error


def _parts(changes: Mapping[str, Any], prefixes: Sequence[str]) -> set[str]:
    return {p for p in prefixes if any(key.startswith(f"{p}.") for key in changes)}


def _fuse(network: Any, scale: float) -> None:
    """Merges every low-rank layer into the layer it changes, and removes it."""
    tuners = required("peft.tuners.tuners_utils")
    remove = required("diffusers.utils").recurse_remove_peft_layers
    for module in network.modules():
        if isinstance(module, tuners.BaseTunerLayer):
            for adapter in module.active_adapters:
                module.set_scale(adapter, scale)
            module.merge()
    remove(network)
    if hasattr(network, "peft_config"):
        del network.peft_config
    if hasattr(network, "_hf_peft_config_loaded"):
        network._hf_peft_config_loaded = False
