"""What can be done with the codes of pictures, whatever family of autoencoder gave them."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from izograf.core.storage import write_atomically
from izograf.core.types import Autoencoder, Condition
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.xmp import XMP_KEY, provenance_packet


def as_autoencoder(model: object, card: ModelCard) -> Autoencoder:
    """`model`, if it turns pictures into codes and back.

    Raises:
        InvalidInput: it only makes pictures.
    """
    if not isinstance(model, Autoencoder):
        raise InvalidInput(
            f"{card.name} makes pictures but cannot read any: name an autoencoder, which "
            "`izograf train` makes with the recipe ae, vae, cvae or kl-autoencoder."
        )
    return model


def between(first: Tensor, second: Tensor, count: int) -> Tensor:
    """`count` codes [count,*shape] at even steps from `first` to `second`, both included.

    Spherical interpolation (Shoemake 1985): directions turn at an even rate while the length
    changes evenly, because codes of a Gaussian prior lie near a sphere and the straight way
    between two of them leaves it (White 2016, section 2). Linear where directions are equal,
    opposite or undefined.
    """
    shares = torch.linspace(0, 1, count).reshape(-1, *[1] * first.ndim)
    lengths = first.norm(), second.norm()
    straight = first + shares * (second - first)
    cosine = (first * second).sum() / (lengths[0] * lengths[1]).clamp(min=1e-12)
    angle = torch.arccos(cosine.clamp(-1, 1))
    if angle.sin() < 1e-3 or min(lengths) < 1e-6:
        path = straight
    else:
        weights = ((1 - shares) * angle).sin() / lengths[0], (shares * angle).sin() / lengths[1]
        direction = (weights[0] * first + weights[1] * second) / angle.sin()
        path = direction * (lengths[0] + shares * (lengths[1] - lengths[0]))
    path[0], path[-1] = first, second
    return path


def of_class(index: int | None, count: int = 1) -> Condition:
    """The condition of `count` pictures of the class with this index; None for no class."""
    return Condition() if index is None else Condition(class_ids=torch.full((count,), index))


def from_class_to_class(first: int | None, second: int | None, count: int) -> Condition:
    """The condition of a strip of `count` pictures from one class to another."""
    if first is None or second is None or first == second:
        return of_class(first if second is None else second, count)
    return Condition(
        class_ids=torch.full((count,), first),
        towards_ids=torch.full((count,), second),
        share=torch.linspace(0, 1, count),
    )


def save_derived(path: Path, picture: Image.Image, model: str) -> None:
    """Writes a picture that a model made of another as a PNG with an XMP packet that says so.

    Raises:
        StorageError: no permission or no space.
    """
    info = PngImagePlugin.PngInfo()
    info.add_itxt(XMP_KEY, provenance_packet(model))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info, optimize=True)
    write_atomically(path, buffer.getvalue())
