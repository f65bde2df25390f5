"""A stranger's record names an upscaler: by a name of the catalogue, never by a path."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from izograf.service.uploads import with_text

UPSCALED = {"model": "scenes", "sha256": "0" * 64, "precision": "fp32", "factor": 4}


def forged(upscaled: Any) -> bytes:
    """A grey PNG whose record says that it was made by `scenes` and enlarged."""
    request = {
        "model": "scenes", "condition": {"type": "none"}, "num_images": 1, "seed": 3, "options": {},
    }  # fmt: skip
    record = {
        "version": "1", "request": request, "seed": 3, "batch": [3, 1], "model_sha256": "0",
        "environment": {}, "pixels_sha256": "0", "upscaled": upscaled,
    }  # fmt: skip
    buffer = io.BytesIO()
    Image.new("RGB", (256, 256), "grey").save(buffer, "PNG")
    return with_text(buffer.getvalue(), "izograf", json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 202),
        ({"model": "../../etc/passwd"}, 404),
        ({"model": "/tmp"}, 404),
        ({"model": "nothing-like-it"}, 404),
        ({"factor": 4096}, 422),
        ({"factor": "4"}, 422),
        ({"sha256": None}, 422),
    ],
)
def test_only_an_upscaler_of_the_catalogue_is_looked_for(
    client: TestClient, changes: dict[str, Any], status: int
) -> None:
    headers = {"content-type": "image/png"}
    answer = client.post("/api/v1/verify", content=forged(UPSCALED | changes), headers=headers)
    assert answer.status_code == status, answer.text
