"""`izograf generate` and `izograf sheet`: which files appear, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from izograf.core.storage import file_sha256

FP32 = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture
def generate(izograf, model):
    """generate(options...) with the model of either family, few steps where it has steps."""
    steps = ("--steps", 3) if model.name == "diffusion-unet" else ()

    def call(*options: object):
        return izograf("generate", "--model", model, *steps, *FP32, *options)

    return call


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def hashes(outcome) -> dict[str, str]:
    return {Path(row["path"]).name: row["pixels_sha256"] for row in json.loads(outcome.out)}


def test_a_folder_gets_one_picture_per_class_and_seed(generate, here) -> None:
    outcome = generate("--num-images", 2, "--seed", 7, "-o", "out")
    assert outcome.code == 0, outcome.err
    names = {"forest-7.png", "forest-8.png", "sea-7.png", "sea-8.png"}
    assert files(here) == {f"out/{name}" for name in names}
    assert {Path(line).name for line in outcome.out.splitlines()} == names
    for name in names:
        with Image.open(here / "out" / name) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (16, 16))


def test_a_file_gets_the_one_picture_asked(generate, here) -> None:
    outcome = generate("-c", "sea", "--seed", 3, "-o", "deep/down/море.PNG")
    assert outcome.code == 0, outcome.err
    assert files(here) == {"deep/down/море.PNG"}


def test_json_is_an_array_of_objects_and_nothing_else(generate) -> None:
    outcome = generate("-c", "sea", "-n", 2, "--seed", 5, "-o", "out", "--json")
    rows = json.loads(outcome.out)
    assert [row["seed"] for row in rows] == [5, 6]
    assert {row["condition"]["class"] for row in rows} == {"sea"}
    assert all(Path(row["path"]).is_file() for row in rows)
    assert all(row["joules"] > 0 for row in rows)
    assert all(row["energy_method"].startswith(("measured", "estimated")) for row in rows)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(here) -> None:
    del here


def test_the_same_request_gives_the_same_pixels_wherever_it_is_written(generate) -> None:
    first = hashes(generate("-n", 3, "--seed", 1, "-o", "a", "--json"))
    second = hashes(generate("-n", 3, "--seed", 1, "-o", "b", "--json"))
    assert first == second
    assert len(set(first.values())) == 6


def test_a_seed_means_the_same_picture_in_any_request(generate) -> None:
    many = hashes(generate("-c", "sea", "-n", 3, "--seed", 10, "-o", "many", "--json"))
    one = hashes(generate("-c", "sea", "--seed", 12, "-o", "one", "--json"))
    assert set(one) == {"sea-12.png"}
    with Image.open("many/sea-12.png") as batched, Image.open("one/sea-12.png") as alone:
        pairs = zip(batched.tobytes(), alone.tobytes(), strict=True)
        assert max(abs(a - b) for a, b in pairs) <= 1
    assert "sea-12.png" in many


def test_a_strip_is_numbered_along_its_way(generate, here) -> None:
    asked = ("-c", "sea", "-n", 11, "--seed", 4, "--to-seed", 9, "--to-class", "лес")
    outcome = generate(*asked, "-o", "strip", "--json")
    assert outcome.code == 0, outcome.err
    assert files(here) == {f"strip/sea-4-{i:02}.png" for i in range(11)}
    assert [item["position"] for item in json.loads(outcome.out)] == list(range(11))
    assert generate("-c", "sea", "--seed", 4, "-o", "start").code == 0
    assert generate("-c", "forest", "--seed", 9, "-o", "end").code == 0
    for made, plain in (("sea-4-00", "start/sea-4"), ("sea-4-10", "end/forest-9")):
        with Image.open(f"strip/{made}.png") as ours, Image.open(f"{plain}.png") as theirs:
            pairs = zip(ours.tobytes(), theirs.tobytes(), strict=True)
            assert max(abs(a - b) for a, b in pairs) <= 1


def test_a_strip_of_one_picture_is_refused(refused, model) -> None:
    sentence = refused("generate", "-m", model, "-c", "sea", "--to-seed", 3, "-o", "out")
    assert "at least 2 images" in sentence


@pytest.mark.parametrize("word", ["sea", "SEA", " seas ", "море", "Морю", "МОРЯМИ", "1"])
def test_a_class_may_be_asked_in_either_language_and_any_form(generate, here, word) -> None:
    assert generate("-c", word, "-o", "out").code == 0
    assert files(here) == {"out/sea-0.png"}


def test_a_class_asked_twice_in_different_words_is_drawn_once(generate, here) -> None:
    outcome = generate("-c", "sea", "-c", "моря", "-c", "forest", "-c", "SEAS", "-o", "out")
    assert outcome.code == 0
    assert files(here) == {"out/sea-0.png", "out/forest-0.png"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [("forrest", "forest (лес)"), ("лсе", "forest (лес)"), ("мори", "sea (море)")],
)
def test_an_unknown_class_is_answered_with_the_nearest_in_both_languages(
    refused, model, word, expected
) -> None:
    sentence = refused("generate", "-m", model, "-c", word, "-o", "out")
    assert sentence.startswith(f"Unknown class {word!r}: did you mean ")
    assert expected in sentence


def test_a_class_like_none_is_answered_with_all_of_them(refused, model) -> None:
    sentence = refused("generate", "-m", model, "-c", "xyzzy", "-o", "out")
    assert "known classes: forest (лес), sea (море)" in sentence


def test_existing_pictures_are_kept_unless_told_otherwise(generate, here) -> None:
    assert generate("-c", "sea", "-o", "out").code == 0
    (here / "out" / "sea-0.png").write_text("precious")
    outcome = generate("-c", "sea", "-n", 2, "-o", "out")
    assert outcome.code == 2
    assert "out/sea-0.png exists already" in outcome.err
    assert files(here) == {"out/sea-0.png"}
    assert (here / "out" / "sea-0.png").read_text() == "precious"
    assert generate("-c", "sea", "-n", 2, "-o", "out", "--overwrite").code == 0
    assert files(here) == {"out/sea-0.png", "out/sea-1.png"}
    assert (here / "out" / "sea-0.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-n", 2, "-o", "x.png"), "give a folder"),
        (("-o", "x.png"), "2 pictures were asked"),
        (("-c", "sea", "-o", "x.jpg"), "use x.png"),
        (("-c", "sea", "-o", "x.TIFF"), "use x.png"),
        (("-c", "sea", "-o", "x", "-n", 0), "num_images must be from 1"),
        (("-c", "sea", "-o", "x", "-n", -3), "num_images must be from 1"),
        (("-c", "sea", "-o", "x", "-n", 10**12), "num_images must be from 1"),
        (("-c", "sea", "-o", "x", "--seed", -1), "seed must be from 0"),
        (("-c", "sea", "-o", "x", "--seed", 2**63), "seed must be from 0"),
        (("-c", "sea", "-o", "x", "--seed", 10**30), "seed must be from 0"),
        (("-c", "sea", "-o", "x", "--device", "quantum"), "not available here"),
        (("-c", "sea", "-o", "x", "--precision", "int4"), "precision must be"),
        (("-c", "sea", "-o", "x", "--option", "sharpness=3"), "has no option 'sharpness'"),
        (("-c", "sea", "-o", "x", "--option", "sharpness"), "name=value"),
        (("-c", "sea", "-o", "x", "--option", "=3"), "has no option ''"),
    ],
    ids=str,
)
def test_what_cannot_be_generated_is_refused_in_a_sentence(
    refused, model, options, expected
) -> None:
    assert expected in refused("generate", "-m", model, *options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--steps", 0), "num_inference_steps must be from 1 to 1000"),
        (("--steps", -4), "num_inference_steps must be from 1 to 1000"),
        (("--num-inference-steps", 10**9), "num_inference_steps must be from 1 to 1000"),
        (("--guidance", "nan"), "guidance_scale must be a number"),
        (("--guidance-scale", "inf"), "guidance_scale must be a number"),
        (("--guidance", -1), "guidance_scale must be from 0 to 20"),
        (("--guidance", 1e300), "guidance_scale must be from 0 to 20"),
        (("--sampler", "ruler"), "Did you mean euler?"),
        (("--sampler", ""), "sampler must be one of"),
        (("--option", "schedule=uphill"), "schedule must be one of"),
        (("--option", "num_inference_steps=2.5"), "a whole number"),
        (("--option", "num_inference_steps=many"), "a whole number"),
        (("--option", "guidance_low=1e999"), "a number"),
    ],
    ids=str,
)
def test_diffusion_options_out_of_range_are_refused(refused, trained, options, expected) -> None:
    model = trained("diffusion-unet")
    assert expected in refused("generate", "-m", model, "-c", "sea", "-o", "x", *options)


@pytest.mark.parametrize("options", [("--steps", 5), ("--guidance", 2), ("--sampler", "euler")])
def test_a_model_without_steps_says_which_options_it_has(refused, trained, options) -> None:
    sentence = refused("generate", "-m", trained("dcgan"), "-o", "x", *options)
    assert sentence.endswith("its options are: truncation.")


def test_short_long_and_general_options_are_the_same(izograf, trained) -> None:
    model, base = trained("diffusion-unet"), ("-c", "sea", *FP32, "--json")
    spelled = [
        ("--steps", 2, "--guidance", 3, "--sampler", "euler"),
        ("--num-inference-steps", 2, "--guidance-scale", 3, "--option", "sampler=euler"),
        ("--option", "steps=2", "--option", "guidance=3", "--option", " sampler = euler "),
    ]
    made = [
        hashes(izograf("generate", "-m", model, *base, *options, "-o", f"out{i}"))
        for i, options in enumerate(spelled)
    ]
    assert made[0] == made[1] == made[2]
    other = hashes(izograf("generate", "-m", model, *base, "--steps", 2, "-o", "other"))
    assert other != made[0]


def test_the_precision_of_a_picture_is_the_one_asked(generate, izograf, model) -> None:
    assert generate("-c", "sea", "-o", "a.png").code == 0
    steps = ("--steps", 3) if model.name == "diffusion-unet" else ()
    half = izograf(
        "generate", "-m", model, "-c", "sea", *steps, "--precision", "bf16", "--device", "cpu",
        "-o", "b.png",
    )  # fmt: skip
    assert half.code == 0, half.err
    assert "(bf16, " in half.err
    assert izograf("verify", "b.png").out == "b.png: bit-exact\n"


def test_a_model_that_is_not_there_is_refused(refused, here, gan) -> None:
    shutil.copytree(gan, here / "runs" / "scenery")
    sentence = refused("generate", "-m", "scenary", "-o", "x")
    assert sentence.startswith("Unknown model 'scenary': did you mean scenery")
    assert "There is no model in" in refused("generate", "-m", here, "-o", "x")


def test_a_model_is_found_by_name_path_or_card(izograf, here, gan) -> None:
    shutil.copytree(gan, here / "runs" / "mine")
    for index, name in enumerate(("mine", "runs/mine", "runs/mine/", "runs/mine/card.json")):
        outcome = izograf("generate", "-m", name, "-c", "sea", "-o", f"{index}.png")
        assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    "name", ["m.ckpt", "m.pt", "m.pth", "m.bin", "m.pkl", "renamed.safetensors", "renamed"]
)
def test_a_pickle_is_refused(refused, here, name) -> None:
    (here / name).write_bytes(b"\x80\x04\x95evil")
    assert "is a pickle, which can execute code" in refused("generate", "-m", name, "-o", "x")


def test_a_card_from_the_future_asks_for_an_update(refused, own_model) -> None:
    card = json.loads((own_model / "card.json").read_text())
    (own_model / "card.json").write_text(json.dumps(card | {"version": 99}))
    assert "update izograf" in refused("generate", "-m", own_model, "-o", "x")


def test_truncated_weights_are_one_sentence(refused, own_model) -> None:
    path = own_model / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    sentence = refused("generate", "-m", own_model, "-o", "x")
    assert "not a complete safetensors file" in sentence


def test_a_place_that_cannot_be_written_is_one_sentence(refused, here, gan) -> None:
    (here / "file").write_text("text")
    assert "file" in refused("generate", "-m", gan, "-o", "file")
    assert "Cannot write" in refused("generate", "-m", gan, "-o", "file/below")
    (here / "folder.png").mkdir()
    assert "exists already" in refused("generate", "-m", gan, "-c", "sea", "-o", "folder.png")
    sentence = refused("generate", "-m", gan, "-c", "sea", "-o", "folder.png", "--overwrite")
    assert "Cannot write" in sentence


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence(izograf, here, gan, monkeypatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 4711)
    (here / ".x.png.4711.tmp").symlink_to("/dev/full")
    outcome = izograf("generate", "-m", gan, "-c", "sea", "-o", "x.png")
    assert outcome.code == 7
    assert outcome.err.splitlines()[-1].startswith("Error: The disk is full (")
    assert files(here) == set()


@pytest.mark.parametrize(
    ("class_name", "file"),
    [
        ("AC/DC", "AC_DC-0.png"),
        ("../../escaped", "__.._escaped-0.png"),
        ("/etc/passwd", "_etc_passwd-0.png"),
        (".hidden", "_hidden-0.png"),
        ("a\nb", "a_b-0.png"),
        ("ё" * 300, "ё" * 100 + "-0.png"),
    ],
)
def test_a_class_name_never_decides_the_folder(izograf, here, gan, class_name, file) -> None:
    card = json.loads((gan / "card.json").read_text())
    card["classes"][0]["name"] = class_name
    (gan / "card.json").write_text(json.dumps(card))
    before = files(here.parent)
    outcome = izograf("generate", "-m", gan, "-c", class_name, "-o", "out")
    assert outcome.code == 0, outcome.err
    assert files(here.parent) - before == {f"{here.name}/out/{file}"}


def test_a_sheet_has_a_row_for_every_class(izograf, here, model) -> None:
    outcome = izograf("sheet", "-m", model, "--columns", 3, "--scale", 2, "-o", "s.png", *FP32)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(here / "s.png")
    with Image.open("s.png") as sheet:
        assert sheet.width > 3 * 32
        assert 2 * 32 < sheet.height < 3 * 32
    first = file_sha256(here / "s.png")
    assert izograf("sheet", "-m", model, "--columns", 3, "-o", "s.png", *FP32).code == 0
    assert file_sha256(here / "s.png") == first


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--columns", 0), "Invalid value for"),
        (("--columns", 10**6), "Invalid value for"),
        (("--scale", 0), "Invalid value for"),
        (("--scale", 10**6), "Invalid value for"),
        (("-o", "s.webp"), "use s.png"),
        (("--seed", -1), "seed must be from 0"),
    ],
)
def test_a_sheet_that_cannot_be_drawn_is_refused(refused, gan, options, expected) -> None:
    assert expected in refused("sheet", "-m", gan, *options)
