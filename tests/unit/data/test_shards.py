"""Pictures in several files: indexed like one tensor, prepared resumably, never all in memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from izograf.data import cache, dataset, reading, shards
from izograf.data.batches import BatchStream
from izograf.data.dataset import load_images
from izograf.data.shards import Shard, ShardedImages, mapped, shard_spans
from izograf.experiments.evaluation import remembered_features
from izograf.metrics.evaluate import Reference
from izograf.metrics.extractors import extract_features, open_extractor

SIZE = 8
PICTURE = 3 * SIZE * SIZE


@pytest.fixture
def small_shards(monkeypatch):
    """Seven pictures to a shard, and every set larger than memory."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 7 * PICTURE + 1)
    for module in (dataset, cache):
        monkeypatch.setattr(module, "is_large", lambda _: True)


@pytest.fixture
def folder(tmp_path, encode, write_folder):
    """Forty pictures of two classes, the twelfth broken: six shards of seven."""
    files = {f"{'ab'[i % 2]}/{i:02d}.png": encode((i, 2 * i, 3 * i)) for i in range(40)}
    return write_folder(tmp_path / "data", files | {"a/22.png": b""})


def pictures(count: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, 4, 4), generator=rng, dtype=torch.uint8)


def sharded(whole: torch.Tensor, lengths: list[int]) -> ShardedImages:
    return ShardedImages([Shard(part.numpy()) for part in whole.split(lengths)])


lengths = st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any)


@given(lengths, st.data())
def test_every_index_gives_what_a_tensor_gives(lengths, data):
    whole = pictures(sum(lengths))
    images, count = sharded(whole, lengths), len(whole)
    assert (images.shape, images.dtype, images.ndim) == (whole.shape, whole.dtype, whole.ndim)
    assert len(images) == count
    positions = st.integers(-count, count - 1)
    one = data.draw(positions)
    assert torch.equal(images[one], whole[one])
    several = torch.tensor(data.draw(st.lists(positions, max_size=12)), dtype=torch.int64)
    assert torch.equal(images[several], whole[several])
    grid = torch.tensor(data.draw(st.lists(positions, min_size=4, max_size=4))).reshape(2, 2)
    assert torch.equal(images[grid], whole[grid])
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    assert torch.equal(images[mask], whole[mask])
    part = data.draw(st.slices(count))
    if (part.step or 1) > 0:  # a tensor knows no other
        assert torch.equal(images[part], whole[part])


@pytest.mark.parametrize("index", [5, -6, torch.tensor([0, 5]), torch.ones(4, dtype=torch.bool)])
def test_an_index_out_of_range(index):
    with pytest.raises(IndexError):
        sharded(pictures(5), [2, 3])[index]


def test_iterating_gives_groups_that_measure_like_the_tensor(monkeypatch):
    whole = pictures(11)
    images = sharded(whole, [4, 7])
    monkeypatch.setattr(shards, "_GROUP_BYTES", 3 * 48)
    assert [len(group) for group in images] == [3, 3, 3, 2]
    extractor = open_extractor("random-conv")
    assert torch.equal(extract_features(images, extractor), extract_features(whole, extractor))


def test_a_model_is_measured_against_shards_as_against_a_tensor(tmp_path):
    whole, extractor = pictures(64), open_extractor("random-conv")
    images = sharded(whole, [20, 0, 44])
    plain, split = (
        Reference.measure(
            real, real[:8], extractor, split="s/train",
            extract=partial(remembered_features, tmp_path),
        )
        for real in (whole, images)
    )  # fmt: skip
    assert torch.equal(plain.real, split.real)
    # real, held out and noise: the shards have the hash of the tensor
    assert len(list(tmp_path.iterdir())) == 3


def test_batches_are_those_of_the_tensor():
    whole, ids = pictures(11), torch.arange(11)
    streams = [BatchStream(source, ids, 4, seed=3) for source in (whole, sharded(whole, [4, 7]))]
    for step in range(5):
        plain, split = (stream(step) for stream in streams)
        assert torch.equal(plain.image, split.image)
        assert torch.equal(plain.condition.class_ids, split.condition.class_ids)


