"""`load_images`: what it returns, refuses, skips, samples and caches."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from izograf.data import cache as data_cache
from izograf.data import dataset, reading, storage
from izograf.data.dataset import load_images
from izograf.data.shards import ShardedImages
from izograf.schema.errors import DataError, InvalidInput, NotFound, StorageError


@pytest.fixture
def folder(tmp_path, encode, write_folder):
    """Two classes of twenty pictures, no stated split, in `data/`."""
    files = {
        f"{label}/{i:02d}.png": encode((i, shade, 0))
        for label, shade in (("sea", 10), ("forest", 200))
        for i in range(20)
    }
    return write_folder(tmp_path / "data", files)


@pytest.fixture
def large(monkeypatch):
    """Every set counts as too large for memory."""
    for module in (dataset, data_cache):
        monkeypatch.setattr(module, "is_large", lambda num_bytes: num_bytes > 0)


def same(a, b) -> bool:
    return (
        torch.equal(a.images[:], b.images[:])
        and torch.equal(a.class_ids, b.class_ids)
        and (a.names, a.classes, a.name, a.split, a.resize, a.report, a.columns)
        == (b.names, b.classes, b.name, b.split, b.resize, b.report, b.columns)
    )


def test_the_whole_record(folder):
    images = load_images([folder], 8, split="all", resize="box")
    assert images.images.dtype == torch.uint8
    assert images.images.shape == (40, 3, 8, 8)
    assert images.class_ids.dtype == torch.int64
    assert images.class_ids.tolist() == [0] * 20 + [1] * 20
    assert [label.name for label in images.classes] == ["forest", "sea"]
    assert [label.display("ru") for label in images.classes] == ["лес", "море"]
    assert images.images[25, :, 0, 0].tolist() == [5, 10, 0]
    assert images.names[25] == "sea/05.png"
    assert (images.name, images.split, len(images)) == ("data", "all", 40)
    assert images.resize == "box antialiased, centre crop"
    assert images.report.per_class == {"forest": 20, "sea": 20}
    assert images.columns == ()


def test_splits_are_complementary_and_agree_on_classes(folder):
    train, test = load_images([folder], 8), load_images([folder], 8, split="test")
    assert sorted(train.names + test.names) == list(load_images([folder], 8, split="all").names)
    assert train.classes == test.classes
    assert 0 < len(test) < len(train)


def test_new_pictures_do_not_move_the_old(folder, encode, write_folder):
    before = set(load_images([folder], 8, split="test").names)
    write_folder(folder, {f"mountain/{i}.png": encode() for i in range(20)})
    after = set(load_images([folder], 8, split="test").names)
    assert before == {name for name in after if not name.startswith("mountain")}


def test_a_class_seen_only_in_test_still_has_an_index(tmp_path, encode, write_folder):
    files = {"train/b/1.png": encode(), "test/a/2.png": encode(), "test/b/3.png": encode()}
    train = load_images([write_folder(tmp_path / "d", files)], 8)
    assert [label.name for label in train.classes] == ["a", "b"]
    assert train.class_ids.tolist() == [1]
    assert train.report.warnings == ("No picture was read of: a.",)


def test_same_name_is_same_class_across_sources(tmp_path, encode, write_folder):
    one = write_folder(tmp_path / "one", {"Sea/1.png": encode(), "t-shirt/1.png": encode()})
    two = write_folder(tmp_path / "two", {"sea/1.png": encode(), "T shirt/1.png": encode()})
    images = load_images([one, two], 8, split="all")
    assert [label.name for label in images.classes] == ["Sea", "T shirt"]
    assert images.class_ids.tolist() == [0, 1, 1, 0]
    assert images.name == "one+two"


def test_order_is_kept_and_progress_told(tmp_path):
    count = 600
    levels = np.arange(count) % 251
    pixels = np.broadcast_to(levels[:, None, None], (count, 9, 9)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", train_images=pixels)
    calls: list[tuple[int, int]] = []
    images = load_images(
        [tmp_path / "a.npz"], 4, on_progress=lambda done, total: calls.append((done, total))
    )
    assert images.images[:, 0, 0, 0].tolist() == levels.tolist()
    assert calls == [(256, 600), (512, 600), (600, 600)]


def test_limit_is_spread_over_classes_and_nested(folder):
    few, more = (load_images([folder], 8, split="all", limit=n) for n in (10, 20))
    assert len(few) == 10
    assert set(few.names) < set(more.names)
    assert min(few.report.per_class.values()) >= 2
    assert list(few.names) == sorted(few.names)
    assert same(load_images([folder], 8, limit=10**6), load_images([folder], 8))


def test_bad_pictures_are_skipped_and_counted(folder, write_folder):
    write_folder(folder, {"sea/bad.png": b"", "forest/draw.svg": b"<svg/>"})
    images = load_images([folder], 8, split="all")
    assert len(images) == len(images.images) == len(images.class_ids) == 40
    assert images.report.skipped == (
        ("forest/draw.svg", "SVG is a drawing, not pixels: export it as PNG"),
        ("sea/bad.png", "empty file"),
    )
    assert images.images[25, :, 0, 0].tolist() == [5, 10, 0]


def test_strict_names_the_first_bad_pictures(folder, write_folder, tmp_path):
    load_images([folder], 8, split="all", strict=True)
    write_folder(folder, {"sea/bad.png": b""})
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        with pytest.raises(DataError, match=r"1 of 41 pictures .* sea/bad\.png: empty file"):
            load_images([folder], 8, split="all", strict=True, cache_dir=cache)
    assert len(load_images([folder], 8, split="all", cache_dir=tmp_path / "cache")) == 40


def test_nothing_readable(tmp_path, write_folder):
    folder = write_folder(tmp_path / "d", {"a/1.png": b"", "a/2.png": b"nonsense"})
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        with pytest.raises(DataError, match=r"None of the 2 files .* a/1\.png: empty file"):
            load_images([folder], 8, split="all", cache_dir=cache)


def test_an_empty_split(tmp_path, encode, write_folder):
    folder = write_folder(tmp_path / "d", {"train/a/1.png": encode()})
    with pytest.raises(DataError, match="has 1 pictures, but none in the test split"):
        load_images([folder], 8, split="test")


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"image_size": 5000},
        {"split": "validation"},
        {"resize": "nearest"},
        {"limit": 0},
    ],
)
def test_arguments_are_checked(folder, wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        load_images([folder], **({"image_size": 8} | wrong))


def test_cache_gives_the_same_set(folder, tmp_path, write_folder, monkeypatch):
    write_folder(folder, {"sea/bad.png": b"", "classes.toml": 'sea = { ru = ["океан"] }'.encode()})
    write_folder(folder, {"metadata.csv": "file_name,text\nsea/01.png,волна\n".encode()})
    cache = tmp_path / "cache"
    fresh = load_images([folder], 8, split="all")
    assert same(fresh, load_images([folder], 8, split="all", cache_dir=cache))
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]
    monkeypatch.setattr(reading, "prepare", None)
    again = load_images([folder], 8, split="all", cache_dir=cache)
    assert same(fresh, again)
    again.images[0] = 0  # writable, as torch expects, without touching the cache
    assert same(fresh, load_images([folder], 8, split="all", cache_dir=cache))


def test_cache_notices_every_change(folder, tmp_path, encode, write_folder, write_zip):
    cache = tmp_path / "cache"

    def sets(**changes) -> int:
        load_images(**({"paths": [folder], "image_size": 8, "cache_dir": cache} | changes))
        return len(list(cache.glob("*.json")))

    assert sets() == 1
    assert sets() == 1
    assert sets(image_size=9) == 2
    assert sets(resize="box") == 3
    assert sets(split="all") == 4
    assert sets(limit=5) == 5
    write_folder(folder, {"sea/00.png": encode(size=(30, 30))})
    assert sets() == 6
    os.utime(folder / "sea/01.png", ns=(1, 1))
    assert sets() == 7
    write_folder(folder, {"classes.toml": b'sea = { en = ["ocean"] }'})
    assert sets() == 8
    archive = write_zip(tmp_path / "z.zip", {"train/a/1.png": encode()})
    assert sets(paths=[archive]) == 9
    write_zip(archive, {"train/a/1.png": encode(), "train/a/2.png": encode()})
    assert sets(paths=[archive]) == 10
    write_folder(tmp_path, {"classes.toml": b'a = { en = ["letter"] }'})
    assert sets(paths=[archive]) == 11
    table = tmp_path / "t.csv"
    table.write_text("file_name,split\ndata/sea/02.png,train\n")
    assert sets(paths=[table]) == 12
    os.utime(folder / "sea/02.png", ns=(2, 2))
    assert sets(paths=[table]) == 13


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", ["gone", "truncated", "nonsense"])
def test_a_damaged_cache_is_made_again(folder, tmp_path, suffix, damage):
    cache = tmp_path / "cache"
    fresh = load_images([folder], 8, cache_dir=cache)
    (path,) = cache.glob(f"*{suffix}")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200] if damage == "truncated" else b"{}")
    assert same(fresh, load_images([folder], 8, cache_dir=cache))


def test_an_interrupted_reading_leaves_nothing(folder, tmp_path):
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_images([folder], 8, cache_dir=tmp_path / "cache", on_progress=stop)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="choose another cache folder"):
        load_images([folder], 8, cache_dir=tmp_path / "file" / "cache")


def test_a_large_set_stays_on_disk(folder, tmp_path, write_folder, request):
    write_folder(folder, {"sea/00.png": b""})
    plain = load_images([folder], 8)
    request.getfixturevalue("large")
    nameless = load_images([folder], 8)
    first, second = (load_images([folder], 8, cache_dir=tmp_path / "cache") for _ in range(2))
    for found in (nameless, first, second):
        assert isinstance(found.images, ShardedImages)
        assert same(plain, found)


@pytest.mark.usefixtures("large")
def test_a_full_disk_is_a_storage_error(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.FileSink, "write", full)
    with pytest.raises(StorageError, match="No space left on device"):
        load_images([folder], 8)


def test_large_is_a_quarter_of_available_memory(monkeypatch):
    monkeypatch.setattr(storage, "available_memory", lambda: 1000)
    assert not storage.is_large(250)
    assert storage.is_large(251)


def test_available_memory_is_plausible():
    assert 2**20 < storage.available_memory() < 2**50


@pytest.mark.skipif(os.name != "posix", reason="only there may file names be undecodable")
def test_undecodable_file_names(tmp_path, encode):
    folder = tmp_path / "d"
    (folder / "a").mkdir(parents=True)
    try:
        (folder / "a" / os.fsdecode(b"\xff.png")).write_bytes(encode())
    except OSError:
        pytest.skip("this file system refuses such names")
    images = load_images([folder], 8, split="all", cache_dir=tmp_path / "cache")
    assert same(images, load_images([folder], 8, split="all", cache_dir=tmp_path / "cache"))


def test_report_is_json(folder):
    json.dumps(load_images([folder], 8).report.to_json(), allow_nan=False)


@pytest.fixture
def described(tmp_path, encode, write_folder):
    """Three pictures in folders of their own, with a table of other things about them."""
    table = (
        '{"file_name": "a/1.png", "Wavy_Hair": true, "year": 1999, "tags": ["x"]}\n'
        '{"file_name": "a/2.png", "Wavy_Hair": false, "year": 20}\n'
        '{"file_name": "b/3.png"}\n'
    )
    files = {name: encode() for name in ("a/1.png", "a/2.png", "b/3.png")}
    return write_folder(tmp_path / "d", files | {"metadata.jsonl": table.encode()})


@pytest.mark.parametrize(
    ("column", "classes", "ids"),
    [
        ("Wavy_Hair", ["Wavy Hair", "not Wavy Hair"], [0, 1, -1]),
        ("year", ["20", "1999"], [1, 0, -1]),
        (None, ["a", "b"], [0, 0, 1]),
    ],
)
def test_a_column_may_be_the_class(described, tmp_path, column, classes, ids):
    for folder in (None, tmp_path / "cache", tmp_path / "cache"):
        found = load_images([described], 8, split="all", class_column=column, cache_dir=folder)
        assert [label.name for label in found.classes] == classes
        assert found.class_ids.tolist() == ids


def test_a_column_that_cannot_be_the_class(described):
    with pytest.raises(NotFound, match=r"Unknown column 'years': .* Did you mean year\?"):
        load_images([described], 8, class_column="years")
    with pytest.raises(DataError, match=r"column tags cannot be the class.* holds list values"):
        load_images([described], 8, class_column="tags")


def test_the_key_of_a_set_prepared_before_class_columns_is_still_the_same(tmp_path, monkeypatch):
    """Folders and npz files of unchanged content must not be decoded again after an update."""
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((3, 4, 4), np.uint8))
    asked: list[object] = []
    monkeypatch.setattr(dataset, "cache_key", lambda parts: asked.append(parts) or "key")
    load_images([path], 8, split="all", limit=2, cache_dir=tmp_path / "cache")
    (versions, settings, fingerprints) = asked[0]
    stat = path.stat()
    assert versions[:2] == [1, 1]
    assert list(settings) == [8, "all", "lanczos", 2]
    assert fingerprints == [[[str(path.resolve()), stat.st_size, stat.st_mtime_ns], None]]
