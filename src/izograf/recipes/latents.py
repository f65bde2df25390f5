"""Training on latents: the pictures of a run encoded once, before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from izograf.checkpoints.files import read_weights
from izograf.core.devices import Placement
from izograf.core.pixels import to_float
from izograf.data.dataset import ImageSet
from izograf.generators.autoencoder import KLAutoencoderModel
from izograf.generators.autoencoder import build as build_autoencoder
from izograf.generators.codec import LatentCodec
from izograf.recipes.perceptual import parent_of
from izograf.recipes.registry import RunRequest
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.library import find_model, read_card
from izograf.training.trainer import autocast

ENCODED_AT_ONCE = 32


@dataclass(frozen=True)
class Latents:
    """An autoencoder, opened for a run whose denoiser learns its latents.

    Attributes:
        card: the autoencoder's.
        placement: of the run; the autoencoder keeps float32 weights and computes as training does.
    """

    codec: LatentCodec
    card: ModelCard
    placement: Placement

    @classmethod
    def open(cls, name: str, image_size: int, placement: Placement) -> Latents:
        """The KL autoencoder called `name`, or in the folder `name`.

        Raises:
            NotFound, CardError, UnsafeFile: no such model, or a broken one.
            InvalidInput: it is of another family or picture size.
        """
        folder = find_model(name)
        card = read_card(folder)
        if card.family != "kl-autoencoder":
            raise InvalidInput(
                f"--autoencoder takes a KL autoencoder, and {card.name} is a {card.family} model: "
                "train one with `izograf train kl-autoencoder`."
            )
        if card.image_size != image_size:
            raise InvalidInput(
                f"{card.name} encodes pictures of {card.image_size} pixels, and this run has "
                f"{image_size}: use --image-size {card.image_size}."
            )
        exact = Placement(placement.device, "fp32")
        model = build_autoencoder(card, read_weights(folder, card), exact)
        assert isinstance(model, KLAutoencoderModel)
        return cls(model.codec, card, placement)

    def request(self, pixels: RunRequest, *, mirrored: bool) -> RunRequest:
        """The run with latents in place of pictures: float16 [N,C,h,w].

        With `mirrored` those to train on are [N,2,C,h,w], the second of the mirrored picture:
        mirroring a latent does not mirror its picture.
        """
        return replace(
            pixels,
            train=self._encoded(pixels.train, mirrored=mirrored),
            held_out=self._encoded(pixels.held_out, mirrored=False),
        )

    def on_card(self, card: ModelCard) -> ModelCard:
        """The card of the run's model, with its autoencoder as a parent, and that one's floor."""
        floor: Mapping[str, Any] = self.card.recipe.get("evaluated", {})
        recipe = {**card.recipe, "autoencoder": {"model": self.card.name, "evaluated": floor}}
        return replace(card, recipe=recipe, parents=(*card.parents, parent_of(self.card)))

    @torch.no_grad()
    def _encoded(self, images: ImageSet, *, mirrored: bool) -> ImageSet:
        ways = 2 if mirrored else 1
        latents = torch.empty(len(images), ways, *self.codec.shape, dtype=torch.float16)
        for start in range(0, len(images), ENCODED_AT_ONCE):
            index = torch.arange(start, min(len(images), start + ENCODED_AT_ONCE))
            picture = to_float(images.images[index].to(self.placement.device))
            for way in range(ways):
                with autocast(self.placement):
                    latent = self.codec.encode(picture.flip(-1) if way else picture)
                latents[index, way] = latent.half().cpu()
        latents = latents if mirrored else latents[:, 0]
        return replace(images, images=latents)


def either_latent(latents: Tensor, rng: torch.Generator) -> Tensor:
    """[B,2,C,h,w] -> [B,C,h,w]: the picture's own latent or the mirrored one's, equally likely."""
    second = torch.rand(len(latents), generator=rng, device=latents.device) < 0.5
    return torch.where(second[:, None, None, None], latents[:, 1], latents[:, 0])


def with_part(network: nn.Module, prefix: str, part: nn.Module) -> nn.Module:
    """One module of both, whose state is the network's and, under `prefix`, the part's.

    `network` has parts and no parameters of its own.
    """
    both = nn.Module()
    for name, own in network.named_children():
        both.add_module(name, own)
    both.add_module(prefix.removesuffix("."), part)
    return both
