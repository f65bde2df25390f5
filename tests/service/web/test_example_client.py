"""`examples/openai_client.py` at a live service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from api_support import live

from izograf.service.context import Service

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "openai_client.py"


def test_the_client_of_the_example_gets_and_edits_pictures(
    service: Service, tmp_path: Path
) -> None:
    pytest.importorskip("openai")
    with live(service) as server:
        command = [sys.executable, EXAMPLE, tmp_path, "--url", f"{server.url}/v1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.split()] == [
        "mountain-1.png", "mountain-2.png", "glacier.png",
    ]  # fmt: skip
    assert all(Path(line).read_bytes().startswith(b"\x89PNG") for line in done.stdout.split())
    edited = [job for job in service.store.jobs.list_jobs().items if job.task == "edit"]
    assert [job.request.condition["class"] for job in edited] == ["glacier"]
