"""CIFAR's binary batches, written here byte by byte as its page describes them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from izograf.data.dataset import load_images
from izograf.schema.errors import DataError, UnsafeFile

NAMES = b"airplane\nautomobile\nbird\n\n"


def record(*labels: int, color: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    planes = b"".join(bytes([level]) * 1024 for level in color)
    return bytes(labels) + planes


@pytest.fixture
def ten():
    files = {f"data_batch_{k}.bin": record(2, color=(k, 0, 9)) + record(0) for k in range(1, 6)}
    wrapped = {
        "test_batch.bin": record(1, color=(7, 8, 9)),
        "batches.meta.txt": NAMES,
        "readme.html": b"<html>",
    }
    return {f"cifar-10-batches-bin/{name}": raw for name, raw in (files | wrapped).items()}


@pytest.fixture
def hundred():
    return {
        "train.bin": record(1, 2, color=(1, 2, 3)) + record(0, 0),
        "test.bin": record(0, 1),
        "coarse_label_names.txt": b"fish\nflowers\n",
        "fine_label_names.txt": b"ray\nshark\nrose\n",
    }


def test_cifar_10(tmp_path, ten, write_folder, write_zip, claims):
    places = [write_folder(tmp_path / "d", ten), write_zip(tmp_path / "d.zip", ten)]
    for path in (*places, places[0] / "cifar-10-batches-bin"):
        assert claims(path) == ["cifar"]
        train, test = (load_images([path], 32, split=split) for split in ("train", "test"))
        assert [label.name for label in train.classes] == ["airplane", "automobile", "bird"]
        assert train.classes == test.classes
        assert len(train) == 10
        assert train.names[:3] == ("data_batch_1/00000", "data_batch_1/00001", "data_batch_2/00000")
        assert [train.classes[i].name for i in train.class_ids[:2]] == ["bird", "airplane"]
        assert train.images[2, :, 5, 5].tolist() == [2, 0, 9]
        assert test.names == ("test_batch/00000",)
        assert test.classes[test.class_ids[0]].name == "automobile"
        assert test.images[0, :, 0, 31].tolist() == [7, 8, 9]


def test_rows_and_columns_are_not_exchanged(tmp_path, write_folder):
    planes = np.zeros((3, 32, 32), np.uint8)
    planes[0, 3] = 200  # the fourth row is red
    folder = write_folder(tmp_path, {"data_batch_1.bin": bytes([4]) + planes.tobytes()})
    found = load_images([folder], 32)
    assert (found.images[0].numpy() == planes).all()
    assert found.classes[0].name == "4"  # without names the number is the name


def test_cifar_100(tmp_path, hundred, write_folder, claims):
    folder = write_folder(tmp_path / "c", hundred)
    assert claims(folder) == ["cifar"]
    fine = load_images([folder], 32, split="all")
    assert fine.names == ("test/00000", "train/00000", "train/00001")
    assert [fine.classes[i].name for i in fine.class_ids] == ["shark", "rose", "ray"]
    assert fine.images[1, :, 0, 0].tolist() == [1, 2, 3]
    assert [row["coarse"] for row in fine.columns] == ["fish", "flowers", "fish"]
    coarse = load_images([folder], 32, class_column="coarse")
    assert [coarse.classes[i].name for i in coarse.class_ids] == ["flowers", "fish"]


def test_mistakes_are_explained(tmp_path, ten, write_folder):
    inside = "cifar-10-batches-bin"
    short = write_folder(tmp_path / "a", ten | {f"{inside}/data_batch_2.bin": b"12"})
    with pytest.raises(DataError, match=r"data_batch_2\.bin is no whole number of records"):
        load_images([short], 32)
    other = write_folder(tmp_path / "b", ten | {f"{inside}/batches.meta.txt": b"cat\n"})
    with pytest.raises(DataError, match="has the label 2, and there are 1 class names"):
        load_images([other], 32)
    pickled = {"data_batch_1": pickle.dumps({}), "batches.meta": pickle.dumps({})}
    with pytest.raises(UnsafeFile, match="Give the binary version"):
        load_images([write_folder(tmp_path / "c", pickled)], 32)
