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
from izograf.diffusion.schedules import SCHEDULES
from izograf.generators.network import build_network
from izograf.generators.registry import FAMILIES
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError
from izograf.schema.options import OptionSpec, OptionValue, parse_options


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
            "sampler", "choice", "dpm-solver++", choices=tuple(SAMPLERS),
            help="the numerical method",
        ),
        OptionSpec(
            "schedule", "choice", "karras", choices=tuple(SCHEDULES),
            help="where the noise levels of the steps lie",
        ),
    )  # fmt: skip


class DiffusionGenerator:
    """A denoiser with its card, ready to sample."""

    def __init__(self, card: ModelCard, denoiser: Denoiser, placement: Placement) -> None:
        self.card = card
        self.denoiser = denoiser
        self._device = torch.device(placement.device)
        self._shape = (3, card.image_size, card.image_size)

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
        schedule = SCHEDULES[chosen["schedule"]]
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
        noise = SeededNoise(self._shape, seeds, self._device)
        x = noise() * sigmas[0]
        sampler = SAMPLERS[chosen["sampler"]]
        x0 = sampler(denoise, x, sigmas, condition.to(self._device), noise, on_step)
        return x0.clamp(-1, 1).float().cpu()


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
    precondition = preconditioner_from_json(
        card.sampling["preconditioner"], source=f"The card of {card.name!r}"
    )
    network = build_network(card, tensors, placement)
    return DiffusionGenerator(card, Denoiser(network, precondition), placement)
