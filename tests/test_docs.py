"""README and docs say what is true: commands parse, names exist, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from izograf.cli.app import app, load_verbs

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
TRANSLATED = ("README.md", "README.ru.md")


def commands() -> list[tuple[str, list[str]]]:
    """Every `izograf ...` line of every code block, as (page, arguments)."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```[a-z]*\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                parts = re.split(r"\s+\|\s+|\s{3,}", line.split("#")[0].strip())
                shown = [shlex.split(part)[1:] for part in parts if part.startswith("izograf ")]
                found += [(page.name, arguments) for arguments in shown]
    return found


@pytest.fixture(scope="module")
def command_line() -> object:
    load_verbs()
    return typer.main.get_command(app)


@pytest.mark.parametrize(("page", "arguments"), commands(), ids=lambda v: str(v)[:60])
def test_every_shown_command_exists_with_its_options(
    page: str, arguments: list[str], command_line: object
) -> None:
    verbs = command_line.commands  # type: ignore[attr-defined]
    assert arguments[0] in verbs, f"{page} shows izograf {arguments[0]}, which does not exist"
    verb, rest = verbs[arguments[0]], arguments[1:]
    if hasattr(verb, "commands"):  # izograf user add ...
        assert rest, f"{page} shows izograf {arguments[0]} without a verb of its own"
        assert rest[0] in verb.commands, f"{page} shows izograf {' '.join(arguments[:2])}"
        verb = verb.commands[rest[0]]
    known = {name for p in verb.params for name in (*p.opts, *p.secondary_opts)}
    known |= {"-h", "--help"}
    shown = {a.split("=")[0] for a in arguments[1:] if a.startswith("-") and not _is_number(a)}
    assert shown <= known, f"{page} shows options that do not exist: {sorted(shown - known)}"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-\d+(\.\d+)?", text) is not None


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_docs_name_every_sampler_with_its_order() -> None:
    from izograf.diffusion.samplers import SAMPLERS

    text = (ROOT / "docs" / "generating.md").read_text()
    stated = dict(re.findall(r"^\| `([^`]+)`[^|]*\| (\d+|stochastic) \|", text, re.MULTILINE))
    orders = {
        name: "stochastic" if s.order is None else str(s.order) for name, s in SAMPLERS.items()
    }
    assert stated == orders


def test_docs_name_every_schedule_and_recipe() -> None:
    from izograf.diffusion.schedules import SCHEDULES
    from izograf.recipes.registry import RECIPES

    generating = (ROOT / "docs" / "generating.md").read_text()
    training = (ROOT / "docs" / "training.md").read_text()
    for name in SCHEDULES:
        assert f"`{name}`" in generating or f"={name}`" in generating, f"schedule {name}"
    for name in RECIPES:
        assert f"`{name}`" in training, f"recipe {name}"


def test_docs_name_every_extractor() -> None:
    from izograf.metrics.registry import EXTRACTORS

    text = (ROOT / "docs" / "evaluation.md").read_text()
    for name in EXTRACTORS:
        assert f"`{name}`" in text, name


def test_both_readmes_show_the_same_commands() -> None:
    shown = [[a for page, a in commands() if page == name] for name in TRANSLATED]
    assert shown[0] == shown[1]
    assert shown[0]


def test_every_verb_is_in_the_readme() -> None:
    load_verbs()
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = (ROOT / "README.md").read_text()
    for verb in verbs:
        assert f"izograf {verb}" in text, verb
