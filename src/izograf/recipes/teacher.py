"""The teacher of a few-step student: a finished diffusion model, opened for training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from izograf.checkpoints.files import read_weights
from izograf.core.config import config_from_json, config_to_json
from izograf.core.devices import Placement
from izograf.core.types import Guidance
from izograf.diffusion.denoiser import Denoiser
from izograf.generators.codec import LatentCodec
from izograf.generators.diffusion import DiffusionGenerator, schedule_of
from izograf.generators.diffusion import build as build_generator
from izograf.models.registry import NETWORKS
from izograf.objectives.teacher import guided_teacher
from izograf.recipes import parts
from izograf.recipes.latents import Latents
from izograf.recipes.registry import Hyperparameters, RunRequest
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.library import find_model, read_card


@dataclass(frozen=True)
class Teacher:
    """A diffusion model, opened for a run whose student learns from it.

    Attributes:
        denoiser: with the weights of the folder in float32, on the device of `placement`.
        codec: of a latent model; None for one of pixels.
        placement: of the run.
    """

    card: ModelCard
    denoiser: Denoiser
    codec: LatentCodec | None
    placement: Placement

    @classmethod
    def open(cls, request: RunRequest, chosen: Hyperparameters) -> Teacher:
        """The model that `--teacher` names, fit for the data of the run.

        Raises:
            NotFound, CardError, UnsafeFile: no such model, or a broken one.
            InvalidInput: it is no diffusion model, or of other classes or another picture size.
        """
        folder = find_model(chosen.teacher or "")
        card = read_card(folder)
        _check_teacher(card, request)
        config = card.network.get("config", {})
        placement = chosen.placement(width=int(config.get("width", 64)))
        exact = Placement(placement.device, "fp32")  # autocast chooses the products' precision
        made = build_generator(card, read_weights(folder, card), exact)
        assert isinstance(made, DiffusionGenerator)
        codec = made.codec if isinstance(made.codec, LatentCodec) else None
        return cls(card, made.denoiser, codec, placement)

    def student(self, seed: int) -> Denoiser:
        """A copy that can be trained, without dropout.

        Raises:
            InvalidInput: training it would take more memory than there is.
        """
        config = self._config()
        build = partial(NETWORKS[self.card.network["name"]].build, config)
        network = parts.build_seeded(build, seed, self.placement)
        network.load_state_dict(self.denoiser.network.state_dict())
        return Denoiser(network, self.denoiser.precondition)

    def described(self) -> dict[str, Any]:
        """The student's network, as its card names it."""
        return {"name": self.card.network["name"], "config": config_to_json(self._config())}

    def guidance(self, asked: float | None) -> tuple[Guidance, dict[str, float]]:
        """How the teacher is guided, and the same in words of its options.

        Raises:
            InvalidInput: a scale beyond what the teacher's card allows, or any for a teacher
                that cannot be guided.
        """
        options = {option.name: option for option in self.card.options}
        if "guidance_scale" not in options:
            if asked is not None:
                raise InvalidInput(
                    f"{self.card.name} cannot be guided, for it has no classes or has learned its "
                    "guidance: leave out --guidance."
                )
            return guided_teacher(1.0), {}
        scale = options["guidance_scale"]
        used = {
            "guidance_scale": float(scale.parse(scale.default if asked is None else asked)),
            "guidance_low": float(options["guidance_low"].default),
            "guidance_high": float(options["guidance_high"].default),
        }
        strength, low, high = used.values()
        return guided_teacher(strength, sigma_low=low, sigma_high=high), used

    def levels(self, num_steps: int, schedule: str | None = None) -> Tensor:
        """[N+1] levels of the named schedule, or of the card's, between the card's bounds.

        Raises:
            InvalidInput: the card offers no such schedule.
        """
        (option,) = (option for option in self.card.options if option.name == "schedule")
        of_name = schedule_of(self.card, str(option.parse(schedule or option.default)))
        return of_name(num_steps, self.card.sampling["sigma_min"], self.card.sampling["sigma_max"])

    def own_levels(self) -> Tensor | None:
        """[N+1] levels of a teacher that is a student itself, which answers at no others."""
        own = self.card.sampling.get("levels")
        return None if own is None else torch.tensor(own, dtype=torch.float64)

    def require_any_level(self) -> None:
        """
        Raises:
            InvalidInput: this teacher is a student itself.
        """
        if self.own_levels() is not None:
            raise InvalidInput(
                f"{self.card.name} is a student itself, which answers at its own levels only: "
                "name its teacher."
            )

    def request(self, pixels: RunRequest, *, mirrored: bool) -> RunRequest:
        """The run with what the teacher denoises in place of pictures."""
        if self.codec is None:
            return pixels
        return Latents(self.codec, self.card, self.placement).request(pixels, mirrored=mirrored)

    def _config(self) -> Any:
        kind = NETWORKS[self.card.network["name"]].config
        source = f"The card of {self.card.name!r}"
        config = config_from_json(kind, self.card.network["config"], source=source)
        has_dropout = "dropout" in {field.name for field in dataclasses.fields(kind)}
        return replace(config, dropout=0.0) if has_dropout else config


def _check_teacher(card: ModelCard, request: RunRequest) -> None:
    if card.family != "diffusion":
        raise InvalidInput(
            f"--teacher takes a diffusion model, and {card.name} is a {card.family} model: name "
            "one that `izograf train diffusion-unet` made, say."
        )
    if card.image_size != request.image_size:
        raise InvalidInput(
            f"{card.name} draws pictures of {card.image_size} pixels, and this run has "
            f"{request.image_size}: use --image-size {card.image_size}."
        )
    theirs, ours = ([item.name for item in owner.classes] for owner in (card, request.train))
    if theirs != ours:
        raise InvalidInput(
            f"{card.name} has the classes {_listed(theirs)}, and the data has {_listed(ours)}: a "
            "student learns on pictures of its teacher's classes, in the same order."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