@given(st.integers(1, 10_000), st.integers(1, 4000))
def test_spans_cover_all_entries_in_order_and_are_bounded(count, picture_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 10_000)
        spans = shard_spans(count, picture_bytes)
    assert [position for span in spans for position in span] == list(range(count))
    assert len(spans) <= shards.MAX_SHARDS
    bytes_of = max(map(len, spans)) * picture_bytes
    assert bytes_of <= 10_000 or count > shards.MAX_SHARDS * (10_000 // picture_bytes)


def test_only_a_complete_file_of_pictures_is_mapped():
    file = io.BytesIO()
    np.save(file, np.zeros((2, 3, 4, 4), np.uint8))
    whole = file.getvalue()
    wrong = io.BytesIO()
    np.save(wrong, np.zeros((2, 3, 4, 4), np.int8))
    for content in (whole[:-1], whole + b"x", whole[:20], b"", wrong.getvalue()):
        with pytest.raises(ValueError):  # noqa: PT011  numpy's words differ
            mapped(io.BytesIO(content))


@pytest.mark.usefixtures("small_shards")
def test_a_sharded_set_is_the_set(folder, tmp_path, monkeypatch):
    found = load_images([folder], SIZE, split="all", cache_dir=tmp_path / "cache")
    nameless = load_images([folder], SIZE, split="all")
    assert len(list((tmp_path / "cache").glob("*-*.npy"))) == 6
    again = load_images([folder], SIZE, split="all", cache_dir=tmp_path / "cache")
    for module in (dataset, cache):
        monkeypatch.setattr(module, "is_large", lambda _: False)
    joined = load_images([folder], SIZE, split="all", cache_dir=tmp_path / "cache")
    monkeypatch.undo()
    plain = load_images([folder], SIZE, split="all")
    assert isinstance(plain.images, torch.Tensor)
    assert isinstance(joined.images, torch.Tensor)
    assert plain.report.skipped == (("a/22.png", "empty file"),)
    for other in (found, nameless, again, joined):
        assert torch.equal(other.images[:], plain.images)
        assert torch.equal(other.class_ids, plain.class_ids)
        assert (other.names, other.report) == (plain.names, plain.report)


def decoded(monkeypatch) -> list[int]:
    """Counts the pictures that are decoded from now on."""
    count: list[int] = []
    prepare = reading.prepare
    monkeypatch.setattr(reading, "prepare", lambda *a: count.append(1) or prepare(*a))
    return count


@pytest.mark.usefixtures("small_shards")
def test_interrupted_preparation_goes_on_after_the_last_shard(folder, tmp_path, monkeypatch):
    folder_of = tmp_path / "cache"

    def stop(done: int, total: int) -> None:
        assert total == 40
        if done == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_images([folder], SIZE, split="all", cache_dir=folder_of, on_progress=stop)
    assert sorted(path.name.rpartition("-")[2] for path in folder_of.iterdir()) == [
        "00000.json", "00000.npy", "00001.json", "00001.npy",
    ]  # fmt: skip
    count, told = decoded(monkeypatch), []
    found = load_images(
        [folder], SIZE, split="all", cache_dir=folder_of,
        on_progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert len(count) == 40 - 14
    assert told == [(n, 40) for n in (7, 14, 21, 28, 35, 40)]
    plain = load_images([folder], SIZE, split="all")
    assert torch.equal(found.images[:], plain.images[:])
    assert (found.names, found.report) == (plain.names, plain.report)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", ["gone", "truncated", "nonsense", "notes"])
def test_only_the_damaged_shard_is_made_again(folder, tmp_path, monkeypatch, damage):
    plain = load_images([folder], SIZE, split="all", cache_dir=tmp_path / "cache")
    whole = plain.images[:]  # before its files are damaged
    (path,) = (tmp_path / "cache").glob("*-00002.npy")
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "nonsense":
        path.write_bytes(b"nonsense")
    else:  # a shard that other entries were made into
        path.write_bytes(content)
        path.with_suffix(".json").write_text('{"span": [0, 7], "skipped": []}')
        next((tmp_path / "cache").glob(f"{path.name.split('-')[0]}.json")).unlink()
    count = decoded(monkeypatch)
    found = load_images([folder], SIZE, split="all", cache_dir=tmp_path / "cache")
    assert len(count) == 7
    assert torch.equal(found.images[:], whole)
    assert (found.names, found.report) == (plain.names, plain.report)


def test_only_abandoned_halves_of_this_set_are_removed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "cache_key", lambda _: "key")
    halves = ["key.ab.part", "key-00003.cd.part", "key.new.part", "other.ab.part"]
    for name in halves:
        (tmp_path / name).write_bytes(b"half")
        if "new" not in name:
            os.utime(tmp_path / name, (1, 1))
    load_images([folder], SIZE, cache_dir=tmp_path)
    assert [name for name in halves if (tmp_path / name).exists()] == halves[2:]


def test_a_set_kept_in_one_file_before_there_were_shards_is_used(folder, tmp_path, monkeypatch):
    plain = load_images([folder], SIZE, cache_dir=tmp_path / "cache")
    (about,) = (tmp_path / "cache").glob("*.json")
    about.write_text(about.read_text().replace(', "shards": 1', ""))
    monkeypatch.setattr(shards, "SHARD_BYTES", PICTURE)
    monkeypatch.setattr(reading, "prepare", None)
    assert torch.equal(
        load_images([folder], SIZE, cache_dir=tmp_path / "cache").images, plain.images
    )


MEMORY = """
import sys
from pathlib import Path
from pathlib import Path
import numpy, torch
from izograf.data.batches import BatchStream
from izograf.data.shards import ShardedImages, mapped

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

warm = torch.zeros(64, 3, 64, 64, dtype=torch.uint8)
BatchStream(warm, torch.arange(64), 16, seed=0)(0)
before = most = resident()
shards = []
for path in sorted(Path(sys.argv[1]).glob("*.npy")):
    with path.open("rb") as file:
        shards.append(mapped(file))
    path.unlink()
images = ShardedImages(shards)
stream = BatchStream(images, torch.arange(len(images)), 16, seed=0)
levels = set()
for step in range(40):
    image = stream(step).image
    most = max(most, resident())
    levels.add(float(image.mean()))
print((most - before) / 1024, len(images), len(levels))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured on Linux")
def test_reading_batches_takes_the_memory_of_the_batches(tmp_path):
    """Of 48 MiB on disk, in memory that cannot be dropped: 16 pictures as bytes and as floats.

    Pages of the files themselves are the system's to keep or to drop.
    """
    size, count = 64, 512
    for number in range(8):
        picture = np.full((count, 3, size, size), number, np.uint8)
        np.save(tmp_path / f"{number}.npy", picture)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    grown, total, levels = map(float, done.stdout.split())
    assert total == 8 * count
    assert levels > 20  # they are different pictures
    assert grown < 12, f"{grown:.0f} MiB"
