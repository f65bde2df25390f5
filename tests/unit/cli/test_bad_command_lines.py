"""Whatever is typed: one sentence, a code that is not zero, nothing written, no traceback."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from izograf.cli.main import run

TRAIN = "train dcgan --data {data} --out run --image-size 16 --device cpu "
DIFFUSION = "train diffusion-unet --data {data} --out run --image-size 16 --device cpu "
LINES = """
models nonsense
models . extra
models --jason
recipes extra
doctor --device cpu
scan
scan --data nowhere
scan --data {data} --image-size 0
scan --data {data} --image-size -5
scan --data {data} --image-size 1000000000
scan --data {data} --image-size x
scan --data empty
scan --data file.txt
scan --data broken.zip
scan --data evil.pt
scan --data {data} --data nowhere
generate -o
generate -o out -m
generate -o out -m nonsense
generate -o out -m ""
generate -o out -m empty
generate -o out -m file.txt
generate -o out -m {long}
generate -o {long} -m {model}
generate -o {long}/{long}.png -m {model} -c sea
generate -o out -m {model} -c ""
generate -o out -m {model} -c "   "
generate -o out -m {model} -c 2
generate -o out -m {model} -c 99999999999999999999
generate -o out -m {model} -c {long}
generate -o out -m {model} --num-images ""
generate -o out -m {model} --num-images 1e3
generate -o out -m {model} --seed 1.5
generate -o out -m {model} --seed {digits}
generate -o out -m {model} --option truncation=nan
generate -o out -m {model} --option truncation=
generate -o out -m {model} --option ""
generate -o out -m {model} --device ""
generate -o out -m {model} --device cuda:99
generate -o out -m {model} --unknown
generate -o out -m {model} surplus
verify
verify nowhere.png
verify empty
verify file.txt
verify ""
verify {long}.png
verify {data}/train/sea/0.png
sheet -m nonsense
sheet -m {model} --columns x
sheet -m {model} -o file.txt/sheet.png --columns 1
evaluate
evaluate nonsense --data {data}
evaluate {model} --data nowhere
evaluate {model} --data empty --extractor random-conv
evaluate {model} --data {data} --extractor ""
evaluate {model} --data {data} --extractor random-conv --num-samples 1e3
evaluate {model} --data {data} --extractor random-conv --num-samples 0.5
evaluate {model} --data {data} --extractor random-conv --judge ""
train
train nonsense --data {data} --out run
train "" --data {data} --out run
train dcgan --out run
train dcgan --data {data}
train dcgan --data nowhere --out run
train dcgan --data empty --out run
train dcgan --data file.txt --out run
train dcgan --data broken.zip --out run
train dcgan --data evil.pt --out run
train dcgan --data "" --out run --resume
train dcgan --data {data} --out empty/../file.txt
train dcgan --data {data} --out run --resume
train dcgan --data {data} --out {long} --image-size 16 --images 8 --batch-size 8
{train} --image-size 0
{train} --image-size 17
{train} --image-size 48
{train} --image-size -16
{train} --image-size 100000
{train} --images 0
{train} --images -5
{train} --images 2X
{train} --images ""
{train} --images nan
{train} --images 999999999999999999999G
{train} --batch-size 0
{train} --batch-size -1
{train} --batch-size 100000000000
{train} --batch-size 8 --accumulation 3
{train} --accumulation 0
{train} --optimizer lion
{train} --optimizer ""
{train} --learning-rate nan
{train} --learning-rate inf
{train} --learning-rate 0
{train} --learning-rate -0.1
{train} --learning-rate 1e9
{train} --learning-rate fast
{train} --weight-decay nan
{train} --weight-decay -1
{train} --weight-decay 1e9
{train} --l1 nan
{train} --l1 -1
{train} --l1 inf
{train} --gradient-clip nan
{train} --gradient-clip -1
{train} --warmup nan
{train} --warmup 2
{train} --warmup -0.1
{train} --decay exponential
{train} --ema-share nan
{train} --ema-share 1
{train} --class-dropout 1.5
{train} --class-dropout nan
{train} --patience -1
{train} --log-every 0
{train} --evaluate-every x
{train} --checkpoint-every -1
{train} --sample-every 0
{train} --device quantum
{train} --precision fp8
{train} --dropout 0.5
{train} --set
{train} --set width
{train} --set width=
{train} --set =8
{train} --set ""
{train} --set width=wide
{train} --set width=0
{train} --set width=-8
{train} --set width=1.5
{train} --set width=1000000000000 --set max_width=1000000000000
{train} --set widht=8
{train} --set activation=sigmoid
{train} --set depth=-1
{train} --set latent_dim=0
{train} --set image_size=32
{train} --set num_classes=1
{train} --objective nonsense
{diffusion} --objective ""
evaluate {model} --data {data} --extractor random-conv --metric nonsense
{diffusion} --dropout 2
{diffusion} --dropout -1
{diffusion} --dropout nan
{diffusion} --set dropout=inf
{diffusion} --set head_dim=7
{diffusion} --set head_dim=0
{diffusion} --set patch_size=3
{diffusion} --set patch_size=0
{diffusion} --set multipliers=0,1
{diffusion} --set multipliers=one
{diffusion} --set multipliers=1,1,1,1,1,1,1
{diffusion} --set channels=1
{diffusion} --set width=100000
train classifier --data {data} --out run --image-size 16 --set width=8
train classifier --data {data} --out run --image-size 12
""".strip().splitlines()


@pytest.fixture
def place(here, gan, pictures) -> dict[str, str]:
    """A working folder with a few bad files, and the words of `LINES`."""
    (here / "empty").mkdir()
    (here / "file.txt").write_text("text")
    (here / "broken.zip").write_bytes(b"PK\x03\x04 cut")
    (here / "evil.pt").write_bytes(b"\x80\x02evil")
    words = {"data": pictures, "model": gan, "long": "x" * 5000, "digits": "9" * 5000}
    words |= {"train": TRAIN.format(data=pictures), "diffusion": DIFFUSION.format(data=pictures)}
    return {key: str(word) for key, word in words.items()}


@pytest.mark.parametrize("line", LINES)
def test_a_bad_command_line_is_one_sentence(refused, place, line) -> None:
    words = line.format(**place).split()
    refused(*("" if word == '""' else word for word in words if word != '"'))


def test_a_name_in_no_encoding_is_one_sentence(refused) -> None:
    broken = b"caf\xe9".decode("utf-8", "surrogateescape")
    for line in (["models", broken], ["generate", "-o", broken], ["train", "--data", broken]):
        assert "caf\\udce9 is not valid text" in refused(*line)


def test_an_unusable_cache_is_one_sentence_and_doctor_still_works(
    refused, izograf, here, gan, pictures, monkeypatch
) -> None:
    (here / "file").write_text("text")
    monkeypatch.setenv("IZOGRAF_CACHE", str(here / "file" / "cache"))
    assert "cache" in refused("scan", "--data", pictures, "--image-size", 16)
    assert izograf("doctor").code == 0
    outcome = izograf("generate", "-m", gan, "-c", "sea", "-o", "x.png", "--device", "cpu")
    assert outcome.code == 0, outcome.err


def test_a_home_that_does_not_exist_is_made_or_done_without(
    izograf, here, gan, monkeypatch
) -> None:
    monkeypatch.delenv("IZOGRAF_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(here / "nobody"))
    assert izograf("generate", "-m", gan, "-c", "sea", "-o", "x.png").code == 0
    assert izograf("doctor").code == 0


def test_a_working_folder_that_vanished_is_one_sentence(izograf, here) -> None:
    gone = here / "gone"
    gone.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(gone)
        gone.rmdir()
        outcomes = [izograf(verb) for verb in ("doctor", "models", "recipes")]
        patch.chdir(here)
    for outcome in outcomes:
        assert "Traceback" not in outcome.err
        assert outcome.code == 0 or outcome.err.startswith("Error: ")


def test_lack_of_memory_is_one_sentence(refused, gan, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("izograf.checkpoints.load.load_generator", fail)
    assert "not enough memory" in refused("generate", "-m", gan, "-o", "x")


def test_an_interrupt_while_generating_keeps_what_is_finished(
    izograf, here, gan, monkeypatch
) -> None:
    from izograf.generators import render

    write, written = render.save_png, []

    def interrupt(path: Path, picture: object) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, picture)

    monkeypatch.setattr(render, "save_png", interrupt)
    outcome = izograf("generate", "-m", gan, "-o", "out", "-n", 2)
    assert outcome.code == 130
    assert outcome.err == "Interrupted.\n"
    assert len(list((here / "out").iterdir())) == 1


def test_mixed_sizes_and_modes_make_one_dataset(izograf, here) -> None:
    rng = np.random.default_rng(0)
    for index, (mode, size) in enumerate(
        [("RGB", (16, 16)), ("L", (40, 7)), ("RGBA", (7, 300)), ("CMYK", (33, 33)), ("1", (9, 9))]
    ):
        for split in ("train", "test"):
            for name in ("a", "b"):
                folder = here / "data" / split / name
                folder.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
                kind = "tif" if mode == "CMYK" else "png"
                Image.fromarray(pixels).convert(mode).save(folder / f"{index}.{kind}")
    outcome = izograf(
        "train", "dcgan", "--data", "data", "--out", "run", "--image-size", 16, "--images", 8,
        "--batch-size", 8, "--set", "width=8", "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "10 pictures read, 0 skipped" in outcome.err


WORDS = st.sampled_from(
    [
        "generate", "verify", "sheet", "models", "recipes", "scan", "evaluate", "train",
        "--model", "-m", "-o", "--output", "-c", "--class", "-n", "--num-images", "--seed",
        "--steps", "--guidance", "--sampler", "--option", "--json", "--overwrite", "--data",
        "--set", "--images", "--image-size", "--num-samples", "--extractor", "--record",
        "model", "model/card.json", "file.txt", "nowhere", "empty", "x.png", "sea", "море",
        "0", "1", "-1", "nan", "1e400", "2M", "", " ", "=", "a=b", "--", "-", "..", "/dev/null",
        "é", "\u202e", "💥", "truncation=0.5", "random-conv",
    ]
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            WORDS,
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), max_size=8),
        ),
        max_size=7,
    )
)
def test_no_words_in_any_order_cause_a_traceback(tmp_path_factory, gan, words) -> None:
    place = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(gan, place / "model")
    (place / "empty").mkdir()
    (place / "file.txt").write_text("text")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        with redirect_stdout(out), redirect_stderr(err):
            code = run(words)
    errors = [line for line in err.getvalue().splitlines() if line.startswith("Error: ")]
    assert len(errors) <= 1
    assert bool(errors) == (code != 0) or (code == 1 and "verify" in words)  # its own verdict


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        ["name", "family", "network", "image_size", "conditions", "classes", "options",
         "sampling", "metrics", "weights", "recipe", "version"]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ),
)  # fmt: skip
def test_no_card_causes_a_traceback(tmp_path_factory, gan, field, value) -> None:
    place = tmp_path_factory.mktemp("cards")
    shutil.copytree(gan, place / "runs" / "odd")
    path = place / "runs" / "odd" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for line in (["models"], ["models", "--json"], ["models", "odd"],
                     ["generate", "-m", "odd", "-n", "1", "-o", "out"]):  # fmt: skip
            err = io.StringIO()
            with redirect_stdout(io.StringIO()), redirect_stderr(err):
                code = run(line)
            errors = [row for row in err.getvalue().splitlines() if row.startswith("Error: ")]
            assert len(errors) == (code != 0), (line, err.getvalue())
