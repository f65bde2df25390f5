"""Folders, zips, npz files and tables all become the same entries."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import zipfile

import numpy as np
import pytest

from izograf.data import trees
from izograf.data.dataset import load_images
from izograf.data.sources import open_sources
from izograf.schema.errors import DataError, IzografError, UnsafeFile


@pytest.fixture
def pictures(encode):
    return {
        "train/sea/1.webp": encode((0, 0, 200), kind="WEBP"),
        "train/forest/2.jpg": encode((0, 200, 0), kind="JPEG"),
        "test/sea/3.png": encode((0, 0, 100)),
    }


def listed(*paths):
    sources = open_sources(paths)
    entries = [entry for source in sources for entry in source.entries()]
    for source in sources:
        source.close()
    return [(entry.name, entry.class_name, entry.split) for entry in entries]


def test_folder_and_zip_are_alike(tmp_path, pictures, write_folder, write_zip):
    extra = {"README.md": b"about", ".hidden/x.png": b"?", "__MACOSX/x.png": b"?", "train/.DS": b""}
    folder = write_folder(tmp_path / "scenes", pictures | extra)
    archive = write_zip(tmp_path / "scenes.zip", pictures | extra)
    expected = [
        ("test/sea/3.png", "sea", "test"),
        ("train/forest/2.jpg", "forest", "train"),
        ("train/sea/1.webp", "sea", "train"),
    ]
    assert listed(folder) == expected
    assert listed(archive) == expected
    a, b = load_images([folder], 8, split="all"), load_images([archive], 8, split="all")
    assert (a.images == b.images).all()
    assert (a.names, a.classes, a.report) == (b.names, b.classes, b.report)


def test_wrapped_zip(tmp_path, pictures, write_zip):
    archive = write_zip(tmp_path / "s.zip", {f"top/{name}": c for name, c in pictures.items()})
    assert {(label, split) for _, label, split in listed(archive)} == {
        ("sea", "test"),
        ("sea", "train"),
        ("forest", "train"),
    }


def test_flat_folder_has_no_classes(tmp_path, encode, write_folder):
    folder = write_folder(tmp_path / "flat", {f"{i}.png": encode() for i in range(30)})
    images = load_images([folder], 8, split="all")
    assert images.classes == ()
    assert images.class_ids.tolist() == [-1] * 30
    assert len(load_images([folder], 8)) + len(load_images([folder], 8, split="test")) == 30


def test_folder_of_zips_equals_the_concatenation(tmp_path, encode, write_zip):
    zips = [
        write_zip(
            tmp_path / "all" / f"{label}.zip",
            {f"train/{label}/{i}.png": encode((i, 9, 9)) for i in range(3)}
            | {f"test/{label}/9.png": encode((9, 9, 9))},
        )
        for label in ("forest", "sea")
    ]
    together, listing = load_images([tmp_path / "all"], 8), load_images(zips, 8)
    assert (together.images == listing.images).all()
    assert (together.class_ids == listing.class_ids).all()
    assert (together.names, together.classes) == (listing.names, listing.classes)
    assert together.name == "all"
    assert listing.name == "forest+sea"
    only = load_images([zips[1]], 8)
    assert [label.name for label in only.classes] == ["sea"]


def test_a_folder_may_mix_zips_and_pictures(tmp_path, encode, write_folder, write_zip):
    write_zip(tmp_path / "d" / "more.zip", {"cat/1.png": encode()})
    write_folder(tmp_path / "d", {"dog/1.png": encode(), "cat/2.png": encode()})
    images = load_images([tmp_path / "d"], 8, split="all", strict=True)
    assert [label.name for label in images.classes] == ["cat", "dog"]
    assert images.names == ("cat/2.png", "dog/1.png", "cat/1.png")


def test_an_archive_inside_is_reported(tmp_path, encode, write_folder):
    folder = write_folder(tmp_path / "d", {"a/1.png": encode(), "b/old.zip": b"PK\x03\x04...."})
    report = load_images([folder], 8, split="all").report
    assert report.skipped[0][0] == "b/old.zip"
    assert "archive" in report.skipped[0][1]


@pytest.mark.parametrize("name", ["../evil.png", "/abs.png", "a/../../evil.png", "C:\\evil.png"])
def test_zip_members_outside_are_refused(tmp_path, encode, write_zip, name):
    archive = write_zip(tmp_path / "evil.zip", {name: encode(), "a/1.png": encode()})
    with pytest.raises(DataError, match=r"evil\.zip names .* not a file inside its own folder"):
        load_images([archive], 8)


def test_broken_zip(tmp_path, encode, write_zip):
    archive = write_zip(tmp_path / "z.zip", {"a/1.png": encode()})
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read as a zip"):
        load_images([archive], 8)


def test_damaged_encrypted_and_huge_zip_members_are_skipped(
    tmp_path, encode, write_zip, monkeypatch
):
    monkeypatch.setattr(trees, "MAX_FILE_BYTES", 2**20)
    files = {"a/1.png": encode(), "a/2.png": b"#" * 64, "a/3.png": b"0" * (2**20 + 1)}
    archive = write_zip(tmp_path / "z.zip", files)
    content = bytearray(archive.read_bytes())
    content[content.index(b"#" * 64) + 5] = 0
    with zipfile.ZipFile(archive) as opened:
        assert len(opened.infolist()) == 3
    archive.write_bytes(content)
    report = load_images([archive], 8, split="all").report
    assert report.read == 1
    assert [reason.split(" than")[0] for _, reason in report.skipped] == [
        "damaged in the zip",
        "larger",
    ]
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag of an encrypted member
    archive.write_bytes(content)
    with pytest.raises(DataError, match="encrypted in the zip"):
        load_images([archive], 8, split="all")


def test_old_windows_zip_with_russian_names(tmp_path, encode):
    archive = tmp_path / "old.zip"
    placeholder = "XXXX/1.png"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(placeholder, encode())
        opened.writestr("sea/1.png", encode())
    raw = archive.read_bytes().replace(placeholder.encode(), "горы/1.png".encode("cp866"))
    archive.write_bytes(raw)
    images = load_images([archive], 8, split="all")
    assert [label.name for label in images.classes] == ["sea", "горы"]


def test_links(tmp_path, encode, write_folder):
    folder = write_folder(tmp_path / "d", {"a/1.png": encode()})
    (folder / "a" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    report = load_images([folder], 8, split="all").report
    assert report.read == 1
    assert report.skipped == (("a/gone.png", "missing file"),)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path, encode, write_folder):
    folder = write_folder(tmp_path / "d", {"a/1.png": encode(), "a/2.png": encode()})
    (folder / "a/2.png").chmod(0)
    report = load_images([folder], 8, split="all").report
    assert "cannot be opened: Permission denied" in report.skipped[0][1]
    (folder / "a").chmod(0)
    try:
        with pytest.raises(DataError, match="Cannot list the folder"):
            load_images([folder], 8)
    finally:
        (folder / "a").chmod(0o700)


def test_metadata_inside_a_folder_and_a_zip(tmp_path, encode, write_folder, write_zip):
    files = {
        "train/metadata.jsonl": '{"file_name": "1.png", "class": "cat", "text_ru": "кошка"}\n'
        '{"file_name": "gone.png", "class": "dog"}\n'.encode(),
        "train/1.png": encode(),
        "train/2.png": encode(),
    }
    for path in (write_folder(tmp_path / "d", files), write_zip(tmp_path / "d.zip", files)):
        images = load_images([path], 8)
        assert images.names == ("train/1.png", "train/2.png")
        assert images.class_ids.tolist() == [0, -1]
        assert images.columns[0]["text_ru"] == "кошка"
        assert images.columns[1] == {}
        assert images.report.skipped == (("train/gone.png", "missing file"),)


def test_metadata_keeps_the_classes_of_the_folders(tmp_path, encode, write_folder):
    files = {
        "metadata.csv": b"file_name,text\ncat/1.png,a cat\ndog/2.png,a dog\n",
        "cat/1.png": encode(),
        "dog/2.png": encode(),
    }
    images = load_images([write_folder(tmp_path / "d", files)], 8, split="all", strict=True)
    assert [label.name for label in images.classes] == ["cat", "dog"]
    assert [row["text"] for row in images.columns] == ["a cat", "a dog"]


@pytest.mark.parametrize("name", ["described.csv", "described.jsonl"])
def test_described_set(tmp_path, encode, write_folder, name):
    rows = [("img/b.png", "sea", "test"), ("img/a.png", "forest", "train"), ("no.png", "sea", "")]
    if name.endswith("csv"):
        text = "file_name,class,split\n" + "\n".join(",".join(row) for row in rows)
    else:
        text = "\n".join(
            f'{{"file_name": "{file}", "label": "{label}", "split": "{split}"}}'
            for file, label, split in rows
        )
    folder = write_folder(
        tmp_path, {"img/a.png": encode(), "img/b.png": encode(), "img/c.png": encode()}
    )
    (folder / name).write_text(text, encoding="utf-8")
    assert listed(folder / name)[:2] == [
        ("img/b.png", "sea", "test"),
        ("img/a.png", "forest", "train"),
    ]
    images = load_images([folder / name], 8, split="all")
    assert images.names == ("img/b.png", "img/a.png")
    assert images.report.skipped == (("no.png", "missing file"),)
    assert images.name == "described"


def test_own_classes_file_inside_and_beside(tmp_path, encode, write_folder, write_zip):
    beside = 'sea = { ru = ["океан"] }\n'.encode()
    inside = 'sea = { ru = ["морюшко"] }\n'.encode()
    files = {"sea/1.png": encode(), "forest/1.png": encode()}
    archive = write_zip(tmp_path / "z.zip", files)
    write_folder(tmp_path, {"classes.toml": beside})
    assert load_images([archive], 8, split="all").classes[1].display("ru") == "океан"
    archive = write_zip(tmp_path / "z.zip", files | {"classes.toml": inside})
    assert load_images([archive], 8, split="all").classes[1].display("ru") == "морюшко"
    folder = write_folder(tmp_path / "d", files | {"classes.toml": inside})
    assert load_images([folder], 8, split="all").classes[1].display("ru") == "морюшко"
    wrapped = write_zip(
        tmp_path / "w.zip", {f"w/{n}": c for n, c in (files | {"classes.toml": inside}).items()}
    )
    assert load_images([wrapped], 8, split="all").classes[1].display("ru") == "морюшко"


GREY = np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4)


def test_npz_with_stated_splits(tmp_path):
    path = tmp_path / "digits.npz"
    np.savez(
        path,
        train_images=GREY,
        train_labels=np.array([7, 1, 7]),
        test_images=GREY[:1],
        test_labels=np.array([10]),
    )
    train, test = load_images([path], 8), load_images([path], 8, split="test")
    assert [label.name for label in train.classes] == ["1", "7", "10"]
    assert train.classes == test.classes
    assert train.class_ids.tolist() == [1, 0, 1]
    assert test.class_ids.tolist() == [2]
    assert train.names == ("train/00000", "train/00001", "train/00002")
    assert (train.images[:, 0] == train.images[:, 1]).all()


@pytest.mark.parametrize(
    "images",
    [GREY, GREY[..., None], np.stack([GREY] * 3, axis=-1), np.stack([GREY] * 3, axis=1)],
)
def test_npz_shapes(tmp_path, images):
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([[0], [1], [-1]]))
    found = load_images([tmp_path / "a.npz"], 4, split="all")
    np.savez(tmp_path / "b.npz", x=GREY)
    plain = load_images([tmp_path / "b.npz"], 4, split="all")
    assert (found.images == plain.images).all()
    assert found.class_ids.tolist() == [0, 1, -1]
    assert plain.class_ids.tolist() == [-1, -1, -1]


def test_npz_class_names(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        images=GREY,
        labels=np.array([1, 0, 1]),
        classes=np.array(["sea", "cat"]),
    )
    found = load_images([tmp_path / "a.npz"], 4, split="all")
    assert [found.classes[i].name for i in found.class_ids] == ["cat", "sea", "cat"]
    np.savez(tmp_path / "b.npz", images=GREY, labels=np.array(["лес", "", "лес"]))
    assert load_images([tmp_path / "b.npz"], 4, split="all").class_ids.tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREY.astype(np.float32)}, "images are float32, expected uint8"),
        ({"images": GREY[0]}, r"images have shape \[5, 4\]"),
        ({"images": np.zeros((2, 5, 5, 4), np.uint8)}, "images have shape"),
        ({"images": np.zeros((2, 0, 5), np.uint8)}, "images have shape"),
        ({"images": GREY, "labels": np.array([1, 2])}, "2 labels for 3 images"),
        ({"images": GREY, "labels": np.array([0.5, 1, 2])}, "labels are float64"),
        (
            {"images": GREY, "labels": np.array([0, 1, 2]), "classes": np.array(["a", "b"])},
            "one name per label",
        ),
        ({"labels": np.array([0])}, "holds labels, but no images"),
        ({}, "holds nothing, but no images"),
        ({"images": GREY[:0]}, "holds no pictures"),
    ],
)
def test_npz_mistakes_are_explained(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_images([tmp_path / "a.npz"], 4, split="all")


def test_pickles_are_refused_unread(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    np.savez(tmp_path / "a.npz", images=np.array([Bomb()], dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "d.pt").write_bytes(b"anything")
    for name in ("a.npz", "b.npz", "c.pkl", "d.pt"):
        with pytest.raises(UnsafeFile, match="refused"):
            load_images([tmp_path / name], 4)
    assert not (tmp_path / "executed").exists()


def test_npz_that_is_none(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match="cannot be read as npz"):
        load_images([tmp_path / "a.npz"], 4)
    with (tmp_path / "b.npz").open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(DataError, match="single array"):
        load_images([tmp_path / "b.npz"], 4)


def test_npz_larger_than_memory_is_refused_before_unpacking(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((9, 99, 99), np.uint8))
    monkeypatch.setattr("izograf.data.arrays.available_memory", lambda: 1000)
    with pytest.raises(DataError, match="more than the free memory"):
        load_images([tmp_path / "a.npz"], 4)


@pytest.mark.parametrize("kind", ["zip", "npz"])
def test_damaged_archives_raise_nothing_but_our_errors(tmp_path, encode, write_zip, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        table = b"file_name,text\n1.png,x\n"
        write_zip(path, {"train/a/1.png": encode(), "train/a/metadata.csv": table})
    else:
        np.savez_compressed(path, train_images=GREY, train_labels=np.arange(3))
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        with contextlib.suppress(IzografError):
            load_images([path], 8)


def test_paths_that_lead_nowhere(tmp_path, encode):
    with pytest.raises(DataError, match=r"Cannot find .*nowhere .* give an image folder"):
        load_images([tmp_path / "nowhere"], 8)
    with pytest.raises(DataError, match="is empty: put pictures in it"):
        load_images([tmp_path], 8)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="holds no pictures"):
        load_images([tmp_path], 8)
    with pytest.raises(DataError, match="not a kind of data that can be read"):
        load_images([tmp_path / "notes.txt"], 8)
    (tmp_path / "one.png").write_bytes(encode())
    with pytest.raises(DataError, match="not a kind of data"):
        load_images([tmp_path / "one.png"], 8)
    with pytest.raises(DataError, match="No data was given"):
        load_images([], 8)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match="holds no pictures"):
        load_images([tmp_path / "empty.zip"], 8)
