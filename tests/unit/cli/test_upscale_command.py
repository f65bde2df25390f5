"""`izograf upscale` and `izograf generate --upscale`: sizes, records, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FP32 = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture
def upscaler(trained, monkeypatch) -> Path:
    """A tiny upscaler; where none is bundled, `upscaler` is its name as well."""
    folder = trained("upscaler")
    monkeypatch.setenv("IZOGRAF_MODELS", str(folder.parent))
    return folder


@pytest.fixture
def photo(here) -> Path:
    """A photograph of 12 x 10 pixels, bright on the left."""
    pixels = np.zeros((10, 12, 3), dtype=np.uint8)
    pixels[:, :6] = 200
    path = here / "photo.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    return path


@pytest.mark.parametrize("factor", [2, 4])
def test_a_photograph_becomes_larger_whole_and_not_square(
    izograf, here, photo, upscaler, factor
) -> None:
    outcome = izograf(
        "upscale", photo, "-m", upscaler, "-o", "large.png", "--factor", factor, *FP32
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out == "large.png\n"
    assert f"{12 * factor} x {10 * factor} pixels in " in outcome.err
    with Image.open(here / "large.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (12 * factor, 10 * factor))
        pixels = np.asarray(picture).astype(int)
    assert pixels[:, : 4 * factor].mean() > 150 > 50 > pixels[:, -4 * factor :].mean()


def test_four_times_is_the_default_and_json_says_what_was_written(
    izograf, here, photo, upscaler
) -> None:
    outcome = izograf("upscale", photo, "-m", upscaler, "-o", "large.png", "--json", *FP32)
    (row,) = json.loads(outcome.out)
    assert row == {
        "path": "large.png", "model": str(upscaler), "picture": str(photo), "factor": 4,
        "width": 48, "height": 40,
    }  # fmt: skip
    assert (here / "large.png").is_file()


def test_a_picture_made_here_can_be_verified_after_it_was_enlarged(
    izograf, here, gan, upscaler
) -> None:
    made = izograf("generate", "-m", gan, "-c", "sea", "-o", "sea.png", *FP32)
    assert made.code == 0, made.err
    large = izograf("upscale", "sea.png", "-m", upscaler, "-f", 2, "-o", "large.png", *FP32)
    assert large.code == 0, large.err
    assert izograf("verify", "large.png").out == "large.png: bit-exact\n"
    again = izograf("upscale", "large.png", "-m", upscaler, "-f", 2, "-o", "larger.png", *FP32)
    assert again.code == 0, again.err
    with Image.open(here / "larger.png") as picture:
        assert picture.size == (64, 64)
        assert "izograf" not in picture.text, "one enlargement is all that a record can describe"


@pytest.mark.usefixtures("here")
def test_generate_enlarges_what_it_draws_and_verify_knows(izograf, gan, upscaler) -> None:
    asked = ("-m", gan, "-c", "sea", "-n", 2, "--upscale", 4, "--json", *FP32)
    outcome = izograf("generate", *asked, "-o", "out")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)
    assert len(rows) == 2
    for row in rows:
        with Image.open(row["path"]) as picture:
            assert picture.size == (64, 64)
            record = json.loads(picture.text["izograf"])
        assert record["upscaled"]["model"] == upscaler.name == "upscaler"
        assert record["upscaled"]["factor"] == 4
        assert record["pixels_sha256"] == row["pixels_sha256"]
        assert izograf("verify", row["path"]).out == f"{row['path']}: bit-exact\n"


def test_only_small_whole_doublings_are_taken(refused, photo, gan) -> None:
    sentence = "Pictures are enlarged 2, 4 or 8 times, got 3."
    assert refused("upscale", photo, "-o", "large.png", "--factor", 3) == sentence
    assert refused("generate", "-m", gan, "-o", "a.png", "--upscale", 3) == sentence


def test_what_cannot_be_read_or_written_is_refused_in_a_sentence(refused, photo, upscaler) -> None:
    text = photo.with_name("notes.jpg")
    text.write_text("no picture")
    out = ("-m", upscaler, "-o", "large.png")
    assert refused("upscale", "gone.jpg", *out) == "There is no file gone.jpg."
    assert refused("upscale", ".", *out) == ". is a folder: name one picture."
    assert "notes.jpg cannot be read as a picture" in refused("upscale", text, *out)
    assert "use large.png, not large.jpg" in refused("upscale", photo, "-o", "large.jpg")
    taken = photo.with_name("taken.png")
    taken.write_bytes(b"")
    assert "exists already: add --overwrite" in refused("upscale", photo, "-o", taken)


def test_another_kind_of_model_is_refused(refused, photo, gan, upscaler) -> None:
    sentence = refused("upscale", photo, "-o", "large.png", "-m", gan)
    assert "which enlarges no pictures: choose another" in sentence
    sentence = refused("generate", "-m", upscaler, "-o", "a.png")
    assert "is an upscaler, which draws no pictures of its own" in sentence


def test_what_does_not_fit_into_memory_is_refused(refused, photo, upscaler, monkeypatch) -> None:
    from izograf.generators import upscaler as module

    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    sentence = refused("upscale", photo, "-o", "large.png", "-m", upscaler)
    assert sentence.startswith("Enlarging 12 x 10 pixels 4 times needs about 0.0 GB of memory")


def test_a_script_gets_the_enlarged_picture_too(izograf, here, trained, upscaler) -> None:
    from izograf import generate_image_from_text

    assert upscaler.is_dir()
    place = {"device": "cpu", "precision": "fp32", "num_inference_steps": 2}
    model = str(trained("text-to-image"))
    picture = generate_image_from_text("sea", "sea.png", model=model, upscale=2, **place)
    assert picture.size == (32, 32)
    assert izograf("verify", here / "sea.png").out.endswith("sea.png: bit-exact\n")
