"""Building the network that a card describes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from izograf.core.backends import BACKENDS
from izograf.core.config import config_from_json
from izograf.core.devices import Placement
from izograf.models.registry import NETWORKS
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError

PACKAGE = "izograf."


def modules_of(generator: object) -> Iterator[nn.Module]:
    """Every module of a generator and of the generators it is made of, each once."""
    seen: set[int] = set()
    waiting: list[object] = [generator]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            yield thing
            waiting += [module for module in thing.modules() if module is not thing]
        elif isinstance(thing, list | tuple):
            waiting += thing
        elif type(thing).__module__.startswith(PACKAGE):
            waiting += getattr(thing, "__dict__", {}).values()


def build_network(
    card: ModelCard,
    tensors: Mapping[str, Tensor],
    placement: Placement,
    *,
    image_size: int | None = None,
) -> nn.Module:
    """The card's network with the given weights, in eval mode, computed as `placement` says.

    `image_size` is what the network is to see where that is not the card's: a latent's side.

    Raises:
        CardError: unknown network, a config it refuses or that contradicts the card, or weights
            of another shape.
    """
    sizes = {"image_size": image_size or card.image_size, "num_classes": len(card.classes)}
    return described_network(card.network, tensors, placement, sizes=sizes, name=card.name)


def described_network(
    described: Any,
    tensors: Mapping[str, Tensor],
    placement: Placement,
    *,
    sizes: Mapping[str, int],
    name: str,
) -> nn.Module:
    """As `build_network`, of `{"name": ..., "config": ...}` as found on the card called `name`.

    `sizes` are what fields of the config must be, where it has them.
    """
    if not isinstance(described, Mapping) or not {"name", "config"} <= set(described):
        raise CardError(f"The card of {name!r} does not say which network it has.")
    network_type = NETWORKS[described["name"]]
    config = config_from_json(
        network_type.config, described["config"], source=f"The card of {name!r}"
    )
    for field, expected in sizes.items():
        found = getattr(config, field, expected)
        if found != expected:
            raise CardError(
                f"The card of {name!r} contradicts itself: {field} is {expected}, but "
                f"{found} in its network."
            )
    with torch.device("meta"):
        network = network_type.build(config)
    try:
        network.load_state_dict(dict(tensors), assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CardError(f"The weights of {name!r} do not fit its card: {reason}") from error
    network.requires_grad_(False).eval()
    return BACKENDS[placement.backend].place(
        network, placement, kind=network_type.kind, identity=json.dumps(dict(described))
    )
