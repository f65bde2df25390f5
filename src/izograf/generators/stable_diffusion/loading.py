"""From a checkpoint's files to its networks, each in its precision on its device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from izograf.core.backends import BACKENDS, EAGER
from izograf.core.devices import Placement
from izograf.generators.stable_diffusion.checkpoint import Checkpoint, read_json
from izograf.generators.stable_diffusion.codec import Autoencoder, flat_colours
from izograf.generators.stable_diffusion.extra import quiet, required
from izograf.generators.stable_diffusion.lora import Lora, add_lora
from izograf.generators.stable_diffusion.network import conditioned
from izograf.generators.stable_diffusion.safety import SafetyChecker
from izograf.generators.stable_diffusion.text import Encoder, Prompts
from izograf.schema.errors import CardError

_TEXT_PREFIXES = ("cond_stage_model.", "conditioner.")  # of one file, SD 1 and 2, and SDXL


@dataclass(frozen=True)
class Networks:
    """What a checkpoint is made of, ready to be called.

    Attributes:
        unet: (x [B,C,h,w], timestep [B], Condition) -> like x.
        vae: with `encoder` and `decoder`; `vae_dtype` is what both take.
        to_rgb: [3,C+1], see `codec.flat_colours`.
        prompts: the text encoders.
        safety: None where the checkpoint has no checker, or it is left out.
    """

    unet: nn.Module
    vae: nn.Module
    vae_dtype: torch.dtype
    to_rgb: Tensor
    prompts: Prompts
    safety: SafetyChecker | None


def load_networks(
    checkpoint: Checkpoint,
    placement: Placement,
    *,
    loras: Sequence[Lora] = (),
    safety: bool = True,
    identity: str = "",
    weights: str = "",
) -> Networks:
    """The networks of a checkpoint, with the changes of `loras`.

    On a CPU the text encoders compute in float32 whatever the precision: they run once a prompt.

    Args:
        identity: what determines the networks besides their weights, for a backend's cache.
        weights: what determines their weights, where it is known.

    Raises:
        MissingExtra: diffusers, transformers or, for a LoRA, peft is not installed.
        CardError: the files do not fit each other.
    """
    required("diffusers")
    required("transformers")
    quiet()
    try:
        unet, vae = _diffusers_parts(checkpoint)
        texts = _text_models(checkpoint)
        checker = _safety_checker(checkpoint) if safety and checkpoint.has_safety_checker else None
        tokenizers = [_tokenizer(checkpoint, name) for name in texts]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CardError(
            f"The checkpoint {checkpoint.single or checkpoint.folder} cannot be loaded: {reason}"
        ) from error
    for lora in loras:
        add_lora(lora, unet, texts, xl=checkpoint.xl)
    on_cpu = placement.device == "cpu"
    for model in (*texts.values(), *([checker.model] if checker else [])):
        _frozen(model).to(placement.device, torch.float32 if on_cpu else placement.dtype)
    half = placement.dtype == torch.float16
    exact = half and bool(checkpoint.vae.get("force_upcast", True))  # float16 overflows in it
    encoders = _encoders(checkpoint, texts, tokenizers)
    autoencoder = _frozen(Autoencoder(vae))
    to_rgb = flat_colours(autoencoder, int(checkpoint.vae["latent_channels"]))
    return Networks(
        unet=_placed(conditioned(unet), placement, "denoiser", f"{identity} unet", weights),
        vae=_placed(
            autoencoder, _in_float32(placement) if exact else placement, "codec",
            f"{identity} vae", weights,
        ),
        vae_dtype=torch.float32 if exact else placement.dtype,
        to_rgb=to_rgb,
        prompts=Prompts(
            encoders,
            zero_null=bool(checkpoint.xl and checkpoint.index.get("force_zeros_for_empty_prompt")),
        ),
        safety=checker,
    )  # fmt: skip


def identity_of(checkpoint: Checkpoint) -> str:
    """What determines the networks besides their weights: shapes, and who reads them."""
    versions = {}
    for package in ("diffusers", "peft"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    shapes = [dict(checkpoint.unet), dict(checkpoint.vae)]
    return json.dumps([*shapes, versions], sort_keys=True)


def _placed(
    network: nn.Module, placement: Placement, kind: str, identity: str, weights: str
) -> nn.Module:
    return BACKENDS[placement.backend].place(
        _frozen(network), placement,
        kind=kind, identity=f"stable-diffusion {identity}", weights=weights,
    )  # fmt: skip


def _frozen(network: Any) -> Any:
    return network.requires_grad_(False).eval()


def _in_float32(placement: Placement) -> Placement:
    return Placement(placement.device, "fp32", EAGER)


def _diffusers_parts(checkpoint: Checkpoint) -> tuple[Any, Any]:
    diffusers = required("diffusers")
    kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    if checkpoint.single is not None:
        unet, vae = (
            kind.from_single_file(
                str(checkpoint.single), config=str(checkpoint.folder), subfolder=name,
                local_files_only=True, torch_dtype=torch.float32,
            )
            for name, kind in kinds.items()
        )  # fmt: skip
        return unet, vae
    unet, vae = (
        kind.from_pretrained(
            str(checkpoint.folder / name), variant=checkpoint.weights[name].variant or None,
            use_safetensors=True, local_files_only=True, torch_dtype=torch.float32,
        )
        for name, kind in kinds.items()
    )  # fmt: skip
    return unet, vae


def _text_models(checkpoint: Checkpoint) -> dict[str, Any]:
    """The text encoders, float32, by the names of their folders, in order."""
    transformers = required("transformers")
    kinds = {"text_encoder": transformers.CLIPTextModel}
    if checkpoint.xl:
        kinds["text_encoder_2"] = transformers.CLIPTextModelWithProjection
    if checkpoint.single is None:
        return {
            name: kind.from_pretrained(
                str(checkpoint.folder / name), variant=checkpoint.weights[name].variant or None,
                use_safetensors=True, local_files_only=True, dtype=torch.float32,
            )
            for name, kind in kinds.items()
        }  # fmt: skip
    convert = required("diffusers.loaders.single_file_utils").create_diffusers_clip_model_from_ldm
    tensors = _text_tensors(checkpoint.single)
    return {
        name: convert(
            kind, checkpoint=dict(tensors), subfolder=name, config=str(checkpoint.folder),
            torch_dtype=torch.float32, local_files_only=True,
        )
        for name, kind in kinds.items()
    }  # fmt: skip


def _text_tensors(path: Path) -> dict[str, Tensor]:
    """The text encoders' tensors of one file that holds all networks."""
    with safe_open(path, framework="pt") as file:
        names = [n for n in file.keys() if n.startswith(_TEXT_PREFIXES)]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}


