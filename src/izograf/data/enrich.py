"""More of what photographs rarely show and people often ask for: black and white, and rare skies.

A text model learns a word from the pictures that it describes, and where few have an orange sky or
no colour, it draws what is usual. Copies are captioned by what is measured in them, like any
picture.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from izograf.data.attributes import luma_of, measure
from izograf.data.dataset import ImageSet

GREYSCALE_EVERY = 10
RARE, COPIES = 0.03, 3


def enriched(images: ImageSet) -> ImageSet:
    """The set with a greyscale copy of every tenth picture, and rare skies three times more.

    A sky is rare that fewer than 3 % of the pictures have. Sets that tables describe, and those
    that stay on disk, are left as they are.
    """
    stored = images.images
    if images.columns or not isinstance(stored, Tensor):
        return images
    skies = [next(iter(found.get("sky", ())), "none") for found in measure(stored).per_picture()]
    counts = Counter(skies)
    rare = [i for i, sky in enumerate(skies) if sky != "none" and counts[sky] < RARE * len(skies)]
    grey = list(range(0, len(images), GREYSCALE_EVERY))
    which = torch.tensor([*range(len(images)), *grey, *rare * COPIES], dtype=torch.int64)
    return replace(
        images,
        images=torch.cat([stored, greyscale(stored[grey]), stored[rare * COPIES]]),
        class_ids=images.class_ids[which],
        names=tuple(images.names[i] for i in which.tolist()),
    )


def greyscale(pictures: Tensor) -> Tensor:
    """Pictures, uint8 [N,3,S,S], with their luma in all three channels."""
    grey = luma_of(pictures.float()).round().to(torch.uint8)
    return grey[:, None].expand_as(pictures).contiguous()
