"""Pictures made on the spot, and the folder of real data where there is one."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from izograf.data.entries import FORMATS
from izograf.data.sources import locate

Color = tuple[int, int, int]
Encode = Callable[..., bytes]
Write = Callable[[Path, Mapping[str, bytes]], Path]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """encode(color, size=..., kind=..., **save options) -> the bytes of a plain picture."""

    def make(
        color: Any = (200, 30, 60),
        *,
        mode: str = "RGB",
        size: tuple[int, int] = (12, 8),
        kind: str = "PNG",
        **options: Any,
    ) -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, size, color).save(buffer, kind, **options)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def write_folder() -> Write:
    """write_folder(path, {name: bytes}) -> the folder with these files."""

    def make(path: Path, files: Mapping[str, bytes]) -> Path:
        for name, content in files.items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return path

    return make


@pytest.fixture(scope="session")
def write_zip() -> Write:
    """write_zip(path, {name: bytes}) -> the zip with these members, names unchecked."""

    def make(path: Path, files: Mapping[str, bytes]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path

    return make


@pytest.fixture(scope="session")
def claims() -> Callable[[Path], list[str]]:
    """claims(path) -> the formats that take this folder, zip or file for their own."""

    def ask(path: Path) -> list[str]:
        location = locate(path)
        return [name for name in FORMATS if FORMATS[name](location) is not None]

    return ask


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real datasets; tests of it are skipped where it is absent."""
    beside = Path(__file__).parents[4] / "shared"
    folder = Path(os.environ.get("IZOGRAF_SHARED", beside)) / "data"
    if not folder.is_dir():
        pytest.skip("no real data: set IZOGRAF_SHARED to the folder that contains data/")
    return folder
