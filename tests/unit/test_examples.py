"""The examples run as they are printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_every_example_is_listed() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert {name for name in files if f"]({name})" in text} == files


def test_the_notebook_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))
    scope: dict[str, Any] = {}
    sources = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    for source in sources:
        exec(compile(source, "tour.ipynb", "exec"), scope)
    assert capsys.readouterr().out.endswith("bit-exact\n")
    assert not any(c.get("outputs") for c in notebook["cells"]), (
        "keep outputs out of the repository"
    )


def test_a_prompt_without_a_model_that_reads_it_is_one_sentence(tmp_path: Path) -> None:
    done = run(EXAMPLES / "generate_image.py", "mountains", "a.png", "--model", "scenes",
               folder=tmp_path)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("scenes does not read prompts")
    assert "Traceback" not in done.stderr
