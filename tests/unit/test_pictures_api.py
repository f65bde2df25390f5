"""`izograf.generate_image_from_text`: a picture in one call, for a script."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from izograf import generate_image_from_text, pictures
from izograf.checkpoints.load import load_generator
from izograf.core.devices import fingerprint
from izograf.core.pixels import pixels_sha256
from izograf.generators.render import read_png, verify
from izograf.schema.errors import InvalidInput, NotFound


@pytest.fixture
def draw(trained: Callable[[str], Path]) -> Iterator[Callable[..., Any]]:
    folder = trained("text-to-image")
    pictures._loaded.cache_clear()

    def call(prompt: str, *arguments: Any, **options: Any) -> Any:
        options = {"num_inference_steps": 2, "device": "cpu", "precision": "fp32"} | options
        return generate_image_from_text(prompt, *arguments, **{"model": str(folder)} | options)

    yield call
    pictures._loaded.cache_clear()


def test_the_picture_comes_back_and_the_file_can_be_verified(
    draw: Callable[..., Any], trained: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "deep" / "sea.PNG"
    image = draw("a sea", file, negative_prompt="forest", seed=4)
    assert (image.mode, image.size) == ("RGB", (16, 16))
    pixels, record = read_png(file)
    assert image.tobytes() == pixels.permute(1, 2, 0).contiguous().numpy().tobytes()
    assert record["seed"] == 4
    assert record["request"]["condition"]["negative_prompt"] == "forest"
    generator, placement = load_generator(
        str(trained("text-to-image")), device="cpu", precision="fp32"
    )
    result = verify(pixels, record, generator, fingerprint(placement))
    assert (result.verdict, result.remarks) == ("bit-exact", ())


def test_same_arguments_give_the_same_pixels_and_a_seed_another_picture(
    draw: Callable[..., Any],
) -> None:
    first = draw("a sea").tobytes()
    assert draw("a sea").tobytes() == first
    assert draw("a sea", seed=1).tobytes() != first
    assert draw("a sea", guidance_scale=9).tobytes() != first


def test_the_best_is_one_of_those_drawn(draw: Callable[..., Any], tmp_path: Path) -> None:
    draw("a sea", tmp_path / "best.png", best_of=3, seed=2)
    pixels, record = read_png(tmp_path / "best.png")
    assert record["seed"] in (2, 3, 4)
    assert record["request"]["num_images"] == 3
    assert pixels_sha256(pixels) == record["pixels_sha256"]


def test_unknown_words_are_a_warning_and_known_ones_none(draw: Callable[..., Any]) -> None:
    with pytest.warns(UserWarning, match="«hippogriff»") as caught:
        draw("sea with a hippogriff")
    assert caught[0].filename == __file__, "it points at this file's call"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw("море", style=None, attributes=())


def test_style_and_attributes_are_part_of_the_request(
    draw: Callable[..., Any], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draw("море", tmp_path / "a.png", style="noir", attributes=["sky=orange"])
    condition = read_png(tmp_path / "a.png")[1]["request"]["condition"]
    assert condition["style"] == "noir"
    assert condition["asked"] == "море, с оранжевым небом"


@pytest.mark.parametrize("name", ["sea.jpg", "sea"])
def test_another_format_is_refused_before_anything_is_loaded(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"written as PNG, .* use sea\.png"):
        generate_image_from_text("sea", tmp_path / name, model="no-such-model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"style": "noire"}, "Unknown style"),
        ({"attributes": ["sky=plaid"]}, "Unknown value 'plaid'"),
        ({"wings": 2}, "has no option 'wings'"),
        ({"best_of": 0}, "best_of must be from 1"),
        ({"model": "no-such-model"}, "Unknown model"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    draw: Callable[..., Any], chosen: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((InvalidInput, NotFound), match=sentence):
        draw(**{"prompt": "sea"} | chosen)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, izograf; izograf.generate_image_from_text; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
