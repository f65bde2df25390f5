"""Who imports whom, checked against the table "Who may import whom" of ARCHITECTURE.md.

The table is the Markdown table whose header starts with `| layer | may import |`. A row's left cell
names layers, its right cell what they may import, both separated by commas. A layer is a package of
`src/izograf` (`models`) or a module or package inside one (`checkpoints.files`); the longest name
that fits a file counts, and a layer may import itself. `all above` stands for the layers of all
rows above, `everything` for those of all rows, `the standard library` for nothing else. Notes in
parentheses, and whatever follows a semicolon, are for the human reader.

Imports inside functions and under TYPE_CHECKING count like any other. `izograf` itself, which holds
the version, may be imported by all.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src" / "izograf"
ROOT = "izograf"

# What training may need beside the standard library, so that it runs on any CUDA image.
TRAINING_PATH = (
    "core", "models", "diffusion", "objectives", "data", "training", "checkpoints", "metrics",
    "generators", "recipes",
)  # fmt: skip
THIRD_PARTY = {package: {"torch", "numpy", "safetensors", "PIL"} for package in TRAINING_PATH} | {
    "schema": set(),
    "cli": {"typer", "click", "rich"},
}

Table = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Import:
    """One imported module: by which file and line, and whether as soon as the file is imported."""

    file: Path
    line: int
    module: str
    at_module_level: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def read_table(text: str) -> Table:
    """Layer -> layers it may import."""
    rows: dict[str, frozenset[str]] = {}
    lines = iter(text.splitlines())
    for line in lines:
        if re.match(r"\|\s*layer\s*\|\s*may import\s*\|", line):
            break
    next(lines, "")  # the rule below the header
    everything: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 2:
            break
        names, allowed = _names(cells[0]), set(_names(cells[1]))
        if "all above" in allowed:
            allowed |= set(rows)
        everything += names if "everything" in allowed else []
        for name in names:
            rows[name] = frozenset(allowed - {"all above", "everything", "the standard library"})
    assert rows, "there is no table `| layer | may import |` in the text"
    table = {name: frozenset(rows) if name in everything else rows[name] for name in rows}
    unknown = {name for allowed in table.values() for name in allowed} - set(table)
    assert not unknown, f"layers that may be imported but have no row: {', '.join(sorted(unknown))}"
    return table


def _names(cell: str) -> list[str]:
    without_notes = re.sub(r"\([^)]*\)", "", cell).split(";")[0]
    return [name for part in without_notes.split(",") if (name := part.strip(" *`"))]


def layer_of(module: str, table: Table) -> str | None:
    """The layer of `models.unet`, say; None where the table has none."""
    parts = module.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in table), None)


def module_name(file: Path, source: Path) -> str:
    """`models.unet` for src/izograf/models/unet.py; a package is named by its folder."""
    parts = file.relative_to(source).with_suffix("").parts
    if parts == ("__main__",):
        return "cli"
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_of(source: Path) -> list[Path]:
    return sorted(source.rglob("*.py"))


def imports_of(file: Path, source: Path) -> Iterator[Import]:
    """Every import statement of a file, functions included."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    deferred = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} is a relative import"
            modules = [_imported(node.module or "", alias.name, source) for alias in node.names]
        else:
            continue
        for module in modules:
            yield Import(file.relative_to(source), node.lineno, module, id(node) not in deferred)


def _imported(module: str, name: str, source: Path) -> str:
    """`from izograf.recipes import parts` imports the module izograf.recipes.parts."""
    inside = source.joinpath(*module.split(".")[1:], name)
    is_ours = module.split(".")[0] == ROOT
    exists = inside.is_dir() or inside.with_suffix(".py").is_file()
    return f"{module}.{name}" if is_ours and exists else module


def violations(file: Path, source: Path, table: Table) -> list[str]:
    """Everything in one file that the table, or the list of third parties, does not allow."""
    name = module_name(file, source)
    if not name or (file.name == "__init__.py" and not file.read_text().strip()):
        return []
    layer = layer_of(name, table)
    if layer is None:
        return [f"{file.relative_to(source)} belongs to no layer of the table"]
    reasons = [(item, _reason(item, layer, table)) for item in imports_of(file, source)]
    return [f"{item}, but {reason}" for item, reason in reasons if reason]


def _reason(statement: Import, layer: str, table: Table) -> str:
    """Why the import is not allowed; empty where it is."""
    root, _, inner = statement.module.partition(".")
    if root in sys.stdlib_module_names or statement.module == ROOT:
        return ""
    package = layer.split(".")[0]
    if root != ROOT:
        listed = THIRD_PARTY.get(package)
        deferred_by_cli = package == "cli" and not statement.at_module_level
        if listed is None or root in listed or deferred_by_cli:
            return ""
        return f"{package} may import of third parties only {', '.join(sorted(listed)) or 'none'}"
    target = layer_of(inner, table)
    if target is None:
        return f"{inner} belongs to no layer of the table"
    if layer == "cli" and statement.at_module_level and target not in ("cli", "schema"):
        return "cli imports only schema at module level, the rest inside its commands"
    if target == layer or target in table[layer]:
        return ""
    return f"{layer} may import only {', '.join(sorted(table[layer])) or 'the standard library'}"


