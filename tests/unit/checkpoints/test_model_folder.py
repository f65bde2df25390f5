"""A model folder: written whole, read only where it is what its card says."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from izograf.checkpoints.files import WEIGHTS, read_weights, save_model
from izograf.checkpoints.load import load_generator, network_width
from izograf.core import storage
from izograf.core.storage import file_sha256
from izograf.schema.card import CARD_VERSION, ModelCard
from izograf.schema.errors import CardError, InvalidInput, NotFound, StorageError, UnsafeFile
from izograf.schema.library import read_card

CARD = ModelCard("small", "latent", {"name": "none", "config": {}}, 16)
TENSORS = {"w": torch.linspace(-1, 1, 12).reshape(3, 4), "count": torch.tensor(70_000)}


def change_card(folder: Path, **fields: object) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | fields))


def test_what_is_saved_is_read_as_float32_and_whole_numbers_stay(tmp_path) -> None:
    card = save_model(tmp_path / "a" / "m", TENSORS, CARD, dtype=torch.float16)
    read = read_weights(tmp_path / "a" / "m", read_card(tmp_path / "a" / "m"))
    torch.testing.assert_close(read["w"], TENSORS["w"].half().float(), rtol=0, atol=0)
    assert read["count"].dtype == torch.int64
    assert int(read["count"]) == 70_000
    assert card.weights == {WEIGHTS: file_sha256(tmp_path / "a" / "m" / WEIGHTS)}


def test_saving_leaves_nothing_else_behind(tmp_path) -> None:
    save_model(tmp_path, TENSORS, CARD, dtype=torch.float16)
    assert {path.name for path in tmp_path.iterdir()} == {"card.json", WEIGHTS}


def test_a_model_that_cannot_be_written_harms_none_that_was_there(tmp_path, monkeypatch) -> None:
    save_model(tmp_path, TENSORS, CARD, dtype=torch.float16)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(tensors: object, path: Path) -> None:
        del tensors
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "save_file", full)
    with pytest.raises(StorageError, match="The disk is full"):
        save_model(tmp_path, {"w": torch.ones(3)}, CARD, dtype=torch.float16)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_below_a_file_is_one_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(StorageError, match="Cannot write"):
        save_model(tmp_path / "file" / "m", TENSORS, CARD, dtype=torch.float16)


def test_missing_truncated_and_foreign_weights_are_told_apart(own_model) -> None:
    card, path = read_card(own_model), own_model / WEIGHTS
    whole = path.read_bytes()
    for count in (len(whole) - 1, len(whole) // 2, 100, 4, 0):
        path.write_bytes(whole[:count])
        with pytest.raises(CardError, match="not a complete safetensors file"):
            read_weights(own_model, card)
    save_file({"w": torch.ones(1)}, path)
    with pytest.raises(CardError, match="not the file its card describes"):
        read_weights(own_model, card)
    path.unlink()
    with pytest.raises(CardError, match="is missing"):
        read_weights(own_model, card)


def test_one_changed_bit_is_noticed(own_model) -> None:
    path = own_model / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CardError, match="sha256 differs"):
        load_generator(str(own_model))


def test_weights_never_leave_the_folder_of_their_card(own_model, tmp_path) -> None:
    (own_model / WEIGHTS).rename(tmp_path / "elsewhere.safetensors")
    digest = file_sha256(tmp_path / "elsewhere.safetensors")
    change_card(own_model, weights={"../../elsewhere.safetensors": digest})
    with pytest.raises(CardError, match="is missing"):
        load_generator(str(own_model))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("protocol", range(6))
def test_p11_a_pickle_in_the_place_of_weights_is_never_executed(own_model, protocol) -> None:
    (own_model / WEIGHTS).write_bytes(pickle.dumps(Bomb(), protocol))
    change_card(own_model, weights={WEIGHTS: file_sha256(own_model / WEIGHTS)})
    with pytest.raises(CardError):
        load_generator(str(own_model))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "a.pth", "B.BIN", "x.pkl", "x.pickle"])
def test_p11_a_pickle_by_its_name_is_refused_unread(tmp_path, name) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UnsafeFile, match="is a pickle"):
        load_generator(str(path))


def test_p11_a_renamed_pickle_is_refused_by_its_first_bytes(tmp_path) -> None:
    for name, content in (
        ("a.model", pickle.dumps(Bomb(), 4)),
        ("b.safetensors", pickle.dumps(Bomb(), 2)),
        ("c", b"PK\x03\x04 what torch.save writes"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnsafeFile, match="is a pickle"):
            load_generator(str(tmp_path / name))


def test_a_card_newer_than_the_program_asks_for_an_update(own_model) -> None:
    change_card(own_model, version=CARD_VERSION + 1)
    with pytest.raises(CardError, match="update izograf"):
        load_generator(str(own_model))


def test_an_unknown_family_or_network_is_refused(own_model) -> None:
    change_card(own_model, family="oracle")
    with pytest.raises(InvalidInput, match="generates no pictures"):
        load_generator(str(own_model))


def test_a_judge_generates_no_pictures(trained) -> None:
    with pytest.raises(InvalidInput, match="classifier model, which generates no pictures"):
        load_generator(str(trained("classifier")))


def test_a_folder_without_a_model_is_not_found(tmp_path) -> None:
    with pytest.raises(NotFound, match="There is no model"):
        load_generator(str(tmp_path))


ODD_CARDS = [
    {"network": {}},
    {"network": {"name": "unet"}},
    {"network": {"name": 5, "config": {}}},
    {"network": {"name": "none-such", "config": {}}},
    {"network": {"name": "unet", "config": []}},
    {"network": {"name": "unet", "config": {"width": "wide"}}},
    {"network": {"name": "unet", "config": {"colour": 1}}},
    {"network": {"name": "classifier", "config": {"image_size": 16, "num_classes": 2}}},
    {"image_size": 32},
    {"image_size": 10**9},
    {"image_size": -1},
    {"classes": []},
    {"classes": [{"name": "sea"}]},
    {"options": []},
    {"weights": {}},
    {"weights": {WEIGHTS: "0" * 64}},
    {"weights": {WEIGHTS: 5}},
]


@pytest.mark.parametrize("fields", ODD_CARDS, ids=str)
def test_a_card_that_contradicts_itself_is_refused_in_a_sentence(own_model, fields) -> None:
    change_card(own_model, **fields)
    with pytest.raises(InvalidInput) as refusal:
        load_generator(str(own_model))
    assert str(refusal.value).endswith((".", "safetensors)"))


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"preconditioner": "flow"},
        {"preconditioner": {"name": "none-such"}},
        {"preconditioner": {"name": "flow", "config": 7}},
        {"preconditioner": {"name": "flow", "config": {"x": 1}}},
        {"sigma_min": "small"},
        {"sigma_min": -1},
        {"sigma_max": 0.001},
        {"sigma_max": None},
    ],
    ids=str,
)
def test_a_diffusion_card_with_odd_sampling_facts_is_refused(trained, tmp_path, sampling) -> None:
    source = trained("diffusion-unet")
    for name in ("card.json", WEIGHTS):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    good = json.loads((tmp_path / "card.json").read_text())["sampling"]
    change_card(tmp_path, sampling=good | sampling if sampling else {})
    with pytest.raises(InvalidInput):
        load_generator(str(tmp_path))


def test_the_width_that_chooses_the_precision_comes_from_the_card(own_model) -> None:
    card = read_card(own_model)
    assert network_width(card) == card.network["config"]["width"]
    for config in ({}, {"width": "wide"}, [], None):
        odd = ModelCard("x", "latent", {"config": config}, 16)
        assert network_width(odd) == 128
