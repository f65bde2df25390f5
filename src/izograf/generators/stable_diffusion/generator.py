"""A Stable Diffusion checkpoint as a generator: its networks under our samplers and guidance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.core.devices import Placement
from izograf.core.rng import Seed, SeededNoise
from izograf.core.storage import file_sha256
from izograf.core.types import Condition, Denoise, OnStep, ignore
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.editing import keep_known, start_from
from izograf.diffusion.guidance import classifier_free
from izograf.diffusion.reuse import INTERVAL, reusing_deep
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.tables import unit_state
from izograf.generators.diffusion import previewing, resized
from izograf.generators.diffusion_options import options_of
from izograf.generators.registry import family
from izograf.generators.stable_diffusion.card import (
    CHECKPOINT,
    checkpoint_of,
    lora_files,
    loras_of,
    weight_files,
)
from izograf.generators.stable_diffusion.checkpoint import Checkpoint
from izograf.generators.stable_diffusion.codec import LatentScale, SizedCodec
from izograf.generators.stable_diffusion.levels import (
    Discrete,
    Levels,
    levels_for,
    prediction_of,
    table_from,
)
from izograf.generators.stable_diffusion.loading import Networks, identity_of, load_networks
from izograf.generators.stable_diffusion.memory import check_loading, check_sampling
from izograf.generators.stable_diffusion.safety import allowed_off
from izograf.generators.stable_diffusion.text import padded
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.options import OptionValue, parse_options

# Latents that are denoised at once by kind of device: one picture of 512 x 512, or four.
AT_ONCE = {"cpu": 64 * 64, "mps": 64 * 64, "cuda": 4 * 64 * 64}


class StableDiffusionGenerator:
    """A checkpoint with its card, ready to sample.

    `Condition.text` is what `text_condition` gives, `Condition.negative` the same of the negative
    prompts; without either the empty prompt counts. A picture in the condition is where sampling
    starts and sets the size, and with a mask what is kept.
    """

    def __init__(
        self, card: ModelCard, checkpoint: Checkpoint, networks: Networks, placement: Placement
    ) -> None:
        self.card, self.checkpoint, self.networks = card, checkpoint, networks
        self.vae, self.placement = networks.vae, placement
        self._device = torch.device(placement.device)
        self._table = table_from(checkpoint.scheduler)
        precondition = Discrete(
            prediction_of(checkpoint.scheduler), self._table.to(self._device, torch.float32)
        )
        self.denoiser = Denoiser(networks.unet, precondition)

    def text_condition(self, prompts: Sequence[str]) -> Condition:
        """Text [B,L,D] of prompts, which may weigh words and be longer than 77 tokens.

        Raises:
            InvalidInput: a word's weight is too large.
        """
        return self.networks.prompts.condition(prompts)

    @torch.inference_mode()
    def sample(
        self,
        condition: Condition,
        seeds: Sequence[Seed],
        *,
        options: Mapping[str, OptionValue] | None = None,
        on_step: OnStep = ignore,
    ) -> Tensor:
        chosen: dict[str, Any] = parse_options(options or {}, self.card.options)
        condition = self._with_fitting_picture(condition)
        codec = self._codec(condition, chosen)
        most = max(1, AT_ONCE.get(self._device.type, 1) // (codec.shape[1] * codec.shape[2]))
        spans = [slice(start, start + most) for start in range(0, len(seeds), most)]
        made = []
        for done, span in enumerate(spans):
            part = condition[span].to(self._device)
            shown = _of_part(on_step, done, len(spans))
            latents = self.sample_latents(part, seeds[span], chosen, codec=codec, on_step=shown)
            made.append(self._finished(codec.decode(latents), part))
        return torch.cat(made)

    def _finished(self, images: Tensor, condition: Condition) -> Tensor:
        """The pictures with the known parts put back exactly, as far as they may be shown."""
        if condition.mask is not None and condition.image is not None:
            images = images.lerp(condition.image, condition.mask)  # latents keep it only nearly
        if self.networks.safety is not None:
            images = self.networks.safety(images)
        return images.cpu()

    @torch.inference_mode()
    def sample_latents(
        self,
        condition: Condition,
        seeds: Sequence[Seed],
        chosen: Mapping[str, Any],
        *,
        codec: SizedCodec | None = None,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """Latents, float32 [B,C,h,w] in diffusers' units; every option must be `chosen`."""
        condition = condition.to(self._device)
        codec = codec or self._codec(condition, chosen)
        levels = self._levels(chosen)
        sigmas = levels.sigmas.to(self._device, torch.float32)
        noise = SeededNoise(codec.shape, seeds, self._device)
        asked, denoise = self._asked(condition, len(seeds), codec), self._guided(chosen)
        if condition.image is None:
            x = levels.start(noise())
        else:
            known = codec.encode(condition.image)
            x, sigmas = start_from(known, sigmas, chosen["strength"], noise)
            if condition.mask is not None:
                denoise = keep_known(denoise, known, resized(condition.mask, known))
        sampler = SAMPLERS[chosen["sampler"]]
        shown = previewing(on_step, codec)
        end = sampler(denoise, x, sigmas, asked, noise, shown, **options_of(sampler, chosen))
        return unit_state(end, float(sigmas[-1]))

    def _levels(self, chosen: Mapping[str, Any]) -> Levels:
        return levels_for(
            self.checkpoint.scheduler, self._table, sampler=chosen["sampler"],
            schedule=chosen["schedule"], steps=chosen["num_inference_steps"],
        )  # fmt: skip

    def _guided(self, chosen: Mapping[str, Any]) -> Denoise:
        guide = classifier_free(
            chosen["guidance_scale"],
            sigma_low=chosen["guidance_low"],
            sigma_high=chosen["guidance_high"],
            rescale=chosen["guidance_rescale"],
        )
        return guide(reusing_deep(self.denoiser, chosen.get(INTERVAL, 1)))

    def _asked(self, condition: Condition, count: int, codec: SizedCodec) -> Condition:
        """The condition in full: text, SDXL's sizes, and a negative one of the same length."""
        positive = condition
        if positive.text is None:
            positive = self.text_condition([""] * count)
        negative = condition.negative or self.networks.prompts.null(count)
        positive, negative = (self._sized(part, codec) for part in (positive, negative))
        longest = max(len(part.text[0]) for part in (positive, negative) if part.text is not None)
        positive, negative = (
            replace(part, text=None if part.text is None else padded(part.text, longest))
            for part in (positive, negative)
        )
        return replace(positive, image=None, mask=None, negative=negative)

    def _sized(self, part: Condition, codec: SizedCodec) -> Condition:
        """SDXL is told the picture's size three times: original, top left corner, and wanted."""
        part = replace(part, image=None, mask=None, negative=None).to(self._device)
        if part.attributes is None:
            return part
        height, width = (codec.factor * length for length in codec.shape[1:])
        sizes = part.attributes.new_tensor([height, width, 0, 0, height, width])
        given = [part.attributes, sizes.expand(len(part.attributes), -1)]
        return replace(part, attributes=torch.cat(given, dim=1))

    def _with_fitting_picture(self, condition: Condition) -> Condition:
        """The picture, and its mask, resized a little where its sides are no multiples."""
        if condition.image is None:
            return condition
        factor = self.checkpoint.factor
        size = [max(factor, side // factor * factor) for side in condition.image.shape[-2:]]
        mask = condition.mask
        if list(condition.image.shape[-2:]) != size:
            image = F.interpolate(condition.image, size, mode="bilinear", antialias=True)
            condition = replace(condition, image=image.clamp(-1, 1))
        if mask is not None and list(mask.shape[-2:]) != size:
            mask = F.interpolate(mask, size, mode="area")
        return replace(condition, mask=mask)

    def _codec(self, condition: Condition, chosen: Mapping[str, Any]) -> SizedCodec:
        """
        Raises:
            InvalidInput: a side that is no multiple of the latents', or too little memory.
        """
        factor, vae = self.checkpoint.factor, self.checkpoint.vae
        height, width = chosen["height"], chosen["width"]
        if condition.image is not None:
            height, width = condition.image.shape[-2:]
        if height % factor or width % factor:
            raise InvalidInput(
                f"Width and height must be multiples of {factor}, got {width} x {height}: "
                f"{width // factor * factor} x {height // factor * factor} is the nearest below."
            )
        codec = SizedCodec(
            network=self.networks.vae, latents=LatentScale.of(vae),
            shape=(vae["latent_channels"], height // factor, width // factor), factor=factor,
            tile=max(8, chosen["tile"] // factor), dtype=self.networks.vae_dtype,
            device=self._device, to_rgb=self.networks.to_rgb,
        )  # fmt: skip
        check_sampling(self.checkpoint, codec, self._device)
        return codec


def _of_part(on_step: OnStep, part: int, parts: int) -> OnStep:
    """`on_step` for one of several parts of a batch: it counts the steps of all."""
    if on_step is ignore or parts == 1:
        return on_step

    def counted(step: int, num_steps: int, preview: Tensor, /) -> None:
        on_step(part * num_steps + step, parts * num_steps, preview)

    return counted


@family("stable-diffusion", files=weight_files, half_on_mps=True)
def build(
    card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement
) -> StableDiffusionGenerator:
    """The generator of a card that points at a checkpoint; `tensors` stay empty.

    Raises:
        MissingExtra: diffusers or transformers is not installed.
        CardError: the checkpoint is gone, or not the one the card describes.
        InvalidInput: there is not enough memory for its weights.
    """
    del tensors
    return load_checkpoint(card, placement, safety=not allowed_off())


def load_checkpoint(
    card: ModelCard, placement: Placement, *, safety: bool = True
) -> StableDiffusionGenerator:
    """As `build`; `safety=False` leaves out the checkpoint's safety checker."""
    checkpoint, loras = checkpoint_of(card), loras_of(card)
    files = {**checkpoint.files, **lora_files(loras)}
    check_loading(checkpoint, placement)
    for name, expected in card.weights.items():
        if name not in files or file_sha256(files[name]) != expected:
            raise CardError(
                f"{name} in {card.sampling[CHECKPOINT]} is not the file that the card of "
                f"{card.name!r} describes: import the checkpoint again."
            )
    weights = json.dumps([dict(card.weights), [lora.scale for lora in loras]])
    networks = load_networks(
        checkpoint, placement,
        loras=loras, safety=safety, identity=identity_of(checkpoint), weights=weights,
    )  # fmt: skip
    return StableDiffusionGenerator(card, checkpoint, networks, placement)
