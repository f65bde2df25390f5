"""`izograf backup` and `restore-backup`: beside a running service, and back into an empty place."""

from __future__ import annotations

from pathlib import Path

import pytest
from ops_support import Process

from izograf.cli.main import run


def options(folder: Path, url: str | None) -> list[str]:
    return ["--data-dir", str(folder), *(["--database-url", url] if url else [])]


@pytest.mark.parametrize("name", ["backup", "backup.zip"])
def test_a_drill(
    tmp_path: Path, url: str | None, name: str, capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """Back up while jobs are computed, lose everything, restore, and go on where it was."""
    target = tmp_path / name
    with Process(tmp_path, database_url=url, environment={"OPS_STEP": "0.1"}) as service:
        done = [service.submit(n, num_images=2)["id"] for n in range(3)]
        assert set(service.wait(done)) == {"done"}
        waiting = [service.submit(n, steps=100)["id"] for n in range(5)]
        assert run(["backup", str(target), *options(tmp_path / "data", url)]) == 0
        assert "jobs: 8, pictures: 6" in capfd.readouterr().out
        service.kill()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = url and request.getfixturevalue("postgres").create("ops_restored")
    assert run(["restore-backup", str(target), *options(elsewhere / "data", other)]) == 0
    assert "jobs: 8, pictures: 6" in capfd.readouterr().out
    assert run(["restore-backup", str(target), *options(elsewhere / "data", other)]) == 11
    assert "restore into an empty" in capfd.readouterr().err
    with Process(elsewhere, database_url=other) as service:
        assert set(service.wait([*done, *waiting])) == {"done"}
        page = service.client.get("/api/v1/images").json()["items"]
        assert len(page) == 11
        picture = service.client.get(page[-1]["url"])
        assert picture.content.startswith(b"\x89PNG")


def test_a_backup_overwrites_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Process(tmp_path, engine="fake"):
        pass
    (tmp_path / "there").mkdir()
    arguments = options(tmp_path / "data", None)
    assert run(["backup", str(tmp_path / "there"), *arguments]) == 11
    assert "exists already" in capfd.readouterr().err


def test_a_restore_waits_for_no_service(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Process(tmp_path, engine="fake") as service:
        assert run(["backup", str(tmp_path / "b"), *options(tmp_path / "data", None)]) == 0
        code = run(["restore-backup", str(tmp_path / "b"), *options(tmp_path / "data", None)])
        assert code == 11
        assert f"process {service.process.pid}" in capfd.readouterr().err


def test_nothing_to_back_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["backup", str(tmp_path / "b"), *options(tmp_path / "data", None)]) == 3
    assert "no service's data" in capfd.readouterr().err
    assert not (tmp_path / "data").exists()
    assert run(["restore-backup", str(tmp_path / "b"), *options(tmp_path / "data", None)]) == 3
