"""Class agreement: the share, its interval, its refusals."""

from __future__ import annotations

import pytest
import torch

from izograf.metrics.agreement import class_agreement
from izograf.schema.errors import InvalidInput


def test_share_interval_and_classes() -> None:
    logits = torch.eye(3)[[0, 0, 1, 2]]
    result = class_agreement(logits, torch.tensor([0, 1, 1, 2]))
    assert result["name"] == "class agreement"
    assert result["value"] == 0.75
    assert result["num_fake"] == 4
    assert result["per_class"] == {"0": 1.0, "1": 0.5, "2": 1.0}
    low, high = result["ci95"]
    assert 0 < low < 0.75 < high < 1


@pytest.mark.parametrize(
    ("logits", "asked", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "at least 1"),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), "classes"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "from 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), "from 0 to 2"),
        (torch.full((1, 3), torch.nan), torch.tensor([0]), "NaN"),
    ],
)
def test_unusable_input_is_refused(logits: torch.Tensor, asked: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        class_agreement(logits, asked)
