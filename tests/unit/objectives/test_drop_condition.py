"""Dropping the condition while training, which classifier-free guidance needs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from izograf.core.rng import generator
from izograf.core.types import DROPPED, Condition
from izograf.objectives.denoising import drop_condition

COUNT = 400
IDS = torch.arange(COUNT)
TEXT = 1 + torch.arange(COUNT, dtype=torch.float32)[:, None, None].expand(COUNT, 3, 2)


def dropped(condition: Condition, probability: float) -> Condition:
    return drop_condition(condition, probability, generator("tests", "drop"))


def without(text: Tensor | None) -> Tensor:
    assert text is not None
    return text.flatten(1).abs().sum(1) == 0


def test_a_prompt_becomes_the_null_as_a_whole_or_stays_as_it_is() -> None:
    text = dropped(Condition(text=TEXT), 0.25).text
    gone = without(text)
    assert text is not None
    assert torch.equal(text[~gone], TEXT[~gone])
    assert float(gone.float().mean()) == pytest.approx(0.25, abs=0.07)
    assert torch.equal(TEXT, 1 + torch.arange(COUNT)[:, None, None].expand(COUNT, 3, 2).float())


def test_class_and_prompt_of_a_picture_go_together() -> None:
    result = dropped(Condition(class_ids=IDS, text=TEXT), 0.5)
    assert result.class_ids is not None
    gone = result.class_ids == DROPPED
    assert torch.equal(gone, without(result.text))
    assert torch.equal(result.class_ids[~gone], IDS[~gone])
    assert 0 < int(gone.sum()) < COUNT


def test_the_extremes_drop_nothing_and_everything() -> None:
    condition = Condition(class_ids=IDS, text=TEXT)
    kept, gone = dropped(condition, 0.0), dropped(condition, 1.0)
    assert kept.text is not None
    assert kept.class_ids is not None
    assert torch.equal(kept.text, TEXT)
    assert torch.equal(kept.class_ids, IDS)
    null = condition.to_null()
    assert null.text is not None
    assert null.class_ids is not None
    assert gone.text is not None
    assert gone.class_ids is not None
    assert torch.equal(gone.text, null.text)
    assert torch.equal(gone.class_ids, null.class_ids)


def test_what_is_the_task_stays() -> None:
    image = torch.ones(COUNT, 3, 2, 2)
    assert dropped(Condition(text=TEXT, image=image), 1.0).image is image
    alone = Condition(image=image)
    assert dropped(alone, 1.0) is alone
