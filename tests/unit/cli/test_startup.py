"""Help is instant and complete; a bare or wrong command says what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from izograf import __version__
from izograf.cli.app import app, load_verbs

load_verbs()
VERBS = sorted(typer.main.get_command(app).commands)

HEAVY = """
import sys
from izograf.cli.main import run
for arguments in ([], ["--help"], ["--version"], *([verb, "--help"] for verb in sys.argv[1:])):
    assert run(arguments) == 0, arguments
heavy = {"torch", "numpy", "PIL", "safetensors"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_of_every_verb_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *VERBS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_says_what_it_does(verb, izograf) -> None:
    outcome = izograf(verb, "--help")
    assert outcome.code == 0
    assert f"izograf {verb}" in outcome.out
    assert izograf(verb, "-h").out == outcome.out


def test_the_promised_verbs_are_there() -> None:
    promised = {"generate", "verify", "train", "evaluate", "models", "recipes", "doctor", "sheet"}
    promised |= {"serve", "user", "key", "backup", "restore-backup"}
    assert promised <= set(VERBS)


def test_without_arguments_the_help_is_shown(izograf) -> None:
    outcome = izograf()
    assert outcome.code == 0
    assert "generate" in outcome.out


def test_the_version_is_printed(izograf) -> None:
    assert izograf("--version").out == f"izograf {__version__}\n"


def test_a_wrong_command_is_one_sentence_that_names_the_help(refused) -> None:
    assert refused("nonsense") == "No such command 'nonsense'. See izograf --help."
    sentence = refused("train")
    assert sentence == "Missing option '--data'. See izograf train --help."
