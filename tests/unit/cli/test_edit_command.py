"""`izograf edit`: a photograph repainted, in whole or where a mask says; and its verification."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FP32 = ("--device", "cpu", "--precision", "fp32", "--backend", "eager")


@pytest.fixture
def model(trained) -> Path:
    return trained("diffusion-unet")


@pytest.fixture
def photo(here) -> Path:
    """A photograph of 24 x 20 pixels, its sky white, and a mask of the sky."""
    pixels = np.zeros((20, 24, 3), dtype=np.uint8)
    pixels[:8] = 255
    Image.fromarray(pixels).save(here / "photo.png")
    Image.fromarray(pixels[..., 0]).save(here / "mask.png")
    return here / "photo.png"


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def record_of(path: Path) -> dict:
    with Image.open(path) as image:
        return json.loads(image.text["izograf"])


def test_a_photograph_is_repainted_and_the_result_verifies_with_it(
    izograf, here, photo, model
) -> None:
    outcome = izograf("edit", photo, "-m", model, "-c", "sea", "--strength", 0.5, *FP32)
    assert outcome.code == 0, outcome.err
    assert outcome.out == "photo-edited.png\n"
    made = here / "photo-edited.png"
    record = record_of(made)
    assert record["request"]["options"]["strength"] == 0.5
    assert record["edited"]["mask"] is None
    assert izograf("verify", made, "--original", photo).out == f"{made}: bit-exact\n"
    alone = izograf("verify", made)
    assert alone.code == 1
    assert "it was made from another picture: give that one as well" in alone.out
    Image.new("RGB", (24, 20), "blue").save(here / "other.png")
    other = izograf("verify", made, "--original", "other.png")
    assert "the picture given is not the one that the picture was made from" in other.out


def test_less_strength_keeps_more(izograf, here, photo, model) -> None:
    size = pixels_of_original(photo)
    away = []
    for strength in (0.1, 1.0):
        name = f"{strength}.png"
        outcome = izograf("edit", photo, "-m", model, "-c", "sea", "--strength", strength, "-o",
                          name, *FP32)  # fmt: skip
        assert outcome.code == 0, outcome.err
        away.append(np.abs(pixels_of(here / name) - size).mean())
    assert away[0] < away[1]


def pixels_of_original(photo: Path) -> np.ndarray:
    with Image.open(photo) as image:
        square = image.resize((16, 16), Image.Resampling.LANCZOS, box=(2, 0, 22, 20))
        return np.asarray(square.convert("RGB")).astype(int)


def test_only_what_the_mask_shows_changes(izograf, here, photo, model) -> None:
    outcome = izograf(
        "edit", photo, "-m", model, "-c", "forest", "--mask", "mask.png", "--strength", 1,
        "-n", 2, "-o", "made", *FP32,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    first, second = sorted((here / "made").iterdir())
    kept = pixels_of_original(photo)[9:]
    assert (pixels_of(first)[9:] == kept).all()
    assert (pixels_of(second)[9:] == kept).all()
    assert (pixels_of(first)[:5] != pixels_of(second)[:5]).any()
    assert izograf("verify", second, "--original", photo, "--mask", "mask.png").code == 0
    without = izograf("verify", second, "--original", photo)
    assert "the mask given is not the one" in without.out


def test_what_cannot_be_edited_is_one_sentence(refused, photo, model, trained) -> None:
    base = ("edit", photo, "-m", model)
    assert "Say what the picture should show: --class, one of forest, sea." in refused(*base)
    assert "strength must be from" in refused(*base, "-c", "sea", "--strength", 7)
    assert "There is no file no.png." in refused("edit", "no.png", "-m", model, "-c", "sea")
    assert "There is no file no.png." in refused(*base, "-c", "sea", "--mask", "no.png")
    Image.new("L", (9, 9), 255).save("small.png")
    assert "The mask is 9 x 9 and the picture 24 x 20" in refused(
        *base, "-c", "sea", "--mask", "small.png"
    )
    assert "does not read prompts" in refused(*base, "a boat")
    assert "--negative and --style go with a prompt" in refused(*base, "--negative", "sea")
    gan = trained("dcgan")
    assert "cannot start from a picture" in refused("edit", photo, "-m", gan, "-c", "sea")
    assert "use photo.png" in refused(*base, "-c", "sea", "-o", "photo.jpg")
    assert "photo.png exists already" in refused(*base, "-c", "sea", "-o", "photo.png")
    assert "--mask goes with --original" in refused("verify", photo, "--mask", "mask.png")


def test_a_prompt_says_what_it_should_show(izograf, here, photo, trained) -> None:
    text = trained("text-to-image")
    outcome = izograf(
        "edit", photo, "синее море", "-m", text, "--strength", 0.5, "--negative", "forest",
        "--steps", 4, *FP32,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    record = record_of(here / "photo-edited.png")
    assert record["request"]["condition"]["prompt"] == "синее море"
    assert izograf("verify", "photo-edited.png", "--original", photo).code == 0
