"""The two benchmarks of what a text model makes of its prompt, on a few pictures and steps."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from izograf.data.captions import EmojiCaptions

NAMES = {"red": ("красный", (200, 30, 30)), "green": ("зелёный", (30, 160, 60))}


def tables(script: Path, *options: str) -> dict[str, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, str(script), "--json", "--steps", "1", *options],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)["tables"]
    return found


def test_prompts_are_judged_in_both_languages(benchmarks: Path, pictures: Path) -> None:
    found = tables(benchmarks / "prompts.py", "--data", str(pictures), "--prompts", "4")
    agreement, paper = found.values()
    assert [row["language"] for row in agreement] == ["en", "ru", "by chance"]
    assert all(0 <= row["attribute"] <= 100 for row in agreement)
    assert paper[0]["prompt"] == "Ландшафт с горами и рекой"


@pytest.fixture
def named(tmp_path: Path) -> Path:
    folder = tmp_path / "named" / "train"
    folder.mkdir(parents=True)
    rows = []
    for name, (russian, colour) in NAMES.items():
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
        rows.append(
            {
                "file_name": f"{name}.png", "text": name, "text_ru": russian,
                "keywords": [name, "colour"], "keywords_ru": [russian, "цвет"],
            }
        )  # fmt: skip
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder.parent


def test_names_are_looked_for_among_the_pictures(
    benchmarks: Path, named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IZOGRAF_CACHE", str(tmp_path / "cache"))
    script = benchmarks / "names.py"
    (rows,) = tables(script, "--data", str(named), "--model", "scenes-text").values()
    assert [row["language"] for row in rows] == ["en", "en, by chance", "ru", "ru, by chance"]
    assert (rows[1]["nearest"], rows[1]["of five"]) == (50, 100)
    assert rows[1]["keyword"] in (50, 75, 100), "a keyword of one picture, or of both"


@pytest.mark.parametrize(
    ("shift", "found"), [(0, (100, 100, 100)), (1, (0, 0, 0)), (2, (0, 100, 0))]
)
def test_names_and_keywords_are_counted_by_what_is_nearest(
    shift: int, found: tuple[float, ...]
) -> None:
    names = importlib.import_module("names")
    rows = [{"text": f"name{i}", "keywords": [f"word{i}"]} for i in range(6)]

    def order(prompts: Sequence[str]) -> list[list[int]]:
        asked = [int(said[-1]) for said in prompts]
        return [[(index + shift + place) % 6 for place in range(6)] for index in asked]

    row, chance = names.agreement(EmojiCaptions(rows), range(6), "en", order)
    assert (row["nearest"], row["of five"], row["keyword"]) == found
    assert [chance[key] for key in ("nearest", "of five", "keyword")] == pytest.approx(
        [100 / 6, 500 / 6, 100 / 6]
    )


def test_pictures_of_one_name_count_for_each_other() -> None:
    names = importlib.import_module("names")
    rows = [{"text": "twin", "keywords": ["a"]}, {"text": "twin", "keywords": ["b"]}]
    row, chance = names.agreement(EmojiCaptions(rows), [0], "en", lambda said: [[1, 0]] * len(said))
    assert (row["nearest"], row["keyword"]) == (100, 0)
    assert chance["nearest"] == 100


def test_data_without_names_is_one_sentence(benchmarks: Path, pictures: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, str(benchmarks / "names.py"), "--model", "scenes-text",
            "--data", str(pictures),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.endswith(
        "has no table with names: give data with the columns text and keywords.\n"
    )
    assert "Traceback" not in done.stderr
