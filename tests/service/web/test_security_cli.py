"""`izograf user` and `izograf key`, as an operator types them."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from security_support import CHEAP, PASSWORD

from izograf.cli import main
from izograf.service import auth_secrets
from izograf.service.auth_secrets import parse_key, password_fits, secret_fits
from izograf.store.accounts import Role
from izograf.store.open import Store, open_store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in its own folder: exit code, output, errors."""
    monkeypatch.setattr(auth_secrets, "_hasher", CHEAP)
    monkeypatch.chdir(tmp_path)

    def call(line: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code = main.run([*line.split(), "--data-dir", str(tmp_path / "data")])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def store_of(folder: Path) -> Store:
    return open_store(folder / "data")


def test_a_user_is_added_changed_and_disabled(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("user add Anna --role admin --password-stdin", PASSWORD + "\n")
    assert (code, out) == (0, "anna may log in as admin.\n")
    assert run("user add boris --password-stdin", PASSWORD)[0] == 0
    assert run("user role boris engineer")[:2] == (0, "boris is engineer now.\n")
    assert run("user disable boris")[0] == 0
    assert "boris  engineer" in run("user list")[1]
    assert "disabled" in run("user list")[1]
    assert run("user enable boris")[0] == 0
    assert run("user password boris --password-stdin", "another long sentence\n")[0] == 0
    store = store_of(tmp_path)
    boris = store.accounts.find_user("boris")
    assert boris.role is Role.ENGINEER
    assert password_fits(boris.password_hash, "another long sentence")
    actions = [entry.action for entry in store.audit.entries()]
    store.close()
    assert actions == ["user.password", "user.enable", "user.disable", "user.role", "user.create",
                       "user.create"]  # fmt: skip


def test_a_key_is_printed_once_and_revoked(run: Run, tmp_path: Path) -> None:
    run("user add anna --password-stdin", PASSWORD)
    code, out, err = run("key create anna --name ci")
    parsed = parse_key(out.strip())
    assert code == 0
    assert parsed is not None, "the key alone is on standard output"
    assert "shown only now" in err
    store = store_of(tmp_path)
    key = store.accounts.find_key(parsed.prefix)
    assert key is not None
    assert secret_fits(key.secret_hash, parsed.secret)
    assert parsed.secret not in run("key list")[1]
    assert parsed.prefix in run("key list")[1]
    assert run(f"key revoke {parsed.prefix}")[0] == 0
    assert store.accounts.find_key(parsed.prefix) is None
    store.close()
    assert run(f"key revoke {parsed.prefix}")[0] == 3


def test_the_password_is_typed_twice_and_must_agree(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([PASSWORD, PASSWORD, PASSWORD, PASSWORD + "x"])
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(answers))
    assert run("user add anna")[0] == 0
    code, _, err = run("user add boris")
    assert code == 2
    assert err == "Error: The two passwords differ: type the same one twice.\n"


@pytest.mark.parametrize(
    ("line", "typed", "code"),
    [
        ("user add anna --role emperor --password-stdin", PASSWORD, 2),
        ("user add anna --password-stdin", "short", 2),
        ("user add anna --password-stdin", "annaannaanna", 2),
        ("user add anna --password-stdin", "", 2),
        ("user disable nobody", "", 3),
        ("user role nobody user", "", 3),
        ("key create nobody", "", 3),
        ("key revoke izo_nothing", "", 3),
        ("user add", "", 2),
        ("user", "", 2),
    ],
)
def test_a_mistake_is_told_in_one_sentence(run: Run, line: str, typed: str, code: int) -> None:
    got, out, err = run(line, typed)
    assert got == code
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert PASSWORD not in err


def test_the_last_administrator_stays(run: Run) -> None:
    run("user add anna --role admin --password-stdin", PASSWORD)
    for line in ("user disable anna", "user role anna user"):
        code, _, err = run(line)
        assert code == 11
        assert "last administrator" in err
    assert run("user add ANNA --password-stdin", PASSWORD)[0] == 11


def test_help_of_users_and_keys_needs_nothing_of_the_service() -> None:
    program = """
import sys
from izograf.cli import main
for line in (["user", "--help"], ["user", "add", "--help"], ["key", "--help"], ["--help"]):
    assert main.run(line) == 0
heavy = {"fastapi", "sqlalchemy", "argon2", "pydantic_settings", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_without_the_extra_the_sentence_names_it() -> None:
    program = """
import sys
sys.modules["sqlalchemy"] = sys.modules["argon2"] = None
from izograf.cli import main
sys.exit(main.run(["user", "list", "--data-dir", "/nonexistent"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 9, done.stderr
    assert 'pip install "izograf[service]"' in done.stderr
