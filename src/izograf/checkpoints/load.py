"""From a model's name or path to a generator ready to sample."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from izograf.checkpoints.files import GUIDE, read_guide, read_weights
from izograf.core.backends import choose_backend
from izograf.core.devices import Placement, choose_placement
from izograf.core.types import Generator
from izograf.generators.calibration import calibrate
from izograf.generators.registry import FAMILIES, TakesGuide
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.library import find_model, read_card


def load_generator(
    name: str, *, device: str = "auto", precision: str = "auto", backend: str = "auto"
) -> tuple[Generator, Placement]:
    """The generator called `name` (or in the folder `name`), and where and how it computes.

    Raises:
        NotFound, CardError, UnsafeFile, InvalidInput: see `find_model`, `read_weights`,
            `choose_placement`, `choose_backend`; also a model that does not generate pictures.
    """
    folder = find_model(name)
    card = read_card(folder)
    if card.family not in FAMILIES:
        raise InvalidInput(
            f"{card.name} is a {card.family} model, which generates no pictures: choose another."
        )
    family = FAMILIES[card.family]
    placement = choose_placement(
        device,
        precision,
        width=network_width(card),
        half_on_mps=family.half_on_mps,
    )
    chosen = choose_backend(backend, device=placement.device, precision=precision)
    placement = replace(placement, backend=chosen)
    tensors = {} if family.files is not None else read_weights(folder, card)
    try:
        generator = family.build(card, tensors, placement)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CardError(f"The card of {card.name!r} is malformed: {error}.") from error
    if GUIDE in card.weights and isinstance(generator, TakesGuide):
        generator.take_guide(partial(read_guide, folder, card))
    calibrate(generator)
    return generator, placement


def network_width(card: ModelCard) -> int:
    """The width that decides whether bfloat16 pays off; 128 where the card does not say."""
    config = card.network.get("config")
    width = config.get("width") if isinstance(config, dict) else None
    return width if isinstance(width, int) else 128
