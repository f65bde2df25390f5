"""`docs/api.md` is run as it stands, against a live service."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from api_support import live
from web_support import MakeService

from izograf.engine.fake import FakeEngine
from izograf.service.context import Service

PAGE = Path(__file__).resolve().parents[3] / "docs" / "api.md"
ADDRESS = "http://127.0.0.1:8000"


def block(language: str, url: str) -> str:
    """The page's one block in a language, for the service at `url`."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert ADDRESS in found
    return found.replace(ADDRESS, url)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_shell_example_works(make_service: MakeService, tmp_path: Path) -> None:
    slow = FakeEngine(step_seconds=0.2, preview_seconds=0.2)  # it lasts until curl follows it
    with live(make_service(engine=slow)) as server:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block("bash", server.url)],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "event: preview" in done.stdout
    assert '"source":"izograf"' in done.stdout
    assert (tmp_path / "mountain-10.png").read_bytes().startswith(b"\x89PNG")
    assert zipfile.ZipFile(tmp_path / "pictures.zip").namelist() == ["mountain-10.png"]


def test_the_python_example_works(service: Service) -> None:
    with live(service) as server:
        done = subprocess.run(
            [sys.executable, "-c", block("python", server.url)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "mountain"
