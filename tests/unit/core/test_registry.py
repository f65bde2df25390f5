"""Registries: one name, one object."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from izograf.core.registry import Registry
from izograf.schema.errors import NotFound


@pytest.fixture
def tools() -> Registry[int]:
    registry: Registry[int] = Registry("tool")
    registry.register("hammer")(1)
    registry.register("saw")(2)
    return registry


def test_a_registry_is_a_sorted_read_only_mapping(tools: Registry[int]) -> None:
    assert dict(tools) == {"hammer": 1, "saw": 2}
    assert list(tools) == ["hammer", "saw"]
    assert len(tools) == 2
    assert "saw" in tools
    assert "axe" not in tools
    assert tools.get("axe") is None
    assert not hasattr(tools, "__setitem__")


def test_register_returns_what_it_was_given() -> None:
    registry: Registry[type] = Registry("type")

    @registry.register("thing")
    class Thing:
        pass

    assert registry["thing"] is Thing


def test_a_duplicate_name_is_an_error_and_keeps_the_first(tools: Registry[int]) -> None:
    with pytest.raises(ValueError, match="tool 'saw' is registered twice"):
        tools.register("saw")(3)
    assert tools["saw"] == 2


def test_an_unknown_name_is_answered_with_the_known_and_the_nearest(tools: Registry[int]) -> None:
    with pytest.raises(
        NotFound, match=r"Unknown tool 'hamer': known are hammer, saw. Did you mean"
    ):
        tools["hamer"]
    with pytest.raises(NotFound, match=r"known are hammer, saw\.$"):
        tools["zzz"]


def test_a_package_is_imported_at_the_first_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "izograf_test_plugins"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from izograf.core.registry import Registry\n"
        "FOUND = Registry('plugin', package='izograf_test_plugins')\n"
    )
    (package / "first.py").write_text(
        "from izograf_test_plugins import FOUND\nFOUND.register('first')(1)\n"
    )
    (package / "second.py").write_text(
        "from izograf_test_plugins import FOUND\nFOUND.register('second')(2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        found = __import__("izograf_test_plugins").FOUND
        assert "izograf_test_plugins.first" not in sys.modules
        assert dict(found) == {"first": 1, "second": 2}
    finally:
        for name in [name for name in sys.modules if name.startswith("izograf_test_plugins")]:
            del sys.modules[name]
