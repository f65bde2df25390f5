"""`izograf serve` from its first check to its last signal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ops_support import Process, timed, wait_for

from izograf.cli.main import run as run_command
from izograf.schema.errors import Conflict, InvalidInput
from izograf.schema.job import EventKind, Status
from izograf.service.run import only_service_of
from izograf.service.server import Signals, address_of, check_proxies, listen
from izograf.service.settings import ServiceSettings
from izograf.store.open import open_store


def test_it_prints_an_address_that_answers_and_ends_with_0(tmp_path: Path) -> None:
    with Process(tmp_path, engine="fake") as service:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", service.address)
        assert service.client.get("/healthz").json() == {"status": "ok"}
        assert service.client.get("/readyz").json()["ready"] is True
        job = service.submit()
        assert service.wait([job["id"]]) == ["done"]
        assert service.stop(signal.SIGINT) == 0
        assert service.process.stdout is not None
        assert "Ctrl-C stops" in service.process.stdout.read()
    assert "Traceback" not in service.log()


def test_the_web_process_never_loads_torch(tmp_path: Path) -> None:
    with Process(tmp_path, engine="fake") as service:
        assert service.wait([service.submit()["id"]]) == ["done"]
        for path in ("/metrics", "/api/v1/jobs", "/api/v1/openapi.json"):
            service.client.get(path)
        assert "libpython" in service.maps() or "python" in service.maps()
        assert "torch" not in service.maps()
    script = (
        "import sys, pkgutil, importlib, izograf.service as s\n"
        "for m in pkgutil.walk_packages(s.__path__, 'izograf.service.'): "
        "importlib.import_module(m.name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_stopping_finishes_what_runs_and_hands_back_what_waits(tmp_path: Path) -> None:
    with Process(tmp_path, environment={"OPS_STEP": "0.1"}) as service:
        jobs = [service.submit(n, steps=10)["id"] for n in range(4)]
        wait_for(lambda: service.job(jobs[0])["status"] == "running")
        time.sleep(0.3)
        assert service.stop() == 0
    store = open_store(tmp_path / "data")
    statuses = [store.jobs.get(job_id).status for job_id in jobs]
    kinds = [[event.kind for event in store.jobs.events_after(job_id)] for job_id in jobs]
    store.close()
    assert statuses == [Status.DONE, *[Status.QUEUED] * 3]
    assert EventKind.DEAD not in kinds[1]


def test_a_second_signal_ends_the_grace_time(tmp_path: Path) -> None:
    slow = {"OPS_STEP": "2", "IZOGRAF_GRACE_SECONDS": "50"}
    with Process(tmp_path, environment=slow) as service:
        job = service.submit(steps=100)
        wait_for(lambda: service.job(job["id"])["status"] == "running")
        time.sleep(0.3)
        service.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            service.process.wait(3)
        with timed() as seconds:
            assert service.stop() == 0
            assert seconds() < 10
    store = open_store(tmp_path / "data")
    assert store.jobs.get(job["id"]).status is Status.QUEUED
    store.close()


def test_stopping_ends_event_streams(tmp_path: Path) -> None:
    with Process(tmp_path, environment={"OPS_STEP": "1"}) as service:
        job = service.submit(steps=100)
        ended = threading.Event()

        def listen_to() -> None:
            path = f"/api/v1/jobs/{job['id']}/events"
            with service.client.stream("GET", path, timeout=60) as answer:
                if answer.status_code == 404:
                    return
                for _ in answer.iter_bytes():
                    pass
            ended.set()

        listener = threading.Thread(target=listen_to)
        listener.start()
        time.sleep(1)
        service.process.send_signal(signal.SIGTERM)
        listener.join(20)
        assert not listener.is_alive()
        assert ended.is_set()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0


def test_one_service_for_each_folder(tmp_path: Path) -> None:
    with Process(tmp_path, engine="fake") as service:
        second = subprocess.run(
            service.command, cwd=tmp_path, env=service.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert second.returncode == Conflict.exit_code
        assert second.stderr.count("\n") == 1
        assert f"process {service.process.pid}" in second.stderr
        service.kill()
    with only_service_of(tmp_path / "data"):  # the killed one holds it no more
        pass


def test_one_service_for_each_database(tmp_path: Path, url: str | None) -> None:
    """With SQLite the database lies in the folder, so another folder is another database."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with Process(first, engine="fake", database_url=url):
        if url is None:
            with Process(second, engine="fake", database_url=url):
                return
        with pytest.raises(AssertionError, match="uses this database already"):
            Process(second, engine="fake", database_url=url).__enter__()


