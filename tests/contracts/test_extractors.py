"""What every registered feature extractor promises, with seeded random weights where needed."""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from izograf.core.rng import seeded_layers
from izograf.metrics.extractors import extract_features, open_extractor
from izograf.metrics.inception import Inception
from izograf.metrics.registry import EXTRACTORS, FeatureExtractor
from izograf.metrics.squeezenet import SqueezeNet, SqueezeNetExtractor
from izograf.models.classifier import Classifier, ClassifierConfig, build_classifier
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.labels import ClassLabel

SHARED = Path(os.environ.get("IZOGRAF_SHARED", Path(__file__).parents[3] / "shared"))


def lively(build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose random weights keep activations of order one through all layers."""
    with seeded_layers("contract"):
        network = build()
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def random_judge() -> tuple[Classifier, ModelCard]:
    config = ClassifierConfig(image_size=32, num_classes=2, width=16, depth=1)
    card = ModelCard(
        name="judge",
        family="classifier",
        network={"name": "classifier", "config": dataclasses.asdict(config)},
        image_size=32,
        classes=(ClassLabel("sea"), ClassLabel("forest")),
    )
    return Classifier(config), card


@pytest.fixture(scope="module", params=EXTRACTORS)
def extractor(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FeatureExtractor:
    """Each registered extractor; one that is not listed here must open without weights."""
    folder = tmp_path_factory.mktemp("extractor")
    path = folder / "weights.safetensors"
    networks: dict[str, Callable[[], nn.Module]] = {
        "inception-2015": Inception,
        "squeezenet1.1": SqueezeNet,
        "judge": lambda: random_judge()[0],
    }
    if request.param not in networks:
        return open_extractor(request.param)
    save_file(lively(networks[request.param]).state_dict(), path)
    (folder / "card.json").write_text(random_judge()[1].dumps())
    return open_extractor(request.param, path, networks={"classifier": build_classifier})


def pictures(count: int = 3, height: int = 40, width: int = 40) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=rng, dtype=torch.uint8)


def test_one_float32_row_per_picture_on_the_cpu(extractor: FeatureExtractor) -> None:
    rows = extractor(pictures())
    assert rows.shape == (3, extractor.dimension)
    assert (rows.dtype, rows.device.type) == (torch.float32, "cpu")
    assert torch.isfinite(rows).all()
    assert not rows.requires_grad
    assert rows.std(dim=0).max() > 1e-4, "the features do not see the pictures"


def test_a_row_does_not_depend_on_the_batch(extractor: FeatureExtractor) -> None:
    together = extract_features(pictures(), extractor)
    alone = extract_features(iter(pictures().split(1)), extractor)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_any_size_is_resized(extractor: FeatureExtractor) -> None:
    assert extractor(pictures(1, 21, 34)).shape == (1, extractor.dimension)


def test_identified(extractor: FeatureExtractor) -> None:
    assert extractor.id in EXTRACTORS
    assert len(extractor.sha256) == 64
    assert set(extractor.sha256) <= set("0123456789abcdef")
    assert extractor.resize


def test_other_types_and_shapes_are_refused(extractor: FeatureExtractor) -> None:
    for bad in (pictures().float(), pictures()[0], pictures()[:, :1]):
        with pytest.raises(InvalidInput, match="uint8"):
            extractor(bad)


def test_the_global_generator_is_left_alone(extractor: FeatureExtractor) -> None:
    before = torch.random.get_rng_state()
    extractor(pictures(1))
    if extractor.id == "random-conv":
        open_extractor(extractor.id)
    assert torch.equal(torch.random.get_rng_state(), before)


def scene_pictures(name: str, count: int) -> Tensor:
    with zipfile.ZipFile(SHARED / "data" / "scenes-128" / f"{name}.zip") as archive:
        members = [member for member in archive.namelist() if member.startswith("test/")][:count]
        images = [Image.open(io.BytesIO(archive.read(member))) for member in members]
        arrays = [np.array(image.convert("RGB")) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def test_squeezenet_sees_what_is_in_scene_pictures() -> None:
    """ImageNet-1k indices: 978 is seashore, 970 is alp."""
    weights = SHARED / "data" / "reference" / "squeezenet1_1.safetensors"
    if not weights.is_file():
        pytest.skip(f"needs {weights.name} in the shared data folder (IZOGRAF_SHARED)")
    extractor = open_extractor("squeezenet1.1", weights)
    assert isinstance(extractor, SqueezeNetExtractor)
    for name, expected in (("sea", 978), ("glacier", 970)):
        with torch.no_grad():
            named = extractor.network.logits(scene_pictures(name, 24)).argmax(dim=1)
        assert int(named.mode().values) == expected
