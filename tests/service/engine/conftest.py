"""Fixtures of the engine's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of two tiny models."""
    from tiny_models import save_tiny_model

    root = tmp_path_factory.mktemp("models")
    first, second = (str(save_tiny_model(root / f"tiny-{n}", seed=n)) for n in (0, 1))
    return first, second
