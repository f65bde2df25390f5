"""One pass from a latent vector to a picture: GANs and the decoders of autoencoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from izograf.core.devices import Placement
from izograf.core.rng import Seed, SeededNoise
from izograf.core.types import Condition, OnStep, ignore
from izograf.generators.network import build_network
from izograf.generators.registry import family
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError
from izograf.schema.options import OptionSpec, OptionValue, parse_options


def latent_options(*, truncation: float = 1.0) -> tuple[OptionSpec, ...]:
    """The options a latent model's card offers."""
    return (
        OptionSpec(
            "truncation", "number", truncation, minimum=0, maximum=2,
            help="scale of the latent vector: below 1 is more typical, above 1 more varied",
        ),
    )  # fmt: skip


class LatentGenerator:
    """image = network(truncation * z, condition), z ~ N(0, I) from each image's own seed."""

    def __init__(
        self, card: ModelCard, network: nn.Module, latent_dim: int, placement: Placement
    ) -> None:
        self.card = card
        self.network = network
        self._latent_dim = latent_dim
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
        z = SeededNoise((self._latent_dim,), seeds, self._device)()
        scaled = (z * chosen["truncation"]).to(next(self.network.parameters()).dtype)
        image: Tensor = self.network(scaled, condition.to(self._device)).float().clamp(-1, 1)
        on_step(1, 1, image)
        return image.cpu()


@family("latent")
def build(card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement) -> LatentGenerator:
    """The generator of a latent-family card.

    Raises:
        CardError: the card's network has no latent dimension, or weights do not fit.
    """
    latent_dim = card.network.get("config", {}).get("latent_dim")
    if not isinstance(latent_dim, int):
        raise CardError(f"The card of {card.name!r} does not state the network's latent_dim.")
    if "truncation" not in {option.name for option in card.options}:
        raise CardError(f"The card of {card.name!r} lacks the option truncation.")
    return LatentGenerator(card, build_network(card, tensors, placement), latent_dim, placement)