def _encoders(
    checkpoint: Checkpoint, models: dict[str, Any], tokenizers: Sequence[Any]
) -> list[Encoder]:
    return [
        Encoder(tokenizer, model, checkpoint.xl, projected=name == "text_encoder_2")
        for (name, model), tokenizer in zip(models.items(), tokenizers, strict=True)
    ]


def _tokenizer(checkpoint: Checkpoint, encoder: str) -> Any:
    folder = checkpoint.folder / encoder.replace("text_encoder", "tokenizer")
    return required("transformers").CLIPTokenizer.from_pretrained(
        str(folder), local_files_only=True
    )


def _safety_checker(checkpoint: Checkpoint) -> SafetyChecker:
    module = required("diffusers.pipelines.stable_diffusion.safety_checker")
    folder = checkpoint.folder / "safety_checker"
    model = module.StableDiffusionSafetyChecker.from_pretrained(
        str(folder), variant=checkpoint.weights["safety_checker"].variant or None,
        use_safetensors=True, local_files_only=True, dtype=torch.float32,
    )  # fmt: skip
    return SafetyChecker(model, _extractor(checkpoint.folder / "feature_extractor"))


def _extractor(folder: Path) -> Any:
    path = folder / "preprocessor_config.json"
    return read_json(path) if path.is_file() else {}
