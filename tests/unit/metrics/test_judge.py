"""The judge: the classifier network, and the extractor around it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from izograf.metrics.extractors import open_extractor
from izograf.metrics.judge import JudgeExtractor, judge_from_network
from izograf.metrics.weights import file_sha256
from izograf.models.classifier import Classifier, ClassifierConfig, build_classifier
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput, NotFound
from izograf.schema.labels import ClassLabel

CONFIG = ClassifierConfig(image_size=32, num_classes=3, width=16, depth=1)
NETWORKS = {"classifier": build_classifier}


def seeded_classifier() -> Classifier:
    torch.manual_seed(0)
    network = Classifier(CONFIG)
    for parameter in network.parameters():  # otherwise the residual branches are all zero
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(seeded_classifier().state_dict(), tmp_path / "weights.safetensors")
    card = ModelCard(
        name="judge-test",
        family="classifier",
        network={"name": "classifier", "config": dataclasses.asdict(CONFIG)},
        image_size=32,
        classes=(ClassLabel("sea"), ClassLabel("forest"), ClassLabel("street")),
        weights={"weights.safetensors": file_sha256(tmp_path / "weights.safetensors")},
    )
    (tmp_path / "card.json").write_text(card.dumps())
    return tmp_path


def pictures(count: int = 4, size: int = 32) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, size, size), generator=rng, dtype=torch.uint8)


def open_judge(path: Path) -> JudgeExtractor:
    judge = open_extractor("judge", path, networks=NETWORKS)
    assert isinstance(judge, JudgeExtractor)
    return judge


def test_default_size_is_that_of_the_docstring() -> None:
    network = Classifier(ClassifierConfig(image_size=64, num_classes=6))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.1e6, rel=0.05)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    assert counter.get_total_flops() / 2 == pytest.approx(56e6, rel=0.05)


@pytest.mark.parametrize("activation", ["silu", "relu", "gelu"])
def test_every_parameter_gets_a_gradient(activation: str) -> None:
    network = Classifier(dataclasses.replace(CONFIG, activation=activation, dropout=0.0))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_picture_does_not_depend_on_its_batch() -> None:
    network = seeded_classifier().eval()
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[2:3], network(images[2:3]))


def test_features_and_head_make_the_logits() -> None:
    network = seeded_classifier().eval()
    images = torch.randn(2, 3, 32, 32)
    assert network.features(images).shape == (2, network.num_features) == (2, 48)
    torch.testing.assert_close(network.head(network.features(images)), network(images))
    with pytest.raises(ValueError, match="expected images"):
        network(images[..., :16])


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 24},
        {"image_size": 0},
        {"num_classes": 1},
        {"width": 20},
        {"depth": 0},
        {"dropout": 1.0},
        {"activation": "tanh"},
    ],
)
def test_illegal_configs_are_refused(change: dict[str, Any]) -> None:
    values = dataclasses.asdict(CONFIG) | change
    with pytest.raises(ValueError, match=next(iter(change))):
        ClassifierConfig(**values)
    with pytest.raises(CardError, match=next(iter(change))):
        build_classifier(values)


def test_judge_from_folder_file_and_memory_agree(folder: Path) -> None:
    judge = open_judge(folder)
    assert (judge.id, judge.dimension, judge.image_size) == ("judge", 48, 32)
    assert judge.classes == ("sea", "forest", "street")
    assert judge.sha256 == file_sha256(folder / "weights.safetensors")
    by_file = open_judge(folder / "weights.safetensors")
    in_memory = judge_from_network(seeded_classifier(), image_size=32, classes=judge.classes)
    expected = judge(pictures())
    assert torch.equal(by_file(pictures()), expected)
    assert torch.equal(in_memory(pictures()), expected)


def test_logits_are_the_networks_own(folder: Path) -> None:
    network = seeded_classifier().eval()
    with torch.no_grad():
        expected = network(pictures().float() / 127.5 - 1)
    logits = open_judge(folder).logits(pictures(), batch_size=3)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_unusable_judges_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="path of its weights"):
        open_extractor("judge", networks=NETWORKS)
    with pytest.raises(InvalidInput, match="not among those given"):
        open_extractor("judge", folder)
    with pytest.raises(NotFound, match="card"):
        open_judge(tmp_path / "nowhere" / "weights.safetensors")
    other = {name: value + 1 for name, value in seeded_classifier().state_dict().items()}
    save_file(other, folder / "weights.safetensors")
    with pytest.raises(CardError, match="sha256"):
        open_judge(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(NotFound, match="weights file"):
        open_judge(folder)
