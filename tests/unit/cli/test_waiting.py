"""How threads wait follows what else runs on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from izograf.cli.waiting import BRIEF_SPIN, choose_waiting, runnable_threads


@pytest.fixture
def loadavg(tmp_path: Path):
    def write(running: int) -> Path:
        path = tmp_path / "loadavg"
        path.write_text(f"0.50 0.40 0.30 {running}/312 4711\n")
        return path

    return write


def test_alone_on_the_machine_threads_spin_briefly(loadavg) -> None:
    environment: dict[str, str] = {}
    choose_waiting(environment, loadavg(1))
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": BRIEF_SPIN}


def test_beside_others_threads_sleep(loadavg) -> None:
    environment: dict[str, str] = {}
    choose_waiting(environment, loadavg(2))
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_set_stays(name: str, loadavg) -> None:
    environment = {name: "mine"}
    choose_waiting(environment, loadavg(1))
    assert environment == {name: "mine"}


def test_a_system_that_does_not_tell_counts_as_busy(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("nothing")
    assert runnable_threads(tmp_path / "absent") > 1
    assert runnable_threads(tmp_path / "odd") > 1
