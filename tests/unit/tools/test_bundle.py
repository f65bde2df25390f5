"""`tools/bundle.py`: what goes into the zoo beside the weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from izograf.schema.library import CARD, SAMPLES, ZOO, read_card

ROOT = Path(__file__).resolve().parents[3]
BUNDLE = ROOT / "tools" / "bundle.py"


def bundle(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BUNDLE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


@pytest.fixture
def quick_model(tmp_path: Path) -> Path:
    """The bundled model with one denoising step, elsewhere."""
    source, folder = ZOO / "scenes", tmp_path / "quick"
    folder.mkdir()
    card = (source / CARD).read_text(encoding="utf-8")
    card = card.replace('"default": 18', '"default": 1')
    (folder / CARD).write_text(card, encoding="utf-8")
    for name in read_card(source).weights:
        (folder / name).symlink_to(source / name)
    return folder


def test_samples_are_a_row_for_each_class_edge_to_edge(quick_model: Path) -> None:
    done = bundle("--samples-only", "--device", "cpu", str(quick_model))
    assert done.returncode == 0, done.stderr
    card = read_card(quick_model)
    with Image.open(quick_model / SAMPLES) as sheet:
        assert sheet.size == (5 * card.image_size, len(card.classes) * card.image_size)
        assert sheet.mode == "RGB"


def test_samples_of_a_text_model_are_a_row_of_prompts(trained, tmp_path: Path) -> None:
    folder = shutil.copytree(trained("text-to-image"), tmp_path / "text")
    done = bundle("--samples-only", "--device", "cpu", str(folder))
    assert done.returncode == 0, done.stderr
    card = read_card(folder)
    assert len(card.examples) == 8, "a run notes prompts of its own data"
    with Image.open(folder / SAMPLES) as sheet:
        assert sheet.size == (8 * card.image_size, card.image_size)


def test_more_examples_than_a_sheet_shows_are_refused(quick_model: Path) -> None:
    done = bundle(str(quick_model), "--summary", "s", "--notes", "n", *["--example", "a"] * 13)
    assert done.returncode == 2
    assert "at most 12 examples" in done.stderr


def test_a_run_is_not_bundled_without_saying_what_is_not_good(quick_model: Path) -> None:
    done = bundle(str(quick_model), "--summary", "six kinds of scenes")
    assert done.returncode == 2
    assert "what is not good yet" in done.stderr
