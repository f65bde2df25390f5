"""ImageNet as Kaggle, the development kit and Tiny ImageNet lay it out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy import io as scipy_io

from izograf.data.dataset import load_images
from izograf.schema.errors import DataError
from izograf.schema.labels import resolve_class

TENCH, BIRD, MACHINE = "n01440764", "n02012849", "n03126707"
MAPPING = (
    b"n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\nn04120489 running shoe\n"
)


@pytest.fixture
def train(encode):
    return {
        f"train/{synset}/{synset}_{i}.JPEG": encode((i, 0, 0), kind="JPEG")
        for synset in (TENCH, BIRD, MACHINE)
        for i in (10, 7)
    }


@pytest.fixture
def flat(encode):
    return {
        f"val/ILSVRC2012_val_0000000{i}.JPEG": encode((i, 0, 0), kind="JPEG") for i in (1, 2, 3)
    }


def labelled(path, split="test"):
    found = load_images([path], 8, split=split, strict=True)
    names = [found.classes[i].name if i >= 0 else None for i in found.class_ids]
    return dict(zip((name.rpartition("/")[2] for name in found.names), names, strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_per_synset(tmp_path, train, encode, write_folder, write_zip, claims, packed):
    files = {f"imagenet/{name}": raw for name, raw in train.items()} | {
        f"imagenet/val/{BIRD}/ILSVRC2012_val_00000001.JPEG": encode(kind="JPEG"),
        "imagenet/LOC_synset_mapping.txt": MAPPING,
    }
    write = write_zip if packed else write_folder
    path = write(tmp_path / ("i.zip" if packed else "i"), files)
    assert claims(path) == ["imagenet"]
    found = load_images([path], 8, strict=True)
    assert [label.name for label in found.classes] == [TENCH, BIRD, MACHINE]
    assert found.class_ids.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.names[0] == f"imagenet/train/{TENCH}/{TENCH}_10.JPEG"
    assert found.classes[0].display("en") == "tench"
    assert [resolve_class(word, found.classes) for word in ("Tinca tinca", MACHINE)] == [0, 2]
    assert labelled(path) == {"ILSVRC2012_val_00000001.JPEG": BIRD}


def test_kaggle(tmp_path, train, flat, encode, write_folder, claims):
    root = "ILSVRC/Data/CLS-LOC/"
    test = {"test/ILSVRC2012_test_00000001.JPEG": encode(kind="JPEG")}
    solution = (
        b"ImageId,PredictionString\nILSVRC2012_val_00000003,n01440764 85 1 499 272 \n"
        b"ILSVRC2012_val_00000001,n03126707 1 2 3 4 n03126707 5 6 7 8 \n"
    )
    files = {root + name: raw for name, raw in (train | flat | test).items()} | {
        "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml": b"<annotation/>",
        "ILSVRC/ImageSets/CLS-LOC/val.txt": b"ILSVRC2012_val_00000001 1\n",
        "LOC_val_solution.csv": solution,
        "LOC_synset_mapping.txt": MAPPING,
    }
    path = write_folder(tmp_path / "k", files)
    assert claims(path) == ["imagenet"]
    assert labelled(path) == {
        "ILSVRC2012_val_00000001.JPEG": MACHINE,
        "ILSVRC2012_val_00000002.JPEG": None,
        "ILSVRC2012_val_00000003.JPEG": TENCH,
    }
    assert len(load_images([path], 8)) == 6


def test_the_development_kit(tmp_path, train, flat, write_folder):
    files = {f"ILSVRC2012_img_{name}": raw for name, raw in (train | flat).items()} | {
        "devkit/data/map_clsloc.txt": b"n02012849 1 crane\nn01440764 2 tench\n",
        "devkit/data/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2\n",
    }
    path = write_folder(tmp_path / "d", files)
    assert list(labelled(path).values()) == [TENCH, BIRD, TENCH]
    found = load_images([path], 8)
    assert len(found) == 6
    assert found.classes[0].display("en") == "tench"


def test_the_development_kit_as_matlab_wrote_it(tmp_path, train, flat, write_folder):
    table = np.empty((2, 1), dtype=[(n, object) for n in ("ILSVRC2012_ID", "WNID", "words")])
    table[0, 0] = (np.float64(1), BIRD, "crane")
    table[1, 0] = (np.float64(2), TENCH, "tench, Tinca tinca")
    meta = io.BytesIO()
    scipy_io.savemat(meta, {"synsets": table}, do_compression=True)
    kit = "ILSVRC2012_devkit_t12/data"
    files = {f"ILSVRC2012_img_{name}": raw for name, raw in (train | flat).items()} | {
        f"{kit}/meta.mat": meta.getvalue(),
        f"{kit}/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2\n",
    }
    path = write_folder(tmp_path / "d", files)
    assert list(labelled(path).values()) == [TENCH, BIRD, TENCH]
    found = load_images([path], 8)
    assert [label.display("en") for label in found.classes] == ["tench", "crane", MACHINE]
    write_folder(path, {f"{kit}/meta.mat": b"x"})
    with pytest.raises(DataError, match=r"meta\.mat is not the development kit's table"):
        load_images([path], 8)


def test_synsets_by_line(tmp_path, train, flat, write_folder):
    lines = f"{TENCH}\n{BIRD}\n{BIRD}\n".encode()
    files = train | flat | {"imagenet_2012_validation_synset_labels.txt": lines}
    assert list(labelled(write_folder(tmp_path, files)).values()) == [TENCH, BIRD, BIRD]


def test_tiny_imagenet(tmp_path, encode, write_folder):
    files = {
        f"train/{TENCH}/images/{TENCH}_0.JPEG": encode(kind="JPEG"),
        f"train/{TENCH}/{TENCH}_boxes.txt": b"n01440764_0.JPEG\t0\t10\t63\t58\n",
        "val/images/val_0.JPEG": encode(kind="JPEG"),
        "val/val_annotations.txt": f"val_0.JPEG\t{BIRD}\t0\t32\t44\t62\n".encode(),
        "test/images/test_0.JPEG": encode(kind="JPEG"),
        "words.txt": f"n00001740\tentity\n{BIRD}\tcrane\n".encode(),
    }
    path = write_folder(tmp_path / "tiny-imagenet-200", files)
    assert labelled(path, "all") == {f"{TENCH}_0.JPEG": TENCH, "val_0.JPEG": BIRD}


def test_flat_validation_without_ground_truth_is_unlabelled(tmp_path, train, flat, write_folder):
    path = write_folder(tmp_path, train | flat)
    assert set(labelled(path).values()) == {None}
    assert len(load_images([path], 8)) == 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "ILSVRC2012_validation_ground_truth.txt",
            b"2\n1\n2\n",
            "neither meta.mat nor map_clsloc.txt tells",
        ),
        ("x_synset_labels.txt", b"n01440764\n", "has 1 lines, and none belongs to the picture"),
        ("x_synset_labels.txt", b"cat\ndog\nbird\n", "the class 'cat', expected a synset"),
        ("LOC_val_solution.csv", b"ImageId,PredictionString\nx,\n", "the class '', expected"),
        ("LOC_val_solution.csv", b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_ground_truth_that_cannot_serve(
    tmp_path, train, flat, write_folder, name, content, message
):
    path = write_folder(tmp_path, train | flat | {name: content})
    with pytest.raises(DataError, match=message):
        load_images([path], 8)


def test_one_class_called_train_is_no_imagenet(tmp_path, encode, write_folder, claims):
    path = write_folder(tmp_path, {"train/cat/1.png": encode(), "n01440764/2.png": encode()})
    assert claims(path) == []
