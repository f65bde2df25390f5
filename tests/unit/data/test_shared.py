"""The real datasets, where they are present; a sample of each to stay quick."""

from __future__ import annotations

from izograf.data.dataset import load_images
from izograf.schema.labels import resolve_class

SCENES = ["buildings", "forest", "glacier", "mountain", "sea", "street"]


def test_scenes(shared):
    images = load_images([shared / "scenes-128"], 32, limit=300, strict=True)
    assert [label.name for label in images.classes] == SCENES
    assert len(images) == 300
    assert all(count > 20 for count in images.report.per_class.values())
    for word, name in (("горах", "mountain"), ("лес", "forest"), ("Streets", "street")):
        assert images.classes[resolve_class(word, images.classes)].name == name


def test_scenes_split_as_stated(shared):
    images = load_images([shared / "scenes-128" / "sea.zip"], 8, split="test", strict=True)
    assert len(images) == 270
    assert all(name.startswith("test/sea/") for name in images.names)


def test_clothing(shared):
    images = load_images([shared / "clothing-128.zip"], 16, split="test", strict=True)
    assert len(images) == 497
    assert len(images.classes) == 14
    assert images.classes[resolve_class("футболку", images.classes)].name == "t-shirt"


def test_emoji(shared):
    images = load_images([shared / "emoji-128.zip"], 16, limit=100, strict=True)
    assert len(images) == len(images.columns) == 100
    assert images.classes == ()
    assert all(row["text"] and row["text_ru"] for row in images.columns)


def test_mnist(shared):
    images = load_images([shared / "mnist.npz"], 28, split="test", limit=1000)
    assert [label.name for label in images.classes] == list("0123456789")
    assert len(images) == 1000
    assert min(images.report.per_class.values()) > 50
    assert resolve_class("семь", images.classes) == 7
