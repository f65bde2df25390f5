"""CelebA's files as they are downloaded, and as Kaggle repacks them."""

from __future__ import annotations

import json

import pytest

from izograf.data.dataset import load_images
from izograf.schema.errors import DataError

ATTRIBUTES = b"""4
5_o_Clock_Shadow Smiling Wavy_Hair
000001.jpg -1  1  1
000002.jpg -1 -1  1
000003.jpg  1 -1 -1
000004.jpg -1  1 -1
"""
PARTITION = b"000001.jpg 0\n000002.jpg 0\n000003.jpg 1\n000004.jpg 2\n"


@pytest.fixture
def pictures(encode):
    return {f"{i:06d}.jpg": encode((60 * i, 0, 0), kind="JPEG") for i in range(1, 5)}


@pytest.fixture
def downloaded(pictures):
    return {
        "Anno/list_attr_celeba.txt": ATTRIBUTES,
        "Eval/list_eval_partition.txt": PARTITION,
        "Anno/identity_CelebA.txt": b"000001.jpg 2880\n",
    } | {f"Img/img_align_celeba/{name}": raw for name, raw in pictures.items()}


@pytest.fixture
def kaggle(pictures):
    rows = ATTRIBUTES.replace(b"  ", b" ").replace(b" ", b",").splitlines()[1:]
    table = b"\n".join([b"image_id," + rows[0], *rows[1:]])
    splits = b"image_id,partition\n" + PARTITION.replace(b" ", b",")
    return {"list_attr_celeba.csv": table, "list_eval_partition.csv": splits} | {
        f"img_align_celeba/img_align_celeba/{name}": raw for name, raw in pictures.items()
    }


@pytest.mark.parametrize("layout", ["downloaded", "kaggle"])
@pytest.mark.parametrize("packed", [False, True])
def test_celeba(tmp_path, write_folder, write_zip, claims, request, layout, packed):
    write = write_zip if packed else write_folder
    path = write(tmp_path / ("c.zip" if packed else "c"), request.getfixturevalue(layout))
    assert claims(path) == ["celeba"]
    train, test = (load_images([path], 8, split=split, strict=True) for split in ("train", "test"))
    assert [name[-10:] for name in train.names] == ["000001.jpg", "000002.jpg"]
    assert [name[-10:] for name in test.names] == ["000003.jpg", "000004.jpg"]
    assert train.columns[0] == {"5_o_Clock_Shadow": False, "Smiling": True, "Wavy_Hair": True}
    assert test.columns[0] == {"5_o_Clock_Shadow": True, "Smiling": False, "Wavy_Hair": False}
    assert train.classes == ()
    assert abs(int(test.images[0, 0, 4, 4]) - 180) < 4
    smiling = load_images([path], 8, split="all", class_column="Smiling")
    assert [label.name for label in smiling.classes] == ["Smiling", "not Smiling"]
    assert smiling.class_ids.tolist() == [0, 1, 1, 0]
    wavy = load_images([path], 8, split="test", class_column="Wavy_Hair")
    assert [wavy.classes[i].name for i in wavy.class_ids] == ["not Wavy Hair"] * 2


def test_without_a_partition_the_split_is_made_from_the_names(tmp_path, downloaded, write_folder):
    del downloaded["Eval/list_eval_partition.txt"]
    folder = write_folder(tmp_path, downloaded)
    names = load_images([folder], 8, split="all").names
    parts = [load_images([folder], 8).names]
    assert set(parts[0]) <= set(names)
    assert len(names) == 4


def test_a_listed_picture_that_is_missing_is_reported(tmp_path, downloaded, write_folder):
    del downloaded["Img/img_align_celeba/000002.jpg"]
    report = load_images([write_folder(tmp_path, downloaded)], 8).report
    assert report.skipped == (("img_align_celeba/000002.jpg", "missing file"),)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (ATTRIBUTES.replace(b"-1  1  1", b"-1  1"), "line 3: 2 values for 3 attributes"),
        (ATTRIBUTES.replace(b"-1  1  1", b"-1  1  5"), "line 3: '5' is none of 1, -1"),
        (b"", "is empty"),
    ],
)
def test_a_damaged_table(tmp_path, downloaded, write_folder, table, message):
    folder = write_folder(tmp_path, downloaded | {"Anno/list_attr_celeba.txt": table})
    with pytest.raises(DataError, match=message):
        load_images([folder], 8)


def test_pictures_still_packed(tmp_path, write_folder):
    files = {"list_attr_celeba.txt": ATTRIBUTES, "img_align_celeba.zip": b"PK"}
    with pytest.raises(DataError, match=r"unpack img_align_celeba\.zip there"):
        load_images([write_folder(tmp_path, files)], 8)


def test_scanning_by_an_attribute(tmp_path, downloaded, write_folder, izograf):
    folder = write_folder(tmp_path / "celeba", downloaded)
    outcome = izograf("scan", "--data", folder, "--class-column", "Wavy_Hair", "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)
    assert row["per_class"] == {"Wavy Hair": 2, "not Wavy Hair": 2}
    wrong = izograf("scan", "--data", folder, "--class-column", "Smile")
    assert wrong.code != 0
    assert "Did you mean Smiling?" in wrong.err
