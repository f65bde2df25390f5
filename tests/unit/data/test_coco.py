"""COCO's folders and annotation files, with the keys that the real files have."""

from __future__ import annotations

import json

import pytest

from izograf.data.dataset import load_images
from izograf.schema.errors import DataError

CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "animal", "id": 18, "name": "dog"},
]


def image(identity: int) -> dict[str, object]:
    return {
        "license": 4, "file_name": f"{identity:012d}.jpg", "id": identity, "height": 8, "width": 12,
        "coco_url": f"http://images.cocodataset.org/train2017/{identity:012d}.jpg",
    }  # fmt: skip


def captions(pairs: list[tuple[int, str]], images: list[int]) -> bytes:
    annotations = [
        {"image_id": image_id, "id": number, "caption": caption}
        for number, (image_id, caption) in enumerate(pairs)
    ]
    licenses = [{"url": "http://creativecommons.org", "id": 4, "name": "Attribution"}]
    top = {"info": {"year": 2017}, "licenses": licenses, "images": [image(i) for i in images]}
    return json.dumps(top | {"annotations": annotations}).encode()


def instances(triples: list[tuple[int, int, float]], images: list[int]) -> bytes:
    annotations = [
        {
            "segmentation": [[1.5, 2.5, 3.5, 4.5]], "area": area, "iscrowd": 0, "id": number,
            "image_id": image_id, "bbox": [1, 2, 3, 4], "category_id": category,
        }
        for number, (image_id, category, area) in enumerate(triples)
    ]  # fmt: skip
    crowd = {"counts": [1, 2], "size": [8, 12]}
    annotations[-1] |= {"iscrowd": 1, "segmentation": crowd}
    top = {"info": {}, "images": [image(i) for i in images], "categories": CATEGORIES}
    return json.dumps(top | {"annotations": annotations}).encode()


@pytest.fixture
def files(encode):
    said = [(30, "A dog  on\na sofa."), (9, "A man."), (30, "Dog.")]
    return {
        "annotations/captions_train2017.json": captions(said, [30, 9, 25]),
        "annotations/captions_val2017.json": captions([(7, "Two dogs.")], [7]),
        "annotations/instances_train2017.json": instances(
            [(30, 1, 10.0), (30, 18, 4.0), (30, 18, 7.0), (9, 1, 1.0)], [30, 9, 25]
        ),
        "annotations/person_keypoints_train2017.json": b"{",  # not read
        "train2017/000000000009.jpg": encode((90, 0, 0), kind="JPEG"),
        "train2017/000000000025.jpg": encode((25, 0, 0), kind="JPEG"),
        "train2017/000000000030.jpg": encode((240, 0, 0), kind="JPEG"),
        "val2017/000000000007.jpg": encode(kind="JPEG"),
        "test2017/000000000001.jpg": encode(kind="JPEG"),
    }


@pytest.mark.parametrize("inside", ["", "coco/"])
@pytest.mark.parametrize("packed", [False, True])
def test_coco(tmp_path, files, write_folder, write_zip, claims, inside, packed):
    files = {inside + name: raw for name, raw in files.items()}
    write = write_zip if packed else write_folder
    path = write(tmp_path / ("c.zip" if packed else "c"), files)
    assert claims(path) == ["coco"]
    train, val = (load_images([path], 8, split=split, strict=True) for split in ("train", "test"))
    assert [name.removeprefix(inside) for name in train.names] == [
        "train2017/000000000009.jpg", "train2017/000000000025.jpg", "train2017/000000000030.jpg",
    ]  # fmt: skip
    assert [name.removeprefix(inside) for name in val.names] == ["val2017/000000000007.jpg"]
    assert train.classes == ()
    assert train.columns == (
        {"text": "A man.", "captions": ["A man."], "categories": ["person"], "category": "person"},
        {},
        {
            "text": "A dog on a sofa.",
            "captions": ["A dog on a sofa.", "Dog."],
            "categories": ["dog", "person"],
            "category": "dog",  # two dogs of 4 and 7 are more than a person of 10
        },
    )
    assert val.columns == ({"text": "Two dogs.", "captions": ["Two dogs."]},)
    assert abs(int(train.images[2, 0, 4, 4]) - 240) < 4


def test_categories_are_classes_when_asked(tmp_path, files, write_folder):
    folder = write_folder(tmp_path, files)
    train = load_images([folder], 8, class_column="category")
    assert [label.name for label in train.classes] == ["dog", "person"]
    assert train.class_ids.tolist() == [1, -1, 0]
    with pytest.raises(DataError, match="column captions cannot be the class"):
        load_images([folder], 8, class_column="captions")


def test_pictures_below_images_and_a_part_that_was_not_downloaded(tmp_path, files, write_folder):
    moved = {
        name if name.startswith("annotations") else f"images/{name}": raw
        for name, raw in files.items()
        if not name.startswith("train2017")
    }
    found = load_images([write_folder(tmp_path, moved)], 8, split="all", strict=True)
    assert found.names == ("images/val2017/000000000007.jpg",)


def test_a_listed_picture_that_is_missing_is_reported(tmp_path, files, write_folder):
    del files["train2017/000000000025.jpg"]
    report = load_images([write_folder(tmp_path, files)], 8).report
    assert report.skipped == (("train2017/000000000025.jpg", "missing file"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not in COCO's format"),
        (b'{"images": []}', "is not in COCO's format .*annotations"),
        (captions([(5, "of none")], [9]), "is not in COCO's format"),
        (captions([], [9]).replace(b"000000000009", b"../../9"), "outside|not a file inside"),
    ],
)
def test_damaged_annotations(tmp_path, files, write_folder, content, message):
    folder = write_folder(tmp_path, files | {"annotations/captions_train2017.json": content})
    with pytest.raises(DataError, match=message):
        load_images([folder], 8)


def test_annotations_without_pictures(tmp_path, files, write_folder):
    only = {name: raw for name, raw in files.items() if name.startswith("annotations")}
    with pytest.raises(DataError, match="put them into train2017 and val2017"):
        load_images([write_folder(tmp_path, only)], 8)
