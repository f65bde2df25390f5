"""Tiny Stable Diffusion checkpoints with random weights, saved by diffusers itself.

A tokenizer is made on the spot; pictures are 16 x 16, latents 8 x 8.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from izograf.core.devices import Placement
from izograf.core.rng import seeded_layers
from izograf.generators.stable_diffusion.card import checkpoint_card
from izograf.generators.stable_diffusion.checkpoint import read_checkpoint
from izograf.generators.stable_diffusion.extra import quiet
from izograf.generators.stable_diffusion.generator import (
    StableDiffusionGenerator,
    load_checkpoint,
)

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "skip_prk_steps": True,
}
KINDS: dict[str, dict[str, Any]] = {
    "1": {},
    "2": {"prediction_type": "v_prediction"},
    "xl": {"timestep_spacing": "leading"},
}
WORDS = ("a", "dog", "eats", "carrot", "the", "sea", "cat", "red")
PAD = "<|endoftext|>"


@cache
def tiny_words() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-pair vocabulary of letters and of `WORDS`, and the merges that make the words."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!-"
    units = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            units.append(parts[0] + parts[1])
            parts = [parts[0] + parts[1], *parts[2:]]
    names = [*dict.fromkeys(units), "<|startoftext|>", "<|endoftext|>"]
    return {name: index for index, name in enumerate(names)}, list(dict.fromkeys(merges))


def tokenizer_files(folder: Path, *, pad: str = PAD) -> None:
    vocabulary, merges = tiny_words()
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True,
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>", "pad_token": pad,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    special = {key: config[key] for key in config if key.endswith("_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def text_config(dim: int = 16, *, layers: int = 3, projection: int = 16) -> Any:
    from transformers import CLIPTextConfig

    vocabulary, _ = tiny_words()
    return CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=dim, intermediate_size=2 * dim,
        num_attention_heads=2, num_hidden_layers=layers, max_position_embeddings=77,
        projection_dim=projection, bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"], pad_token_id=1,
    )  # fmt: skip


def unet(*, text_dim: int = 16, xl: bool = False, widths: tuple[int, ...] = (16, 32)) -> Any:
    from diffusers import UNet2DConditionModel

    more: dict[str, Any] = {}
    if xl:
        more = {
            "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 16 + 6 * 8,
            "transformer_layers_per_block": (1, 2), "use_linear_projection": True,
        }  # fmt: skip
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=widths, norm_num_groups=8, attention_head_dim=(2, 4),
        cross_attention_dim=text_dim,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D")[:: -1 if xl else 1],
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")[:: -1 if xl else 1],
        **more,
    )  # fmt: skip


def vae(widths: tuple[int, ...] = (8, 16)) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        norm_num_groups=8, sample_size=16, scaling_factor=0.18215,
    )  # fmt: skip


def pipeline(kind: str, folder: Path, **scheduler: Any) -> Any:
    """A pipeline "1", "2" (velocity) or "xl", with its tokenizers written below `folder`."""
    from diffusers import (
        DDIMScheduler,
        EulerDiscreteScheduler,
        PNDMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    config = {**SCHEDULER, **KINDS[kind], **scheduler}
    names = ("tokenizer", "tokenizer_2") if kind == "xl" else ("tokenizer",)
    for name in names:
        tokenizer_files(folder / name, pad=PAD if name == "tokenizer" and kind != "2" else "!</w>")
    words = [CLIPTokenizer.from_pretrained(str(folder / name)) for name in names]
    with seeded_layers("tests", "stable diffusion", kind):
        if kind == "xl":
            first, second = text_config(8), text_config(16)
            made = StableDiffusionXLPipeline(
                vae=vae(), text_encoder=CLIPTextModel(first),
                text_encoder_2=CLIPTextModelWithProjection(second), tokenizer=words[0],
                tokenizer_2=words[1], unet=unet(text_dim=24, xl=True),
                scheduler=EulerDiscreteScheduler.from_config(config), add_watermarker=False,
            )  # fmt: skip
        else:
            kinds = {"1": PNDMScheduler, "2": DDIMScheduler}
            made = StableDiffusionPipeline(
                vae=vae(), text_encoder=CLIPTextModel(text_config()), tokenizer=words[0],
                unet=unet(), scheduler=kinds[kind].from_config(config), safety_checker=None,
                feature_extractor=None, requires_safety_checker=False,
            )  # fmt: skip
        _enliven(made)
    made.set_progress_bar_config(disable=True)
    return made


def _enliven(made: Any) -> None:
    """Weights so large that text, level and latents all matter to what is predicted."""
    with torch.no_grad():
        for name, value in made.unet.named_parameters():
            if "attn2" in name and value.ndim == 2:
                value.mul_(2)
        for encoder in (made.text_encoder, getattr(made, "text_encoder_2", None)):
            if encoder is not None:
                for value in encoder.parameters():
                    if value.ndim == 2:
                        value.mul_(2)


def saved(kind: str, folder: Path, **scheduler: Any) -> Any:
    """The pipeline, saved as safetensors in `folder / "checkpoint"`."""
    quiet()
    made = pipeline(kind, folder / "words", **scheduler)
    made.save_pretrained(folder / "checkpoint", safe_serialization=True)
    return made


def loaded(folder: Path, **more: Any) -> StableDiffusionGenerator:
    """Our generator of the checkpoint in `folder`, in float32 on the CPU."""
    card = checkpoint_card(read_checkpoint(folder), "tiny")
    return load_checkpoint(card, Placement("cpu", "fp32"), **more)


def full_width(folder: Path) -> Any:
    """A pipeline of SD 1.x's own U-Net and text encoder, saved like `saved`; 3.9 GB on disk."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    quiet()
    tokenizer_files(folder / "words" / "tokenizer")
    vocabulary, _ = tiny_words()
    text = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=768, intermediate_size=3072,
        num_attention_heads=12, num_hidden_layers=12, max_position_embeddings=77,
        bos_token_id=vocabulary["<|startoftext|>"], eos_token_id=vocabulary["<|endoftext|>"],
    )  # fmt: skip
    with seeded_layers("tests", "stable diffusion", "full width"):
        made = StableDiffusionPipeline(
            vae=vae((8, 8, 16, 16)), text_encoder=CLIPTextModel(text),
            tokenizer=CLIPTokenizer.from_pretrained(str(folder / "words" / "tokenizer")),
            unet=UNet2DConditionModel(
                sample_size=64, cross_attention_dim=768, attention_head_dim=8,
                block_out_channels=(320, 640, 1280, 1280),
            ),
            scheduler=PNDMScheduler.from_config(SCHEDULER), safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(folder / "checkpoint", safe_serialization=True)
    return made


def single_file(pipeline: Any, path: Path) -> None:
    """The pipeline of SD 1 as one file with the names of the original programs."""
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for name, value in pipeline.unet.state_dict().items():
        tensors[f"model.diffusion_model.{_unet_name(name)}"] = value
    for name, value in pipeline.vae.state_dict().items():
        named = _vae_name(name)
        kernel = value.ndim == 2 and ".attn_1." in named
        tensors[f"first_stage_model.{named}"] = value[..., None, None] if kernel else value
    for name, value in pipeline.text_encoder.state_dict().items():
        named = name if name.startswith("text_model.") else f"text_model.{name}"
        tensors[f"cond_stage_model.transformer.{named}"] = value
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def _unet_name(name: str) -> str:
    """Of two levels with one layer each: 1 and 3 on the way down, two blocks a level up."""
    for ours, original in _ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, original, 1)
    parts = name.split(".")
    if parts[0] == "mid_block":
        place = {"resnets": 2 * int(parts[2]), "attentions": 1}[parts[1]]
        head, rest = f"middle_block.{place}", parts[3:]
    else:
        level, kind, index, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
        if kind == "downsamplers":
            return f"input_blocks.2.0.op.{parts[-1]}"
        if kind == "upsamplers":
            return f"output_blocks.1.1.conv.{parts[-1]}"
        block = 1 + 2 * level if parts[0] == "down_blocks" else 2 * level + index
        side = "input_blocks" if parts[0] == "down_blocks" else "output_blocks"
        head = f"{side}.{block}.{1 if kind == 'attentions' else 0}"
    return ".".join([head, _RESNET.get(rest[0], rest[0]), *rest[1:]])


def _vae_name(name: str) -> str:
    for ours, original in (
        ("down_blocks.", "down."), ("resnets.", "block."), ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"), ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"), ("mid_block.block.0", "mid.block_1"),
        ("mid_block.block.1", "mid.block_2"), ("mid_block.attentions.0", "mid.attn_1"),
        ("up_blocks.0", "up.1"), ("up_blocks.1", "up.0"),
    ):  # fmt: skip
        name = name.replace(ours, original)
    for ours, original in (
        ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ):  # fmt: skip
        name = name.replace(f"attn_1.{ours}", f"attn_1.{original}")
    return name
