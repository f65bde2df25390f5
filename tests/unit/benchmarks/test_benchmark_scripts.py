"""Every benchmark runs, and says on which machine, in which precision and with how many threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHARED = ("common", "subjects", "quality_plots", "quality_results")


def quick(script: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, str(script), "--quick", "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert {"processor", "threads", "torch", "diffusers"} <= set(told["machine"])
    assert told["precision"]
    assert all(rows for rows in told["tables"].values())
    return told


def test_every_script_is_tested_and_described(benchmarks: Path) -> None:
    scripts = {path.stem for path in benchmarks.glob("*.py")} - set(SHARED)
    assert scripts == {
        "sampling", "training", "startup", "attention", "service", "backbones", "quality",
        "prompts", "students", "text_to_image", "accelerations",
        "names",
    }  # fmt: skip
    text = (benchmarks / "README.md").read_text(encoding="utf-8")
    assert all(f"{name}.py" in text for name in scripts)


def test_attention(benchmarks: Path) -> None:
    quick(benchmarks / "attention.py")


@pytest.mark.slow
@pytest.mark.timeout(900)  # beside other programs
def test_text_to_image(benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    monkeypatch.setenv("IZOGRAF_CACHE", str(tmp_path))
    told = quick(benchmarks / "text_to_image.py", "--rounds", "1")
    (ladder, memory) = told["tables"].values()
    assert [row["setting"] for row in ladder][:2] == ["diffusers", "bf16"]
    work = {row["setting"]: row["network"] for row in ladder}
    assert work["bf16"] == 51
    assert work["guidance interval"] == 16, "12 of 20 steps guided, and half of it for the others"
    assert work["--fast"] < work["reuse"] < work["default"] == 20
    assert memory[0]["MB"] > 100


@pytest.mark.slow
@pytest.mark.timeout(900)  # beside other programs
def test_accelerations(benchmarks: Path, pictures: Path) -> None:
    told = quick(benchmarks / "accelerations.py", "--data", str(pictures), "--num-samples", "8")
    (rows,) = told["tables"].values()
    assert rows[0]["setting"] == "float32, torch"
    assert 0 < rows[1]["levels"] < 5


def test_students(benchmarks: Path) -> None:
    told = quick(benchmarks / "students.py")
    assert [check["kept"] for check in told["checks"] if "cards" in check["name"]] == [True]


@pytest.mark.slow
@pytest.mark.timeout(900)  # beside other programs
def test_startup(benchmarks: Path) -> None:
    told = quick(benchmarks / "startup.py")
    assert all(check["kept"] for check in told["checks"])


@pytest.mark.slow
@pytest.mark.timeout(900)  # beside other programs
def test_service(benchmarks: Path) -> None:
    told = quick(benchmarks / "service.py")
    assert len(told["checks"]) == 10


@pytest.mark.slow
@pytest.mark.timeout(900)  # beside other programs
def test_quality(benchmarks: Path) -> None:
    told = quick(benchmarks / "quality.py")
    assert told["checks"]
    assert len(told["tables"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)  # beside other programs
@pytest.mark.parametrize("name", ["sampling", "training"])
def test_against_diffusers(benchmarks: Path, name: str) -> None:
    pytest.importorskip("diffusers")
    told = quick(benchmarks / f"{name}.py")
    assert told["checks"]