@pytest.fixture(scope="module")
def table() -> Table:
    return read_table((REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8"))


def test_every_import_follows_the_table(table: Table) -> None:
    files = files_of(SOURCE)
    assert len(files) > 50, "the source was not found"
    found = [violation for file in files for violation in violations(file, SOURCE, table)]
    assert not found, "\n".join(["", *found])


def test_every_layer_of_the_table_exists(table: Table) -> None:
    gone = [
        name
        for name in table
        if not (path := SOURCE.joinpath(*name.split("."))).is_dir()
        and not path.with_suffix(".py").is_file()
    ]
    assert not gone, f"remove from ARCHITECTURE.md, or write: {', '.join(gone)}"


def test_the_table_has_no_cycles(table: Table) -> None:
    """So that there is an order in which the layers can be read."""
    left = {name: set(allowed) - {name} for name, allowed in table.items()}
    while free := [name for name, allowed in left.items() if not allowed]:
        left = {name: allowed - set(free) for name, allowed in left.items() if name not in free}
    assert not left, f"these layers import each other: {', '.join(left)}"


def test_the_training_path_is_in_the_table(table: Table) -> None:
    assert {name.split(".")[0] for name in table} > set(TRAINING_PATH)


PLANTED = [
    ("training/ema.py", "from izograf.models import unet", "training may import only"),
    ("training/ema.py", "def f():\n    import izograf.recipes.dcgan", "training may import only"),
    (
        "objectives/denoising.py",
        "import typing\nif typing.TYPE_CHECKING:\n    from izograf.models.unet import UNet",
        "objectives may import only",
    ),
    ("diffusion/samplers.py", "from izograf import models", "diffusion may import only"),
    ("checkpoints/files.py", "from izograf.checkpoints import load", "checkpoints.files may"),
    ("acceleration/eager.py", "from izograf.generators import latent", "acceleration may import"),
    ("schema/card.py", "import torch", "of third parties only none"),
    ("models/unet.py", "def f():\n    import scipy.linalg", "of third parties only PIL"),
    ("cli/app.py", "from izograf.core import types", "only schema at module level"),
    ("cli/app.py", "import torch", "of third parties only click"),
    ("surprise/news.py", "import json", "belongs to no layer"),
    ("core/types.py", "import izograf.surprise", "belongs to no layer"),
]


@pytest.mark.parametrize(("file", "statement", "reason"), PLANTED)
def test_an_illegal_import_is_found(
    table: Table, tmp_path: Path, file: str, statement: str, reason: str
) -> None:
    copy = tmp_path / ROOT
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("zoo", "__pycache__"))
    planted = copy / file
    planted.parent.mkdir(exist_ok=True)
    planted.touch()
    before = set(violations(planted, copy, table)) if planted.read_text() else set()
    planted.write_text(f"{planted.read_text()}\n{statement}\n")
    (new,) = set(violations(planted, copy, table)) - before
    assert new.startswith(file)
    assert reason in new


def test_legal_forms_of_the_table_are_understood() -> None:
    text = """
| layer | may import |
|---|---|
| schema | the standard library |
| core (the vocabulary), data | schema |
| data.files | core, schema (and nothing else) |
| engine | schema; **no torch** |
| recipes | all above |
| cli | everything, inside its commands |

| layer | something else |
"""
    text = text.replace("everything, inside its commands", "everything (inside its commands)")
    table = read_table(text)
    assert table["schema"] == frozenset()
    assert table["data"] == table["core"] == table["engine"] == {"schema"}
    assert table["data.files"] == {"core", "schema"}
    assert table["recipes"] == {"schema", "core", "data", "data.files", "engine"}
    assert table["cli"] == {*table}
    assert layer_of("data.files", table) == "data.files"
    assert layer_of("data.other.thing", table) == "data"
    assert layer_of("service", table) is None


def test_a_text_without_the_table_is_not_taken_for_one_that_allows_everything() -> None:
    with pytest.raises(AssertionError, match="there is no table"):
        read_table("# Architecture\n\nNo table here.\n")


HELP = """
import sys
from izograf.cli import main
from izograf.cli.app import app
import typer
main.load_verbs()
command = typer.main.get_command(app)
for arguments in (["--help"], *([name, "--help"] for name in command.commands)):
    assert main.run(arguments) == 0, arguments
heavy = {"torch", "numpy", "PIL", "safetensors"} & set(sys.modules)
assert not heavy, heavy
assert len(command.commands) >= 3
"""


def test_help_of_every_command_needs_neither_torch_nor_numpy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
