"""Building the network that a card describes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from izograf.core.config import config_from_json
from izograf.core.devices import Placement
from izograf.models.registry import NETWORKS
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError


def build_network(
    card: ModelCard, tensors: Mapping[str, Tensor], placement: Placement
) -> nn.Module:
    """The card's network with the given weights, in eval mode, on the placement's device and dtype.

    Raises:
        CardError: unknown network, a config it refuses or that contradicts the card, or weights
            of another shape.
    """
    if "name" not in card.network or "config" not in card.network:
        raise CardError(f"The card of {card.name!r} does not say which network it has.")
    network_type = NETWORKS[card.network["name"]]
    config = config_from_json(
        network_type.config, card.network["config"], source=f"The card of {card.name!r}"
    )
    for field, expected in (("image_size", card.image_size), ("num_classes", len(card.classes))):
        if getattr(config, field) != expected:
            raise CardError(
                f"The card of {card.name!r} contradicts itself: {field} is {expected}, but "
                f"{getattr(config, field)} in its network."
            )
    with torch.device("meta"):
        network = network_type.build(config)
    try:
        network.load_state_dict(dict(tensors), assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CardError(f"The weights of {card.name!r} do not fit its card: {reason}") from error
    network.requires_grad_(False).eval()
    network.to(device=placement.device, dtype=placement.dtype)
    return network.to(memory_format=placement.memory_format)  # type: ignore[call-overload,no-any-return]
