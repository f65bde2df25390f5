"""What a record says about enlarging is checked before it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from izograf.schema.errors import InvalidInput
from izograf.schema.record import FACTORS, check_factor, parse_record

UPSCALED = {"model": "upscaler", "sha256": "0" * 64, "precision": "fp32", "factor": 4}
RECORD = {
    "version": "1",
    "request": {
        "model": "m", "condition": {"type": "none"}, "num_images": 1, "seed": 0, "options": {},
    },
    "seed": 0,
    "batch": [0, 1],
    "model_sha256": "0" * 64,
    "environment": {},
    "pixels_sha256": "0" * 64,
}  # fmt: skip


def parsed(upscaled: Any) -> Any:
    return parse_record(json.dumps({**RECORD, "upscaled": upscaled}), source="a test")


@pytest.mark.parametrize("factor", FACTORS)
def test_a_record_with_every_part_is_taken(factor: int) -> None:
    assert parsed(UPSCALED | {"factor": factor})["upscaled"]["factor"] == factor
    check_factor(factor)


@pytest.mark.parametrize(
    "upscaled",
    [
        UPSCALED | {"factor": 3},
        UPSCALED | {"factor": 4096},
        UPSCALED | {"factor": "4"},
        UPSCALED | {"factor": True},
        UPSCALED | {"model": 7},
        UPSCALED | {"sha256": None},
        {"model": "upscaler"},
        [],
        "upscaler",
        None,
    ],
)
def test_anything_else_is_malformed(upscaled: Any) -> None:
    with pytest.raises(InvalidInput, match="The izograf record of a test is malformed"):
        parsed(upscaled)
