"""A picture to begin with: its centre square, its mask, and what a record says about it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from izograf.core.types import Condition
from izograf.generators.diffusion_options import diffusion_options
from izograf.generators.original import Original, brightness, prepare_original, read_plain
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput

CARD = ModelCard("tiny", "diffusion", {}, 8, options=diffusion_options(classes=()))


def wide(height: int = 16, width: int = 32) -> Tensor:
    """Black, green in the centre square."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    left = (width - height) // 2
    pixels[1, :, left : left + height] = 255
    return pixels


def test_the_centre_square_is_taken_and_resized() -> None:
    made = prepare_original(CARD, wide())
    assert made.pixels.shape == (3, 8, 8)
    assert (made.pixels[1] == 255).all()
    assert not made.pixels[[0, 2]].any()
    assert made.repaint is None
    condition = made.condition(Condition(class_ids=torch.tensor([1, 2])), 2)
    assert condition.image is not None
    assert condition.image.shape == (2, 3, 8, 8)
    assert condition.image[:, 1].unique().tolist() == [1.0]
    assert condition.mask is None
    assert condition.class_ids is not None


def test_white_of_a_mask_is_what_may_change() -> None:
    repaint = torch.zeros(1, 16, 32, dtype=torch.uint8)
    repaint[:, :8] = 255
    made = prepare_original(CARD, wide(), repaint)
    mask = made.condition(Condition(), 3).mask
    assert mask is not None
    assert mask.shape == (3, 1, 8, 8)
    assert mask[:, :, :4].max() == 0, "1 is kept"
    assert mask[:, :, 4:].min() == 1, "exactly, up to the edge"


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (torch.full((1, 16, 16), 255, dtype=torch.uint8), "The mask is 16 x 16 and the picture 32"),
        (torch.zeros(1, 16, 32, dtype=torch.uint8), "leaves nothing to repaint"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused(mask: Tensor, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        prepare_original(CARD, wide(), mask)


def test_a_mask_outside_the_centre_square_leaves_nothing() -> None:
    mask = torch.zeros(1, 16, 32, dtype=torch.uint8)
    mask[:, :, :4] = 255
    with pytest.raises(InvalidInput, match="in the centre square"):
        prepare_original(CARD, wide(), mask)


def test_a_model_that_cannot_begin_with_a_picture_is_refused() -> None:
    card = ModelCard("gan", "latent", {}, 8)
    assert not card.edits
    assert CARD.edits
    with pytest.raises(InvalidInput, match="gan cannot start from a picture: choose a diffusion"):
        prepare_original(card, wide())


def test_a_record_tells_pictures_and_masks_apart() -> None:
    first = Original(torch.zeros(3, 8, 8, dtype=torch.uint8))
    other = Original(torch.ones(3, 8, 8, dtype=torch.uint8))
    masked = Original(first.pixels, torch.full((1, 8, 8), 255, dtype=torch.uint8))
    told = first.to_json()
    first.require_same(told)
    with pytest.raises(InvalidInput, match="the picture given is not the one"):
        other.require_same(told)
    with pytest.raises(InvalidInput, match="the mask given is not the one"):
        masked.require_same(told)


def test_brightness_is_of_all_colours() -> None:
    pixels = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    assert brightness(pixels).tolist() == [[[85, 85], [85, 85]]]


def test_what_is_no_picture_cannot_be_read() -> None:
    with pytest.raises(InvalidInput, match="The picture cannot be read"):
        read_plain(b"no picture")
