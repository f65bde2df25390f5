"""`izograf reconstruct` and `izograf interpolate`: which picture appears, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from izograf.core.backends import BACKENDS, EAGER, OPENVINO

FP32 = ("--device", "cpu", "--precision", "fp32")
GAP = 8  # of a contact sheet


@pytest.fixture(scope="module")
def vae(trained) -> Path:
    return trained("cvae")


@pytest.fixture
def sea(pictures) -> Path:
    return pictures / "test" / "sea" / "0.png"


@pytest.fixture
def forest(pictures) -> Path:
    return pictures / "test" / "forest" / "0.png"


@pytest.fixture
def made(izograf, vae, here):
    """made(verb, arguments..., output) -> the pixels of the picture it wrote, and the outcome."""

    def call(verb: str, *arguments: object):
        outcome = izograf(verb, *arguments, "-m", vae, "-o", "out.png", "--overwrite", *FP32)
        assert outcome.code == 0, outcome.err
        with Image.open(here / "out.png") as picture:
            assert (picture.format, picture.mode) == ("PNG", "RGB")
            return np.asarray(picture).astype(int), outcome

    return call


def test_a_picture_comes_back_at_the_models_size(made, sea) -> None:
    pixels, outcome = made("reconstruct", sea)
    assert pixels.shape == (16, 16, 3)
    assert outcome.out == "out.png\n"
    assert "dB PSNR against the picture at 16 px" in outcome.err


def test_the_psnr_is_that_of_the_two_pictures(made, sea) -> None:
    pixels, outcome = made("reconstruct", sea, "--class", "sea", "--json")
    (row,) = json.loads(outcome.out)
    with Image.open(sea) as original:
        error = ((np.asarray(original).astype(float) - pixels) ** 2).mean()
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)
    assert (row["path"], row["picture"]) == ("out.png", str(sea))


def test_compare_puts_the_original_to_the_left(made, sea) -> None:
    alone, _ = made("reconstruct", sea)
    pixels, _ = made("reconstruct", sea, "--compare")
    assert pixels.shape == (16 + 2 * GAP, 2 * 16 + 3 * GAP, 3)
    with Image.open(sea) as original:
        assert (pixels[GAP:-GAP, GAP : GAP + 16] == np.asarray(original)).all()
    assert (pixels[GAP:-GAP, 2 * GAP + 16 : -GAP] == alone).all()


def test_another_class_gives_another_picture_in_either_language(made, sea) -> None:
    same, _ = made("reconstruct", sea, "--class", "sea")
    again, _ = made("reconstruct", sea, "--class", "sea", "--to-class", "море")
    other, _ = made("reconstruct", sea, "--class", "моря", "--to-class", "forest")
    assert (same == again).all()
    assert not (same == other).all()


def test_a_strip_starts_and_ends_at_the_reconstructions(made, sea, forest) -> None:
    strip, outcome = made("interpolate", sea, forest, "--steps", 5)
    assert strip.shape == (16 + 2 * GAP, 5 * 16 + 6 * GAP, 3)
    assert outcome.out == "out.png\n"
    cells = [strip[GAP:-GAP, GAP + i * (16 + GAP) :][:, :16] for i in range(5)]
    for cell, path in ((cells[0], sea), (cells[-1], forest)):
        assert np.abs(cell - made("reconstruct", path)[0]).max() <= 1
    assert not (cells[2] == cells[0]).all()
    assert not (cells[2] == cells[4]).all()


def test_a_strip_may_change_the_class_on_its_way(made, sea, forest) -> None:
    classes = ("--class", "sea", "--to-class", "forest")
    strip, _ = made("interpolate", sea, forest, *classes, "--steps", 3)
    first, _ = made("reconstruct", sea, "--class", "sea")
    last, _ = made("reconstruct", forest, "--class", "forest")
    assert np.abs(strip[GAP:-GAP, GAP : GAP + 16] - first).max() <= 1
    assert np.abs(strip[GAP:-GAP, -GAP - 16 : -GAP] - last).max() <= 1


@pytest.mark.parametrize("verb", ["reconstruct", "interpolate"])
def test_the_backend_asked_for_computes(made, sea, forest, monkeypatch, verb) -> None:
    pictures = (sea,) if verb == "reconstruct" else (sea, forest)
    plain, _ = made(verb, *pictures)
    placed = []

    def note(_, network, placement, **names):
        placed.append(placement.backend)
        return BACKENDS[EAGER].place(network, placement, **names)

    monkeypatch.setattr(type(BACKENDS[OPENVINO]), "missing", lambda _: "")
    monkeypatch.setattr(type(BACKENDS[OPENVINO]), "place", note)
    pixels, _ = made(verb, *pictures, "--backend", "openvino")
    assert set(placed) == {OPENVINO}
    assert (pixels == plain).all()


def test_pictures_of_any_size_and_kind_are_taken(made, here) -> None:
    Image.new("L", (70, 31), 200).save(here / "wide.jpg")
    pixels, _ = made("reconstruct", "wide.jpg")
    assert pixels.shape == (16, 16, 3)


def test_an_existing_file_is_kept(refused, vae, sea, here) -> None:
    (here / "out.png").write_text("mine")
    sentence = refused("reconstruct", sea, "-m", vae, "-o", "out.png")
    assert sentence.startswith("out.png exists already: add --overwrite")
    assert (here / "out.png").read_text() == "mine"


LINES = """
reconstruct
reconstruct {sea}
reconstruct {sea} -o out.png
reconstruct {sea} -m {vae}
reconstruct {sea} -m {vae} -o out
reconstruct {sea} -m {vae} -o out.jpg
reconstruct nowhere.png -m {vae} -o out.png
reconstruct . -m {vae} -o out.png
reconstruct text.txt -m {vae} -o out.png
reconstruct {sea} -m nonsense -o out.png
reconstruct {sea} -m {gan} -o out.png
reconstruct {sea} -m {vae} -o out.png --class desert
reconstruct {sea} -m {vae} -o out.png --to-class sea
reconstruct {sea} -m {vae} -o out.png --class sea --to-class desert
reconstruct {sea} -m {vae} -o text.txt/out.png
reconstruct {sea} -m {vae} -o out.png --device quantum
reconstruct {sea} -m {vae} -o out.png --backend quantum
interpolate {sea} -m {vae} -o out.png
interpolate {sea} nowhere.png -m {vae} -o out.png
interpolate {sea} {sea} -m {vae} -o out.png --steps 1
interpolate {sea} {sea} -m {vae} -o out.png --steps 65
interpolate {sea} {sea} -m {vae} -o out.png --to-class sea
interpolate {sea} {sea} -m {gan} -o out.png
interpolate {sea} {sea} -m {vae} -o out.png --backend quantum
""".strip().splitlines()


@pytest.mark.parametrize("line", LINES)
def test_a_bad_command_line_is_one_sentence(refused, vae, gan, sea, here, line) -> None:
    (here / "text.txt").write_text("text")
    refused(*line.format(sea=sea, vae=vae, gan=gan).split())


def test_a_model_that_only_makes_pictures_is_named(refused, gan, sea) -> None:
    sentence = refused("reconstruct", sea, "-m", gan, "-o", "out.png")
    assert sentence.startswith("dcgan makes pictures but cannot read any: name an autoencoder")


def test_classes_of_a_model_without_them_are_refused(refused, vae, sea, tmp_path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    card = json.loads((vae / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"name": "plain", "classes": []}))
    sentence = refused("reconstruct", sea, "-m", folder, "-c", "sea", "-o", "out.png")
    assert sentence == "plain has no classes: leave out --class and --to-class."
