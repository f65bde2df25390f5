"""The benchmarks are scripts beside each other; their folder is their import path."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # `common` would set it for good
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def benchmarks() -> Path:
    """The folder of the scripts."""
    return BENCHMARKS
