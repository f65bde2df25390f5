"""`izograf verify`: bit-exact, changed, or cannot, because ..."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from izograf.core.backends import BACKENDS, EAGER, OPENVINO

ABSENT = BACKENDS[OPENVINO].missing()
FP32 = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture
def made(izograf, here, model) -> Path:
    """A folder with a model and a picture of it: `model/` and `sea.png`."""
    own = here / "model"
    own.mkdir()
    for name in ("card.json", "weights.safetensors"):
        shutil.copy(model / name, own / name)
    steps = ("--steps", 3) if model.name == "diffusion-unet" else ()
    outcome = izograf("generate", "-m", "model", "-c", "sea", *steps, *FP32, "-o", "sea.png")
    assert outcome.code == 0, outcome.err
    return here


def resave(path: Path, *, change=None, edit=None, keep: bool = True) -> None:
    """Writes the picture again with the record changed or the pixels edited."""
    with Image.open(path) as image:
        record = json.loads(image.text["izograf"])
        pixels = image.convert("RGB")
    info = PngImagePlugin.PngInfo()
    if keep:
        info.add_itxt("izograf", json.dumps(change(record) if change else record))
    if edit:
        edit(pixels)
    pixels.save(path, pnginfo=info)


def test_an_untouched_picture_is_bit_exact(izograf, made) -> None:
    outcome = izograf("verify", "sea.png")
    assert (outcome.code, outcome.out, outcome.err) == (0, "sea.png: bit-exact\n", "")
    (row,) = json.loads(izograf("verify", "sea.png", "--json").out)
    assert row == {"path": "sea.png", "verdict": "bit-exact", "psnr": None, "remarks": []}
    assert made.is_dir()


def test_a_record_from_before_there_was_a_choice_of_backend_means_torch(izograf, made) -> None:
    def forget(record):
        environment = {k: v for k, v in record["environment"].items() if k != "backend"}
        return record | {"environment": environment}

    resave(made / "sea.png", change=forget)
    assert izograf("verify", "sea.png").out == "sea.png: bit-exact\n"


@pytest.mark.skipif(bool(ABSENT), reason=ABSENT)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_picture_by_another_backend_is_made_again_by_it(
    izograf, made, monkeypatch, precision
) -> None:
    asked = ("-m", "model", "-c", "sea", "--device", "cpu", "--precision", precision)
    outcome = izograf("generate", *asked, "--backend", "openvino", "-o", "other.png")
    assert outcome.code == 0, outcome.err
    assert f"on cpu ({precision}, openvino)" in outcome.err
    with Image.open(made / "other.png") as image:
        assert json.loads(image.text["izograf"])["environment"]["backend"].startswith("openvino 2")
    assert izograf("verify", "other.png").out == "other.png: bit-exact\n"

    monkeypatch.setattr(type(BACKENDS[OPENVINO]), "missing", lambda _: "it is gone")
    (row,) = json.loads(izograf("verify", "other.png", "--json").out)
    assert row["verdict"] in ("close", "bit-exact")
    (remark,) = row["remarks"]
    assert remark.startswith("backend was openvino 2")
    assert remark.endswith(f"now {EAGER}")


def test_a_changed_picture_is_told(izograf, made) -> None:
    resave(made / "sea.png", edit=lambda pixels: pixels.paste((255, 0, 0), (0, 0, 8, 8)))
    outcome = izograf("verify", "sea.png")
    assert outcome.code == 1
    assert outcome.out.startswith("sea.png: different (PSNR ")
    assert "the picture was changed after it was made" in outcome.out


def test_one_grey_level_is_close_and_told(izograf, made) -> None:
    def nudge(pixels: Image.Image) -> None:
        red, green, blue = pixels.getpixel((3, 3))
        pixels.putpixel((3, 3), (red ^ 1, green, blue))

    resave(made / "sea.png", edit=nudge)
    outcome = izograf("verify", "sea.png")
    assert outcome.code == 0
    assert outcome.out.startswith("sea.png: close (PSNR ")
    assert "the picture was changed after it was made" in outcome.out


def test_a_missing_model_is_the_reason(izograf, made) -> None:
    shutil.move(made / "model", made / "moved")
    outcome = izograf("verify", "sea.png")
    assert outcome.code == 1
    assert outcome.out.startswith("sea.png: cannot, because\n  Unknown model 'model'")
    assert izograf("verify", "sea.png", "--model", "moved").out == "sea.png: bit-exact\n"


def test_other_weights_are_the_reason(izograf, made, trained) -> None:
    shutil.rmtree(made / "model")
    (made / "model").mkdir()
    for name in ("card.json", "weights.safetensors"):
        shutil.copy(trained("classifier") / name, made / "model" / name)
    outcome = izograf("verify", "sea.png", "--json")
    assert outcome.code == 1
    (row,) = json.loads(outcome.out)
    assert row["verdict"] == "cannot"
    assert "has other weights now" in row["remarks"][0]


def test_damaged_weights_are_the_reason(izograf, made) -> None:
    path = made / "model" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    outcome = izograf("verify", "sea.png")
    assert outcome.code == 1
    assert "not a complete safetensors file" in outcome.out


def test_a_class_that_left_the_card_is_the_reason(izograf, made) -> None:
    card = json.loads((made / "model" / "card.json").read_text())
    card["classes"][1]["name"] = "ocean"
    card["classes"][1]["forms"] = {}
    (made / "model" / "card.json").write_text(json.dumps(card))
    outcome = izograf("verify", "sea.png")
    assert outcome.code == 1
    assert "Unknown class 'sea'" in outcome.out


def test_without_its_record_a_picture_says_nothing(refused, made) -> None:
    resave(made / "sea.png", keep=False)
    assert "carries no izograf record" in refused("verify", "sea.png")


def test_what_is_no_png_is_refused(refused, here) -> None:
    assert "There is no file none.png" in refused("verify", "none.png")
    (here / "text.png").write_text("text")
    assert "not a picture that can be read" in refused("verify", "text.png")
    (here / "empty.png").write_bytes(b"")
    assert "not a picture that can be read" in refused("verify", "empty.png")
    assert refused("verify", here)
    assert refused("verify", "x" * 5000 + ".png")


CHANGES = {
    "huge batch": lambda r: r | {"batch": [0, 10**9]},
    "other seed": lambda r: r | {"seed": 10**40},
    "hash a number": lambda r: r | {"model_sha256": 5},
    "no hash": lambda r: {k: v for k, v in r.items() if k != "model_sha256"},
    "no environment": lambda r: {k: v for k, v in r.items() if k != "environment"},
    "a list": lambda r: [r],
    "a million": lambda r: r | {"request": r["request"] | {"num_images": 10**6}},
    "null options": lambda r: r | {"request": r["request"] | {"options": None}},
    "nested options": lambda r: r | {"request": r["request"] | {"options": {"a": {}}}},
    "infinite": lambda r: r | {"request": r["request"] | {"seed": float("inf")}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_tampered_record_is_one_sentence(refused, made, change) -> None:
    resave(made / "sea.png", change=change)
    assert "record of sea.png is malformed" in refused("verify", "sea.png")


CANNOT = {
    "unknown option": lambda r: r | {"request": r["request"] | {"options": {"magic": 1}}},
    "precision": lambda r: r | {"environment": r["environment"] | {"precision": "int4"}},
    "precision a list": lambda r: r | {"environment": r["environment"] | {"precision": [1]}},
    "condition": lambda r: r | {"request": r["request"] | {"condition": {"type": "text"}}},
    "class missing": lambda r: r | {"request": r["request"] | {"condition": {"type": "class"}}},
    "a pickle": lambda r: r | {"request": r["request"] | {"model": "evil.pt"}},
    "an empty name": lambda r: r | {"request": r["request"] | {"model": ""}},
    "a long name": lambda r: r | {"request": r["request"] | {"model": "m" * 5000}},
    "a null in the name": lambda r: r | {"request": r["request"] | {"model": "m\0m"}},
}


@pytest.mark.parametrize("change", CANNOT.values(), ids=CANNOT)
def test_a_record_that_asks_the_impossible_cannot_be_verified(izograf, made, change) -> None:
    resave(made / "sea.png", change=change)
    outcome = izograf("verify", "sea.png")
    assert outcome.code != 0
    assert "cannot, because" in outcome.out or outcome.err.startswith("Error: ")
    assert "Traceback" not in outcome.err
