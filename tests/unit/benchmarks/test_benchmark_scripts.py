"""Every benchmark runs, and says on which machine, in which precision and with how many threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHARED = ("common", "subjects", "quality_plots", "quality_results")


def quick(script: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--json"], capture_output=True, text=True
    )
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
        "prompts", "students",
    }  # fmt: skip
    text = (benchmarks / "README.md").read_text(encoding="utf-8")
    assert all(f"{name}.py" in text for name in scripts)


def test_attention(benchmarks: Path) -> None:
    quick(benchmarks / "attention.py")


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
