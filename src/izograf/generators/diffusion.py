"""Sampling a diffusion model: noise per seed, schedule, guidance, sampler; the card decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.checkpoints.files import GUIDE
from izograf.core.backends import uncalibrated
from izograf.core.config import config_from_json
from izograf.core.devices import Placement
from izograf.core.rng import Seed, SeededNoise
from izograf.core.types import Condition, Denoise, Guidance, OnStep, ignore
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.editing import keep_known, start_from
from izograf.diffusion.guidance import autoguidance, classifier_free
from izograf.diffusion.precondition import PRECONDITIONERS, Preconditioner
from izograf.diffusion.reuse import INTERVAL, reusing_deep
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import SCHEDULES, Schedule
from izograf.diffusion.tables import BETAS, fixed, spaced, table_of
from izograf.generators.autoencoder import split_weights, stored_codec
from izograf.generators.codec import Codec, Pixels
from izograf.generators.diffusion_options import (
    NO_CLASS,
    TABLE_SPACINGS,
    TRAINED,
    options_of,
)
from izograf.generators.network import build_network
from izograf.generators.registry import family
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.options import OptionValue, parse_options

LONGEST_TABLE = 100_000
AWAY_FROM_GUIDE = (
    "says what guidance_scale moves away from, and autoguidance moves away from an earlier state "
    "of the model: leave one of them out."
)


class DiffusionGenerator:
    """A denoiser with its card, ready to sample; `codec` where it denoises no pictures.

    A picture in the condition is where sampling starts (image to image, by the option `strength`),
    and with a mask what is kept (inpainting), unless the network itself takes pictures.
    """

    def __init__(
        self,
        card: ModelCard,
        denoiser: Denoiser,
        placement: Placement,
        codec: Codec | None = None,
    ) -> None:
        self.card = card
        self.denoiser = denoiser
        self.codec = codec or Pixels((3, card.image_size, card.image_size))
        self._placement = placement
        self._device = torch.device(placement.device)
        self._read_guide: Callable[[], Mapping[str, Tensor]] | None = None
        self._guide: Denoiser | None = None

    def take_guide(self, read: Callable[[], Mapping[str, Tensor]], /) -> None:
        """What autoguidance moves away from; see `generators.registry.TakesGuide`."""
        self._read_guide = read

    @property
    def guide(self) -> Denoiser:
        """The guide, read at the first use: a second network as large as the model's own.

        Raises:
            CardError: there is none, or its file is not the one the card describes.
        """
        if self._guide is None:
            if self._read_guide is None:
                raise CardError(f"{self.card.name} offers autoguidance and was given no guide.")
            with torch.inference_mode(mode=False):
                network = build_network(
                    self.card,
                    self._read_guide(),
                    replace(self._placement, backend=uncalibrated(self._placement.backend)),
                    image_size=self.codec.shape[-1],
                )
            self._guide = Denoiser(network, self.denoiser.precondition)
        return self._guide

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
        sampling = self.card.sampling
        schedule = schedule_of(self.card, chosen["schedule"])
        sigmas = schedule(
            chosen["num_inference_steps"], sampling["sigma_min"], sampling["sigma_max"]
        ).to(self._device, torch.float32)
        sampler = SAMPLERS[chosen["sampler"]]
        noise = SeededNoise(self.codec.shape, seeds, self._device)
        condition = condition.to(self._device)
        if chosen.get("autoguidance_scale", 1.0) != 1 and condition.negative is not None:
            raise InvalidInput(f"A negative prompt {AWAY_FROM_GUIDE}")
        asked, denoise = condition, self._guided(chosen, len(seeds))
        if "image" not in self.card.conditions:  # then a picture is where sampling starts
            asked = replace(condition, image=None, mask=None)
        if condition.image is None or asked.image is not None:
            x = noise() * sigmas[0]
        else:
            known = self.codec.encode(condition.image)
            x, sigmas = start_from(known, sigmas, chosen.get("strength", 1.0), noise)
            if condition.mask is not None:
                denoise = keep_known(denoise, known, resized(condition.mask, known))
        shown = previewing(on_step, self.codec)
        x0 = sampler(denoise, x, sigmas, asked, noise, shown, **options_of(sampler, chosen))
        made = self.codec.decode(x0)
        if condition.mask is not None and condition.image is not None:
            made = made.lerp(condition.image, condition.mask)  # latents keep it only nearly
        return made.cpu()

    def _guided(self, chosen: Mapping[str, Any], count: int) -> Denoise:
        """The denoiser under the guidance that was chosen, for `count` pictures."""
        denoiser = reusing_deep(self.denoiser, chosen.get(INTERVAL, 1))
        if chosen.get("autoguidance_scale", 1.0) != 1:
            return self._autoguidance(chosen)(denoiser)
        if "guidance_scale" not in chosen:
            return denoiser
        negative = None
        if (name := chosen.get("negative_class", NO_CLASS)) != NO_CLASS:
            index = [label.name for label in self.card.classes].index(name)
            negative = Condition(class_ids=torch.full((count,), index, device=self._device))
        guide = classifier_free(
            chosen["guidance_scale"],
            sigma_low=chosen["guidance_low"],
            sigma_high=chosen["guidance_high"],
            rescale=chosen.get("guidance_rescale", 0.0),
            negative=negative,
        )
        return guide(denoiser)

    def _autoguidance(self, chosen: Mapping[str, Any]) -> Guidance:
        if chosen.get("guidance_scale", 1.0) != 1:
            raise InvalidInput(
                "A picture takes one kind of guidance, and here are autoguidance_scale "
                f"{chosen['autoguidance_scale']:g} and guidance_scale "
                f"{chosen['guidance_scale']:g}: set one of them to 1."
            )
        if chosen.get("negative_class", NO_CLASS) != NO_CLASS:
            raise InvalidInput(f"A negative class {AWAY_FROM_GUIDE}")
        return autoguidance(
            self.guide,
            chosen["autoguidance_scale"],
            sigma_low=chosen["guidance_low"],
            sigma_high=chosen["guidance_high"],
            rescale=chosen["guidance_rescale"],
        )


def resized(mask: Tensor, like: Tensor) -> Tensor:
    """The mask [B,1,H,W] in the height and width of `like` [B,C,h,w]: shares of what is kept."""
    if mask.shape[-2:] == like.shape[-2:]:
        return mask
    return F.interpolate(mask, like.shape[-2:], mode="area")


def schedule_of(card: ModelCard, name: str) -> Schedule:
    """The schedule of that name among those the card offers, its own ones included.

    `trailing` and `leading` are timesteps of the table the model was trained at, as far as its
    levels do not exceed the card's sigma_max.
    """
    if name == TRAINED:
        return fixed(card.sampling["levels"])
    if name in TABLE_SPACINGS:
        return spaced(_trained_table(card), name)
    return SCHEDULES[name]


def _trained_table(card: ModelCard) -> Tensor:
    law = card.sampling["noise_law"]
    count = law["num_steps"]
    if not 1 <= count <= LONGEST_TABLE:
        raise InvalidInput(f"Its table must have 1 to {LONGEST_TABLE:,} levels, got {count}.")
    levels = table_of(BETAS[law["betas"]](count))
    return levels[levels.float() <= card.sampling["sigma_max"]]


def previewing(on_step: OnStep, codec: Codec) -> OnStep:
    """`on_step` for a sampler that works in the codec's space: it is given pictures."""
    if on_step is ignore:
        return on_step

    def shown(step: int, num_steps: int, x0: Tensor, /) -> None:
        on_step(step, num_steps, codec.preview(x0))

    return shown


