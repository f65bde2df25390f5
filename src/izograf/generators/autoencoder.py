"""KL autoencoders: pictures to latents and back, and what a latent diffusion model decodes with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from izograf.core.config import config_to_json
from izograf.core.devices import Placement
from izograf.core.rng import Seed
from izograf.core.types import Condition, OnStep, ignore
from izograf.generators.codec import LatentCodec, LatentFacts
from izograf.generators.network import build_network, described_network
from izograf.generators.registry import family
from izograf.models.autoencoder import KLAutoencoder
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.options import OptionValue


class KLAutoencoderModel:
    """An `Autoencoder` whose codes are standardised latents [B,C,h,w]; it has no classes."""

    def __init__(self, card: ModelCard, codec: LatentCodec) -> None:
        self.card = card
        self.codec = codec

    @torch.inference_mode()
    def encode(self, images: Tensor, condition: Condition | None = None) -> Tensor:
        """Float32 [B,3,H,W] in [-1,1] -> codes [B,C,H/f,W/f] on the CPU.

        Raises:
            InvalidInput: H or W is no multiple of f.
        """
        del condition
        factor = self.codec.network.config.factor
        height, width = images.shape[-2:]
        if height % factor or width % factor:
            raise InvalidInput(
                f"{self.card.name} takes pictures whose sides are multiples of {factor} pixels, "
                f"got {width} x {height}."
            )
        return self.codec.encode(images).cpu()

    @torch.inference_mode()
    def decode(self, codes: Tensor, condition: Condition | None = None) -> Tensor:
        """Codes [B,C,h,w] -> float32 [B,3,f h,f w] in [-1,1] on the CPU; large ones in tiles."""
        del condition
        return self.codec.decode(codes).cpu()

    def sample(
        self,
        condition: Condition,
        seeds: Sequence[Seed],
        *,
        options: Mapping[str, OptionValue] | None = None,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """
        Raises:
            InvalidInput: always; its latents have no law to draw from.
        """
        del condition, seeds, options, on_step
        raise InvalidInput(
            f"{self.card.name} is an autoencoder, which draws no pictures of its own: train a "
            "model on its latents with `izograf train latent-diffusion --autoencoder`."
        )


PREFIX = "autoencoder."  # of its tensors among those of a model that decodes with it


def split_weights(
    tensors: Mapping[str, Tensor], prefix: str = PREFIX
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a model's own network, and those of the part within it, its autoencoder."""
    own = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    part = {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }
    return own, part


def described_codec(codec: LatentCodec) -> dict[str, Any]:
    """What `sampling["autoencoder"]` of a latent model's card says, as JSON gives it back."""
    config = config_to_json(codec.network.config)
    described: dict[str, Any] = json.loads(
        json.dumps(
            {
                "network": {"name": "kl-autoencoder", "config": config},
                "latents": codec.facts.to_json(),
            }
        )
    )
    return described


def stored_codec(
    card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement
) -> LatentCodec | None:
    """The autoencoder inside a latent model; None for a model of pixels.

    Raises:
        CardError: the card describes none but there are weights, or the other way round, or they
            do not fit each other.
    """
    described = card.sampling.get("autoencoder")
    if described is None and not tensors:
        return None
    source = f"The card of {card.name!r}"
    if not isinstance(described, Mapping):
        raise CardError(f"{source} does not describe the autoencoder of its weights.")
    network = described_network(
        described.get("network"),
        tensors,
        placement,
        sizes={"image_size": card.image_size},
        name=card.name,
    )
    return _codec(network, described.get("latents"), placement, source)


def _codec(network: nn.Module, facts: Any, placement: Placement, source: str) -> LatentCodec:
    if not isinstance(network, KLAutoencoder):
        raise CardError(f"{source} is of an autoencoder, but its network is none.")
    try:
        return LatentCodec(network, LatentFacts.from_json(facts, source=source), placement)
    except ValueError as error:
        raise CardError(f"{source} contradicts itself: {error}.") from error


@family("kl-autoencoder")
def build(
    card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement
) -> KLAutoencoderModel:
    """The autoencoder of a card of this family.

    Raises:
        CardError: the card names another kind of network or lacks the facts about its latents, or
            weights do not fit.
    """
    source = f"The card of {card.name!r}"
    network = build_network(card, tensors, placement)
    return KLAutoencoderModel(
        card, _codec(network, card.sampling.get("latents"), placement, source)
    )
