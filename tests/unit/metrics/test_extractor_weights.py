"""Weights files: what is refused, and how; and extracting over many pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from izograf.metrics.extractors import extract_features, open_extractor
from izograf.metrics.weights import file_sha256, load_weights
from izograf.schema.errors import CardError, InvalidInput, NotFound, UnsafeFile


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.full((2, 3), 0.5).half(), "bias": torch.ones(2).half()}, path)
    layer = nn.Linear(3, 2)
    assert load_weights(layer, path) == file_sha256(path)
    assert layer.weight.dtype == torch.float32
    assert layer.weight.eq(0.5).all()


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(NotFound, match="no weights file"):
        load_weights(layer, tmp_path / "absent.safetensors")
    with pytest.raises(UnsafeFile, match="pickle"):
        load_weights(layer, tmp_path / "model.pth")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(CardError, match="not a safetensors"):
        load_weights(layer, broken)
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(2, 3)}, path)
    with pytest.raises(CardError, match="bias"):
        load_weights(layer, path)
    save_file({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, path)
    with pytest.raises(CardError, match="shape"):
        load_weights(layer, path)


class NotANumber:
    id, sha256, dimension, resize = "nan", "", 1, "none"

    def __call__(self, pictures: Tensor) -> Tensor:
        return torch.full((len(pictures), 1), torch.nan)


def test_extraction_refuses_what_it_cannot_measure() -> None:
    picture = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(InvalidInput, match="NaN"):
        extract_features(picture, NotANumber())
    with pytest.raises(InvalidInput, match="no pictures"):
        extract_features(iter([]), NotANumber())
    with pytest.raises(InvalidInput, match="uint8"):
        extract_features(picture[0], NotANumber())


def test_unknown_names_are_refused() -> None:
    with pytest.raises(NotFound, match=r"squeezenet1\.1"):
        open_extractor("squeezenet")
    with pytest.raises(InvalidInput, match="needs the path"):
        open_extractor("inception-2015")
    with pytest.raises(InvalidInput, match="resize"):
        open_extractor("random-conv", resize="clean")
    with pytest.raises(InvalidInput, match="legacy_tf"):
        open_extractor("inception-2015", resize="cubic")
    with pytest.raises(InvalidInput, match="takes no weights"):
        open_extractor("random-conv", "some.safetensors")
