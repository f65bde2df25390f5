"""Training batches as a pure function of the step number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from izograf.core.pixels import to_float
from izograf.core.rng import generator
from izograf.core.types import Batch, Condition
from izograf.data.shards import Images

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""(images [B,3,H,W] in [-1,1], rng on their device) -> images of the same shape."""


class BatchStream:
    """Shuffled batches without end: `stream(step) -> Batch`, the same for the same seed and step.

    The pictures are visited in epochs, each a permutation derived from the seed and the epoch's
    number; a batch may reach across two of them, so any number of pictures serves any batch size.
    Pictures stay uint8 until their batch is on `device`; latents, of any floating-point type, are
    taken as they are.
    """

    def __init__(
        self,
        images: Images,
        class_ids: Tensor,
        batch_size: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        augment: Augmentation | None = None,
    ) -> None:
        self._images, self._class_ids = images, class_ids
        self._batch_size, self._seed, self._device = batch_size, seed, torch.device(device)
        self._augment = augment
        self._orders: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Batch:
        index = self.indices(step)
        stored = self._images[index.to(self._images.device)].to(self._device)
        image = stored.float() if stored.is_floating_point() else to_float(stored)
        if self._augment is not None:
            rng = generator(self._seed, "augment", step, device=self._device)
            image = self._augment(image, rng)
        image = image.contiguous(memory_format=torch.channels_last)
        ids = self._class_ids[index.to(self._class_ids.device)].to(self._device)
        return Batch(image, Condition(class_ids=ids))

    def indices(self, step: int) -> Tensor:
        """Which pictures the batch of that step has, int64 [B]."""
        count = len(self._images)
        position, parts, missing = step * self._batch_size, [], self._batch_size
        while missing:
            epoch, offset = divmod(position, count)
            part = self._order(epoch)[offset : offset + missing]
            parts.append(part)
            position, missing = position + len(part), missing - len(part)
        return torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            rng = generator(self._seed, "order", epoch)
            order = torch.randperm(len(self._images), generator=rng)
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = order
        return self._orders[epoch]


def horizontal_flip(image: Tensor, rng: torch.Generator) -> Tensor:
    """Each image mirrored with probability one half; not for digits, letters or clothes."""
    flip = torch.rand(len(image), generator=rng, device=image.device) < 0.5
    return torch.where(flip[:, None, None, None], image.flip(-1), image)
