"""More of what is rare: which pictures are copied, and how."""

from __future__ import annotations

from dataclasses import replace

import torch

from izograf.data.attributes import measure
from izograf.data.dataset import ImageSet
from izograf.data.enrich import COPIES, GREYSCALE_EVERY, enriched, greyscale
from izograf.data.scan import ScanReport
from izograf.schema.labels import ClassLabel

COUNT, SUNSET = 64, 5


def pictures() -> ImageSet:
    """Blue skies over green land, and one orange sky."""
    images = torch.empty(COUNT, 3, 32, 32, dtype=torch.uint8)
    images[:, :, :16] = torch.tensor([90, 140, 230], dtype=torch.uint8)[:, None, None]
    images[:, :, 16:] = torch.tensor([60, 110, 50], dtype=torch.uint8)[:, None, None]
    sunset = torch.tensor([235, 130, 40], dtype=torch.uint8)
    images[SUNSET, :, :20] = sunset[:, None, None]
    ids, names = torch.arange(COUNT) % 2, tuple(f"{i}.png" for i in range(COUNT))
    classes = (ClassLabel("forest"), ClassLabel("sea"))
    return ImageSet(images, ids, classes, names, "two", "train", "", ScanReport(COUNT))


def test_every_tenth_comes_in_grey_too_and_rare_skies_three_times_more() -> None:
    given = pictures()
    skies = [found.get("sky") for found in measure(given.images).per_picture()]
    assert skies[SUNSET] == ("orange",)
    made = enriched(given)
    grey = len(range(0, COUNT, GREYSCALE_EVERY))
    assert len(made) == len(made.images) == len(made.class_ids) == COUNT + grey + COPIES
    assert torch.equal(made.images[:COUNT], given.images)
    copied = made.names[COUNT : COUNT + grey]
    assert copied == tuple(f"{i}.png" for i in range(0, COUNT, GREYSCALE_EVERY))
    assert made.names[COUNT + grey :] == (f"{SUNSET}.png",) * COPIES
    measured = measure(made.images).per_picture()
    assert {found["greyscale"] for found in measured[COUNT : COUNT + grey]} == {("yes",)}
    assert [found["sky"] for found in measured[COUNT + grey :]] == [("orange",)] * COPIES
    assert made.class_ids[COUNT + grey :].tolist() == [SUNSET % 2] * COPIES


def test_grey_keeps_the_brightness() -> None:
    images = pictures().images[:3]
    grey = greyscale(images)
    assert grey.dtype == torch.uint8
    assert torch.equal(grey[:, 0], grey[:, 2])
    same = {found["brightness"] for found in measure(torch.cat([images, grey])).per_picture()}
    assert len(same) == 1


def test_sets_that_tables_describe_stay_as_they_are() -> None:
    told = replace(pictures(), columns=({"text": "a", "keywords": []},) * COUNT)
    assert enriched(told) is told
