"""Autoencoders with one code vector: sample from the prior, encode pictures, decode codes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from izograf.core.devices import Placement
from izograf.core.types import Condition
from izograf.generators.latent import LatentGenerator
from izograf.generators.network import build_network
from izograf.generators.registry import family
from izograf.models.vae import VAE
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError


class FromPrior(nn.Module):
    """(standard normal [B,L], Condition) -> image: the decoder as a generator of pictures."""

    def __init__(self, network: VAE) -> None:
        super().__init__()
        self.network = network

    def forward(self, normal: Tensor, condition: Condition) -> Tensor:
        return self.network.decode(self.network.from_prior(normal), condition).tanh()


class VAEGenerator(LatentGenerator):
    """A `Generator` that is an `Autoencoder` as well; codes [B,L] are N(0, I) under its prior."""

    def __init__(self, card: ModelCard, network: VAE, placement: Placement) -> None:
        super().__init__(card, FromPrior(network), network.config.latent_dim, placement)
        self._vae = network

    @torch.inference_mode()
    def encode(self, images: Tensor, condition: Condition | None = None) -> Tensor:
        condition = condition or Condition()
        dtype = next(self._vae.parameters()).dtype
        given = images.to(self._device, dtype).contiguous(memory_format=torch.channels_last)
        mean, _ = self._vae.encode(given, condition.to(self._device))
        return self._vae.to_prior(mean).cpu()

    @torch.inference_mode()
    def decode(self, codes: Tensor, condition: Condition | None = None) -> Tensor:
        condition = condition or Condition()
        image: Tensor = self.network(codes.to(self._device), condition.to(self._device))
        return image.clamp(-1, 1).cpu()


@family("vae")
def build(card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement) -> VAEGenerator:
    """The generator of a card of this family.

    Raises:
        CardError: the card names another kind of network or lacks the option truncation, or
            weights do not fit.
    """
    network = build_network(card, tensors, placement)
    if not isinstance(network, VAE):
        raise CardError(f"The card of {card.name!r} names a network that is no vae.")
    if "truncation" not in {option.name for option in card.options}:
        raise CardError(f"The card of {card.name!r} lacks the option truncation.")
    return VAEGenerator(card, network, placement)
