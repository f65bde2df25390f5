"""Sampling a diffusion model: noise per seed, schedule, guidance, sampler; the card decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from izograf.core.config import config_from_json
from izograf.core.devices import Placement
from izograf.core.rng import Seed, SeededNoise
from izograf.core.types import Condition, OnStep, ignore
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.guidance import classifier_free
from izograf.diffusion.precondition import PRECONDITIONERS, Preconditioner
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import SCHEDULES, Schedule
from izograf.diffusion.tables import fixed
from izograf.generators.autoencoder import split_weights, stored_codec
from izograf.generators.codec import Codec, Pixels
from izograf.generators.network import build_network
from izograf.generators.registry import FAMILIES
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.options import OptionSpec, OptionValue, parse_options

TRAINED = "trained"  # the schedule of a card that carries the levels of its few steps


def diffusion_options(
    *, num_inference_steps: int = 18, guidance_scale: float = 1.5, conditional: bool = True
) -> tuple[OptionSpec, ...]:
    """The options a diffusion model's card offers, with this model's recommended defaults."""
    guidance = (
        OptionSpec(
            "guidance_scale", "number", guidance_scale, minimum=0, maximum=20,
            help="how strongly the condition is enforced; 1 is the plain conditional model",
        ),
        OptionSpec(
            "guidance_low", "number", 0.0, minimum=0, maximum=1000,
            help="no guidance at noise levels (sigma) up to this",
        ),
        OptionSpec(
            "guidance_high", "number", 1000.0, minimum=0, maximum=1000,
            help="no guidance at noise levels (sigma) above this",
        ),
    )  # fmt: skip
    return (
        OptionSpec(
            "num_inference_steps", "integer", num_inference_steps, minimum=1, maximum=1000,
            help="denoising steps: more is slower and usually better",
        ),
        *(guidance if conditional else ()),
        OptionSpec(
            "sampler", "choice", "dpm-solver++",
            choices=tuple(name for name, known in SAMPLERS.items() if known.any_model),
            help="the numerical method",
        ),
        OptionSpec(
            "schedule", "choice", "karras", choices=tuple(SCHEDULES),
            help="where the noise levels of the steps lie",
        ),
    )  # fmt: skip


def student_options(num_steps: int, *, least: int, sampler: str) -> tuple[OptionSpec, ...]:
    """The options of a few-step student: from `least` to `num_steps` steps at its own levels."""
    return (
        OptionSpec(
            "num_inference_steps", "integer", num_steps, minimum=least, maximum=num_steps,
            help="denoising steps this student was trained for",
        ),
        OptionSpec(
            "sampler", "choice", sampler, choices=(sampler,),
            help="the numerical method it was trained for",
        ),
        OptionSpec(
            "schedule", "choice", TRAINED, choices=(TRAINED,),
            help="the noise levels it was trained at",
        ),
    )  # fmt: skip


class DiffusionGenerator:
    """A denoiser with its card, ready to sample; `codec` where it denoises no pictures."""

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
        self._device = torch.device(placement.device)

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
        schedule = _schedule(self.card, chosen["schedule"])
        sigmas = schedule(
            chosen["num_inference_steps"], sampling["sigma_min"], sampling["sigma_max"]
        ).to(self._device, torch.float32)
        denoise = self.denoiser
        if "guidance_scale" in chosen:
            guide = classifier_free(
                chosen["guidance_scale"],
                sigma_low=chosen["guidance_low"],
                sigma_high=chosen["guidance_high"],
            )
            denoise = guide(self.denoiser)  # type: ignore[assignment]
        noise = SeededNoise(self.codec.shape, seeds, self._device)
        x = noise() * sigmas[0]
        sampler = SAMPLERS[chosen["sampler"]]
        shown = previewing(on_step, self.codec)
        x0 = sampler(denoise, x, sigmas, condition.to(self._device), noise, shown)
        return self.codec.decode(x0).cpu()


def _schedule(card: ModelCard, name: str) -> Schedule:
    return fixed(card.sampling["levels"]) if name == TRAINED else SCHEDULES[name]


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


@FAMILIES.register("diffusion")
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
    precondition = preconditioner_from_json(
        card.sampling["preconditioner"], source=f"The card of {card.name!r}"
    )
    tensors, autoencoder = split_weights(tensors)
    codec = stored_codec(card, autoencoder, placement)
    side = card.image_size if codec is None else codec.shape[-1]
    network = build_network(card, tensors, placement, image_size=side)
    return DiffusionGenerator(card, Denoiser(network, precondition), placement, codec)


def _check_levels(card: ModelCard) -> None:
    """A card that offers its own levels must have them, for every number of steps it offers."""
    options = {option.name: option for option in card.options}
    if TRAINED not in options["schedule"].choices:
        return
    steps = options["num_inference_steps"]
    try:
        schedule = fixed(card.sampling["levels"])
        for count in {int(steps.minimum or 0), int(steps.maximum or 0)}:
            schedule(count, 0.0, 0.0)
    except (KeyError, TypeError, ValueError, RuntimeError, InvalidInput) as error:
        reason = error if isinstance(error, InvalidInput) else "Its levels must be a list."
        raise CardError(
            f"The card of {card.name!r} does not have the noise levels that it offers. {reason}"
        ) from error
