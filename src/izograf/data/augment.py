"""Differentiable augmentation for GANs (Zhao et al. 2020, arXiv:2006.10738).

Applied to real and generated images alike before the discriminator sees them, so it cannot
memorise a small set, while the generator's gradient passes through.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.core.registry import Registry
from izograf.data.batches import Augmentation

DIFFERENTIABLE: Registry[Augmentation] = Registry(
    "differentiable augmentation", package="izograf.data"
)


@DIFFERENTIABLE.register("color")
def color(image: Tensor, rng: torch.Generator) -> Tensor:
    """Random brightness (+-0.5), saturation (0..2) and contrast (0.5..1.5) per image."""
    image = image + (_uniform(image, rng) - 0.5)
    grey = image.mean(dim=1, keepdim=True)
    image = grey + (image - grey) * (2 * _uniform(image, rng))
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (image - mean) * (_uniform(image, rng) + 0.5)


@DIFFERENTIABLE.register("translation")
def translation(image: Tensor, rng: torch.Generator, *, ratio: float = 0.125) -> Tensor:
    """Each image shifted by up to an eighth of its size, the gap filled with zeros."""
    count, _, height, width = image.shape
    reach_y, reach_x = int(height * ratio + 0.5), int(width * ratio + 0.5)
    padded = F.pad(image, [reach_x, reach_x, reach_y, reach_y])
    dy = torch.randint(0, 2 * reach_y + 1, (count, 1), generator=rng, device=image.device)
    dx = torch.randint(0, 2 * reach_x + 1, (count, 1), generator=rng, device=image.device)
    rows = dy + torch.arange(height, device=image.device)
    columns = dx + torch.arange(width, device=image.device)
    which = torch.arange(count, device=image.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


@DIFFERENTIABLE.register("cutout")
def cutout(image: Tensor, rng: torch.Generator, *, ratio: float = 0.5) -> Tensor:
    """A square of half the image's side, anywhere (also partly outside), set to zero."""
    count, _, height, width = image.shape
    size_y, size_x = int(height * ratio + 0.5), int(width * ratio + 0.5)
    device = image.device
    top = torch.randint(
        -(size_y // 2), height - size_y // 2, (count, 1), generator=rng, device=device
    )
    left = torch.randint(
        -(size_x // 2), width - size_x // 2, (count, 1), generator=rng, device=device
    )
    rows = torch.arange(height, device=device) - top
    columns = torch.arange(width, device=device) - left
    inside_y = (rows >= 0) & (rows < size_y)
    inside_x = (columns >= 0) & (columns < size_x)
    hole = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return image.masked_fill(hole, 0.0)


def differentiable_augmentation(policy: tuple[str, ...]) -> Augmentation:
    """The named augmentations one after the other.

    Raises:
        NotFound: a name that is not registered.
    """
    steps = [DIFFERENTIABLE[name] for name in policy]

    def augment(image: Tensor, rng: torch.Generator) -> Tensor:
        for step in steps:
            image = step(image, rng)
        return image

    return augment


def _uniform(image: Tensor, rng: torch.Generator) -> Tensor:
    draws = torch.rand(len(image), generator=rng, device=image.device, dtype=torch.float32)
    return draws[:, None, None, None].to(image.dtype)
