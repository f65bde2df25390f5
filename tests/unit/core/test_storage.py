"""Atomic writing: the old content or the new, never half, and one sentence for every refusal."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from izograf.core import storage
from izograf.core.storage import (
    file_sha256,
    folder_atomically,
    load_tensors,
    save_tensors,
    write_atomically,
)
from izograf.schema.errors import CardError, StorageError


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_is_written_into_new_folders_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "card.json"
    write_atomically(target, "первая")
    write_atomically(target, b"second")
    assert target.read_bytes() == b"second"
    assert names_in(target.parent) == ["card.json"]


@given(st.binary(max_size=200))
def test_bytes_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    target = tmp_path_factory.mktemp("bytes") / "file"
    write_atomically(target, data)
    assert target.read_bytes() == data
    assert file_sha256(target) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "The disk is full .* free some space and run the same command again"),
        (errno.EACCES, "No permission to write"),
        (errno.EROFS, "No permission to write"),
        (errno.EIO, "Cannot write .*: "),
    ],
)
def test_a_refusal_is_one_sentence_and_the_old_content_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    target = tmp_path / "card.json"
    target.write_text("old")

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number), str(descriptor))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=sentence):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["card.json"]


def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Cannot write"):
        write_atomically(tmp_path / "file" / "card.json", "text")


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "checkpoint"
    with folder_atomically(target) as temporary:
        (temporary / "state.json").write_text("{}")
        assert not target.exists()
    assert names_in(target) == ["state.json"]
    assert names_in(target.parent) == ["checkpoint"]


def test_an_error_inside_the_block_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with folder_atomically(tmp_path / "checkpoint") as temporary:
            (temporary / "half").touch()
            raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        fill()
    assert names_in(tmp_path) == []


def test_a_folder_that_exists_is_refused_and_unharmed(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(StorageError, match="Cannot write"), folder_atomically(target) as temporary:
        (temporary / "new").touch()
    assert names_in(target) == ["old"]
    assert names_in(tmp_path) == ["checkpoint"]


def test_a_leftover_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    leftover = tmp_path / f".checkpoint.{os.getpid()}.tmp"
    leftover.mkdir()
    (leftover / "half").touch()
    with folder_atomically(tmp_path / "checkpoint") as temporary:
        (temporary / "whole").touch()
    assert names_in(tmp_path / "checkpoint") == ["whole"]


def test_tensors_come_back_with_values_shapes_and_dtypes(tmp_path: Path) -> None:
    tensors = {
        "weight": torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "transposed": torch.arange(6).reshape(2, 3).T,
        "trained": torch.ones(2, requires_grad=True),
    }
    save_tensors(tmp_path / "w.safetensors", tensors)
    loaded = load_tensors(tmp_path / "w.safetensors")
    assert loaded.keys() == tensors.keys()
    for key, value in tensors.items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value)


def test_damaged_weights_are_a_card_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"weight": torch.ones(100)})
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[: len(whole) // 2], whole[:-1], b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(CardError, match=r"not a complete safetensors file .* again"):
            load_tensors(path)
    path.unlink()
    with pytest.raises(CardError, match="not a complete safetensors file"):
        load_tensors(path)


def test_refused_weights_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Cannot write"):
        save_tensors(tmp_path / "absent" / "w.safetensors", {"weight": torch.ones(1)})


def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise OSError(errno.EINVAL, f"{path} {flags}")

    monkeypatch.setattr(os, "open", refuse)
    storage.sync_folder(tmp_path)