def preconditioner_to_json(name: str, **parameters: float) -> dict[str, Any]:
    """How a card names its preconditioner."""
    return {"name": name, "config": parameters}


def preconditioner_from_json(described: Mapping[str, Any], *, source: str) -> Preconditioner:
    """The preconditioner a card names; the network is meaningless with any other."""
    preconditioner_type = PRECONDITIONERS[described["name"]]
    return config_from_json(preconditioner_type, described.get("config", {}), source=source)


@family("diffusion")
def build(
    card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement
) -> DiffusionGenerator:
    """The generator of a diffusion card.

    Raises:
        CardError: the card lacks the sampling facts of this family, or weights do not fit.
    """
    missing = {"preconditioner", "sigma_min", "sigma_max"} - set(card.sampling)
    missing |= {"num_inference_steps", "sampler", "schedule"} - {o.name for o in card.options}
    if missing:
        raise CardError(
            f"The card of {card.name!r} lacks sampling facts: {', '.join(sorted(missing))}."
        )
    low, high = card.sampling["sigma_min"], card.sampling["sigma_max"]
    if not 0 < low < high < math.inf:
        raise CardError(
            f"The card of {card.name!r} must have 0 < sigma_min < sigma_max, got {low} and {high}."
        )
    _check_levels(card)
    if "autoguidance_scale" in {o.name for o in card.options} and GUIDE not in card.weights:
        raise CardError(f"The card of {card.name!r} offers autoguidance and names no {GUIDE}.")
    precondition = preconditioner_from_json(
        card.sampling["preconditioner"], source=f"The card of {card.name!r}"
    )
    tensors, autoencoder = split_weights(tensors)
    codec = stored_codec(card, autoencoder, placement)
    side = card.image_size if codec is None else codec.shape[-1]
    network = build_network(card, tensors, placement, image_size=side)
    return DiffusionGenerator(card, Denoiser(network, precondition), placement, codec)


def _check_levels(card: ModelCard) -> None:
    """A card that offers levels of its own must have them, for every number of steps it offers."""
    options = {option.name: option for option in card.options}
    offered, steps = options["schedule"].choices, options["num_inference_steps"]
    counts = {int(steps.minimum or 0), int(steps.maximum or 0)}
    try:
        if TRAINED in offered:
            schedule = schedule_of(card, TRAINED)
            for count in counts:
                schedule(count, 0.0, 0.0)
        if set(TABLE_SPACINGS) & set(offered) and len(_trained_table(card)) == 0:
            raise InvalidInput("Its table begins above its sigma_max.")
    except (KeyError, TypeError, ValueError, RuntimeError, InvalidInput) as error:
        reason = (
            error if isinstance(error, InvalidInput) else "Levels are a list, or a table by name."
        )
        raise CardError(
            f"The card of {card.name!r} does not have the noise levels that it offers. {reason}"
        ) from error
