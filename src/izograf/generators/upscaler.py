"""An upscaler in use: pictures at 2, 4 or 8 times their height and width, large ones in tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from izograf.checkpoints.files import read_weights
from izograf.core.devices import Placement, choose_placement
from izograf.core.memory import available_memory
from izograf.core.pixels import to_float, to_uint8
from izograf.core.rng import Seed
from izograf.core.types import Condition, Generator, OnStep, ignore
from izograf.generators.network import build_network
from izograf.generators.registry import family
from izograf.generators.tiling import decode_tiled
from izograf.models.upscaler import FACTOR, Upscaler
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.library import find_model, read_card
from izograf.schema.options import OptionValue
from izograf.schema.record import check_factor

FAMILY = "upscaler"
TILE = 192  # pixels along a side up to which a picture is doubled whole
COPIES = 4  # of the result, in float32, that are alive at once


class UpscalerModel:
    """Pictures of any size, each computed by itself: none depends on its batch mates."""

    def __init__(self, card: ModelCard, network: Upscaler, placement: Placement) -> None:
        self.card, self.network, self.placement = card, network, placement
        self._device = torch.device(placement.device)

    @torch.inference_mode()
    def enlarge(self, images: Tensor, factor: int = FACTOR, *, tile: int = TILE) -> Tensor:
        """[B,3,H,W] in [-1,1] -> float32 [B,3,factor H,factor W] in [-1,1] on the CPU.

        Doubled as often as it takes. Pictures larger than `tile` on a side are computed in tiles
        of at least that size, which changes nothing but the last bits.

        Raises:
            InvalidInput: the factor is not 2, 4 or 8, or there is too little memory.
        """
        check_factor(factor)
        self._check_memory(images, factor)
        images = images.float().cpu()
        while factor > 1:
            images = torch.cat([self._doubled(image[None], tile) for image in images])
            factor //= FACTOR
        return images

    def enlarge_pixels(self, pixels: Tensor, factor: int = FACTOR) -> Tensor:
        """As `enlarge`, of one stored picture: uint8 [3,H,W] -> uint8 [3,factor H,factor W]."""
        return to_uint8(self.enlarge(to_float(pixels)[None], factor))[0]

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
            InvalidInput: always; it needs a picture to start from.
        """
        del condition, seeds, options, on_step
        raise InvalidInput(
            f"{self.card.name} is an upscaler, which draws no pictures of its own: give it one "
            "with `izograf upscale`."
        )

    def _doubled(self, image: Tensor, tile: int) -> Tensor:
        if max(image.shape[-2:]) <= tile:
            return self._whole(image)
        reach = self.network.config.reach
        overlap = 2 * reach + 1
        return decode_tiled(
            self._whole, image,
            factor=FACTOR, tile=max(tile, 2 * overlap), overlap=overlap, reach=reach,
        )  # fmt: skip

    def _whole(self, image: Tensor) -> Tensor:
        given = image.to(self._device, memory_format=torch.channels_last)
        made: Tensor = self.network(given)
        return made.clamp(-1, 1).cpu()

    def _check_memory(self, images: Tensor, factor: int) -> None:
        needed = COPIES * 4 * images.numel() * factor**2
        free = available_memory()
        if needed > free:
            height, width = images.shape[-2:]
            raise InvalidInput(
                f"Enlarging {width} x {height} pixels {factor} times needs about "
                f"{needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: choose a "
                "smaller factor or a smaller picture."
            )


@family(FAMILY)
def build(card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement) -> Generator:
    """The upscaler of a card of this family.

    Raises:
        CardError: the card names another kind of network, or weights do not fit.
    """
    return _model(card, tensors, placement)


def _model(card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement) -> UpscalerModel:
    network = build_network(card, tensors, placement)
    if not isinstance(network, Upscaler):
        raise CardError(f"The card of {card.name!r} is of an upscaler, but its network is none.")
    return UpscalerModel(card, network, placement)


def load_upscaler(name: str, *, device: str = "auto", precision: str = "auto") -> UpscalerModel:
    """The upscaler called `name` (or in the folder `name`), computed by torch itself.

    Raises:
        NotFound, CardError, UnsafeFile, InvalidInput: no such model, a broken one, one that
            enlarges nothing, or no such device or precision.
    """
    folder = find_model(name)
    card = read_card(folder)
    if card.family != FAMILY:
        raise InvalidInput(
            f"{card.name} is a {card.family} model, which enlarges no pictures: choose another."
        )
    config = card.network.get("config")
    width = config.get("width", 64) if isinstance(config, Mapping) else 64
    placement = choose_placement(device, precision, width=width)  # whose backend is eager
    return _model(card, read_weights(folder, card), placement)
