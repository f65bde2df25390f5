"""Data sets of the hub, through a stand-in for the package with the same names and habits."""

from __future__ import annotations

import io
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from izograf.data.dataset import load_images
from izograf.schema.errors import DataError, MissingExtra

NAME = Path("hf:izograf/shapes")


@dataclass(frozen=True)
class Image:
    decode: bool = True


@dataclass(frozen=True)
class ClassLabel:
    names: list[str]
    dtype: str = "int64"


@dataclass(frozen=True)
class Value:
    dtype: str


@dataclass(frozen=True)
class Sequence:
    feature: Value


@dataclass(frozen=True)
class Rows:
    """A `datasets.Dataset`: columns by name, rows by number."""

    features: dict[str, Any]
    table: dict[str, list[Any]]
    cache_files: list[dict[str, str]] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.table.values())))

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            return list(self.table[key])
        row = {name: values[key] for name, values in self.table.items()}
        for name, kind in self.features.items():
            if isinstance(kind, Image) and kind.decode and row[name]["bytes"]:
                row[name] = PillowImage.open(io.BytesIO(row[name]["bytes"]))
        return row

    def cast_column(self, name: str, kind: Any) -> Rows:
        return Rows(self.features | {name: kind}, self.table, self.cache_files)

    def select_columns(self, names: list[str]) -> Rows:
        chosen = {name: self.table[name] for name in names}
        return Rows({n: self.features[n] for n in names}, chosen, self.cache_files)


@pytest.fixture
def hub(tmp_path, monkeypatch, encode):
    """A module `datasets`, and the calls it received; one set, in two splits of 3 and 1."""
    features = {
        "image": Image(),
        "label": ClassLabel(["circle", "square"]),
        "caption": Value("string"),
        "size": Value("int32"),
        "tags": Sequence(Value("string")),
        "box": Value("struct"),
    }

    def rows(split: str, labels: list[int], shade: int) -> Rows:
        count = len(labels)
        pictures = [{"bytes": encode((shade + i, 0, 0)), "path": None} for i in range(count)]
        table = {
            "image": pictures,
            "label": labels,
            "caption": [f"{split} {i}" for i in range(count)],
            "size": list(range(count)),
            "tags": [["a", "b"]] * count,
            "box": [{"x": 1}] * count,
        }
        arrow = tmp_path / f"{split}.arrow"
        arrow.write_bytes(b"arrow")
        return Rows(features, table, [{"filename": str(arrow)}])

    splits = {"train": rows("train", [1, -1, 0], 50), "validation": rows("validation", [1], 90)}
    calls: list[tuple[str, str | None]] = []

    def load_dataset(name: str, config: str | None = None) -> dict[str, Rows]:
        calls.append((name, config))
        if name != "izograf/shapes":
            raise FileNotFoundError(f"Dataset '{name}' doesn't exist on the Hub\nmore lines")
        return splits

    module = types.SimpleNamespace(
        load_dataset=load_dataset, Image=Image, ClassLabel=ClassLabel, splits=splits, calls=calls
    )
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


@pytest.mark.usefixtures("hub")
def test_a_set_by_name():
    train, test = (load_images([NAME], 8, split=split, strict=True) for split in ("train", "test"))
    assert train.name == "shapes"
    assert [label.name for label in train.classes] == ["circle", "square"]
    assert train.classes == test.classes
    assert train.class_ids.tolist() == [1, -1, 0]
    assert train.names == ("train/0000000", "train/0000001", "train/0000002")
    assert test.names == ("validation/0000000",)
    assert train.images[:, 0, 3, 3].tolist() == [50, 51, 52]
    assert train.columns[2] == {
        "label": "circle", "caption": "train 2", "size": 2, "tags": ["a", "b"], "text": "train 2",
    }  # fmt: skip


@pytest.mark.usefixtures("hub")
def test_a_column_may_be_the_class():
    found = load_images([NAME], 8, class_column="size")
    assert [label.name for label in found.classes] == ["0", "1", "2"]


def test_configurations_and_splits_of_other_names(hub):
    hub.splits["extra"] = hub.splits.pop("validation")
    found = load_images([Path("hf:izograf/shapes:large")], 8, split="all")
    assert hub.calls == [("izograf/shapes", "large")]
    assert found.names[-1] == "extra/0000000"
    assert len(load_images([NAME], 8)) >= 3


def test_pictures_stored_beside_the_table_or_not_at_all(hub, tmp_path, encode):
    (tmp_path / "1.png").write_bytes(encode((77, 0, 0)))
    hub.splits["train"].table["image"][:] = [
        {"bytes": None, "path": str(tmp_path / "1.png")},
        {"bytes": None, "path": str(tmp_path / "gone.png")},
        None,
    ]
    found = load_images([NAME], 8)
    assert found.images[0, 0, 3, 3] == 77
    assert [reason for _, reason in found.report.skipped] == [
        "missing file",
        "no picture in this row",
    ]


def test_the_cache_notices_that_the_set_was_downloaded_anew(hub, tmp_path):
    def sets() -> int:
        load_images([NAME], 8, cache_dir=tmp_path / "cache")
        return len(list((tmp_path / "cache").glob("*.json")))

    assert [sets(), sets()] == [1, 1]
    Path(hub.splits["train"].cache_files[0]["filename"]).write_bytes(b"another arrow")
    assert sets() == 2


@pytest.mark.usefixtures("hub")
def test_a_set_that_cannot_be_loaded():
    with pytest.raises(DataError, match=r"Cannot load hf:a/b: .* doesn't exist on the Hub\. Check"):
        load_images([Path("hf:a/b")], 8)


def test_a_set_without_pictures(hub):
    for rows in hub.splits.values():
        rows.features.pop("image", None)
    with pytest.raises(DataError, match="no feature of type Image, only label, caption"):
        load_images([NAME], 8)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"hf:izograf/shapes needs .* 'izograf\[hf\]'"):
        load_images([NAME], 8)


def test_a_folder_of_such_a_name_is_a_folder(tmp_path, monkeypatch, encode, write_folder):
    monkeypatch.chdir(tmp_path)
    write_folder(Path("hf:mine"), {"a/1.png": encode()})
    assert len(load_images([Path("hf:mine")], 8, split="all")) == 1


def test_the_package_itself(tmp_path, monkeypatch):
    """A set saved on disk and loaded again by the real package, where it is installed."""
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    pictures = [PillowImage.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (3, 200)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["dark", "light"]),
            "text": datasets.Value("string"),
        }
    )
    table = {"image": pictures, "label": [0, 1], "text": ["night", "day"]}
    made = datasets.DatasetDict({"train": datasets.Dataset.from_dict(table, features=features)})
    made.save_to_disk(tmp_path / "saved")
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_: datasets.load_from_disk(tmp_path / "saved")
    )
    found = load_images([NAME], 8, strict=True)
    assert [label.name for label in found.classes] == ["dark", "light"]
    assert found.class_ids.tolist() == [0, 1]
    assert found.images[:, 0, 0, 0].tolist() == [3, 200]
    assert [row["text"] for row in found.columns] == ["night", "day"]