def complaint(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the one sentence of `izograf serve` with settings that cannot work."""
    code = run_command(["serve", "--port", "0", *arguments])
    out, error = capfd.readouterr()
    assert not out
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    return code, error


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_taken_port(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        code, sentence = complaint(capfd, "--port", str(port))
    assert code == Conflict.exit_code
    assert f"Port {port} of 127.0.0.1 is taken" in sentence
    assert not (here / "izograf-data").exists(), "nothing was begun"


def test_a_host_that_is_not_here(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert here
    assert "no address of this machine" in complaint(capfd, "--host", "192.0.2.1")[1]
    assert "cannot be used" in complaint(capfd, "--host", "no such host")[1]


def test_a_folder_that_cannot_be_written(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("")
    code, sentence = complaint(capfd, "--data-dir", str(here / "file" / "data"))
    assert code == 7
    assert "Cannot write" in sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "locked").mkdir(mode=0o500)
    assert "No permission" in complaint(capfd, "--data-dir", str(here / "locked" / "data"))[1]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "database URL must be"),
        ("mysql://x/y", "database URL must be"),
        ("sqlite://", "must be a file"),
        ("postgresql://nobody@127.0.0.1:1/none", "cannot be reached"),
    ],
)
def test_a_bad_database(
    here: Path, capfd: pytest.CaptureFixture[str], url: str, words: str
) -> None:
    assert here
    assert words in complaint(capfd, "--database-url", url)[1]


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("port = ", "cannot be read"),
        ("prot = 80", "'prot', which is no setting"),
        ("max_queued = 'many'", "max_queued cannot be used"),
        ("trusted_proxies = ['127.0.0.1']", "--login always"),
    ],
)
def test_a_bad_configuration(
    here: Path, capfd: pytest.CaptureFixture[str], toml: str, words: str
) -> None:
    (here / "izograf.toml").write_text(toml)
    assert words in complaint(capfd)[1]


def test_a_bad_environment_and_flag(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here
    assert "setting engine cannot be used" in complaint(capfd, "--engine", "warp")[1]
    monkeypatch.setenv("IZOGRAF_GRACE_SECONDS", "soon")
    assert "setting grace_seconds cannot be used" in complaint(capfd)[1]


def test_an_address_for_others_needs_a_user(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert here
    code, sentence = complaint(capfd, "--host", "0.0.0.0")
    assert code == InvalidInput.exit_code
    assert "izograf user add" in sentence


def test_a_missing_extra(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here
    for name in ("izograf.service.server", "izograf.service.app"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, sentence = complaint(capfd)
    assert code == 9
    assert 'pip install "izograf[service]"' in sentence


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_the_address_can_be_typed_into_a_browser(host: str, shown: str) -> None:
    assert address_of(host, 80) == shown


def test_localhost_is_reached_by_the_older_kind_of_address() -> None:
    with listen("localhost", 0) as listener:
        assert listener.family == socket.AF_INET


def test_proxies_are_believed_only_where_people_log_in() -> None:
    check_proxies(ServiceSettings(trusted_proxies=("127.0.0.1",), login="always"))
    check_proxies(ServiceSettings())
    with pytest.raises(InvalidInput, match="administrator"):
        check_proxies(ServiceSettings(trusted_proxies=("127.0.0.1",)))


def test_signals_are_counted_and_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    heard: list[str] = []
    with Signals() as signals:
        signals.first, signals.second = _note(heard, "first"), _note(heard, "second")
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "a third one ends the process"
    assert heard == ["first", "second"]
    assert signal.getsignal(signal.SIGTERM) is before


def _note(heard: list[str], word: str) -> Callable[[], None]:
    return lambda: heard.append(word)
