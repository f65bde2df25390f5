"""Promise P11: nothing that could run a stranger's code is reachable in the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from izograf.schema.errors import UnsafeFile
from izograf.schema.library import refuse_pickle

SOURCE = Path(__file__).parents[3] / "src" / "izograf"

MODULES = frozenset(
    {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml",
     "jsonpickle", "dbm", "pty", "code", "codeop", "imp", "antigravity"}
)  # fmt: skip
BUILTINS = frozenset({"eval", "exec", "compile", "__import__"})
CALLS = frozenset(
    {"torch.load", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter",
     "os.system", "os.popen", "pandas.read_pickle", "numpy.lib.format.read_pickle",
     "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp",
     "torch.serialization.load", "runpy.run_path"}
)  # fmt: skip
TRUE_ARGUMENTS = frozenset({"allow_pickle", "shell", "trust_remote_code"})
FALSE_ARGUMENTS = frozenset({"weights_only", "autoescape"})


def findings(source: str) -> Iterator[str]:
    """What in a module could run code that came with data, as `line: what`.

    multiprocessing's pipes pickle too; they connect our own processes, and nothing imports pickle
    for it.
    """
    tree = ast.parse(source)
    names = dict(_imported_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield f"{node.lineno}: {node.id}"
        elif isinstance(node, ast.Attribute) and _dotted(node, names) in CALLS:
            yield f"{node.lineno}: {_dotted(node, names)}"
        elif isinstance(node, ast.Name) and names.get(node.id) in CALLS:
            yield f"{node.lineno}: {names[node.id]}"
        elif isinstance(node, ast.keyword):
            yield from _arguments(node)


def _imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Name in the module -> what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.split(".")[0],
                    (alias.name if alias.asname else alias.name.split(".")[0]),
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    else:
        modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    for module in modules:
        if MODULES & set(module.split(".")) and not module.startswith("izograf"):
            yield f"{node.lineno}: import {module}"


def _dotted(node: ast.Attribute, names: dict[str, str]) -> str:
    parts = [node.attr]
    value: ast.expr = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name):
        return ""
    return ".".join([names.get(value.id, value.id), *reversed(parts)])


def _arguments(node: ast.keyword) -> Iterator[str]:
    off = isinstance(node.value, ast.Constant) and node.value.value in (False, None)
    on = isinstance(node.value, ast.Constant) and node.value.value is True
    if (node.arg in TRUE_ARGUMENTS and not off) or (node.arg in FALSE_ARGUMENTS and not on):
        yield f"{node.value.lineno}: {node.arg}={ast.unparse(node.value)}"


PLANTED = [
    "import pickle", "from pickle import loads", "import cloudpickle as c", "import yaml",
    "def f():\n    import marshal", "import shelve", "from multiprocessing.reduction import pickle",
    "import torch\ntorch.load('x')", "import torch as t\nt.load('x')",
    "from torch import load\nload('x')", "from torch import load as read\nread('x')",
    "import torch.hub\ntorch.hub.load('a', 'b')", "eval('1')", "exec('x')", "f = eval",
    "__import__('pickle')", "import os\nos.system('x')",
    "import numpy as np\nnp.load('x', allow_pickle=True)",
    "import numpy as np\nnp.load('x', allow_pickle=chosen)",
    "import subprocess\nsubprocess.run('x', shell=True)", "g(weights_only=False)",
    "Environment(autoescape=False)",
]  # fmt: skip


@pytest.mark.parametrize("source", PLANTED)
def test_p11_what_is_planted_is_found(source: str) -> None:
    assert list(findings(source))


@pytest.mark.parametrize(
    "source",
    ["network.eval()", "import json", "np.load('x', allow_pickle=False)", "re.compile('x')",
     "Environment(autoescape=True)", "import torch\ntorch.compile(f)", "weights.load('x')"],
)  # fmt: skip
def test_p11_what_is_harmless_is_passed_over(source: str) -> None:
    assert not list(findings(source))


def test_p11_no_pickle_is_reachable_in_the_source() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100, "the source was not found"
    found = [
        f"{file.relative_to(SOURCE)}:{what}"
        for file in files
        for what in findings(file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(["", *found])


def test_p11_the_pages_hold_no_code_of_their_own() -> None:
    """A strict policy forbids inline scripts, styles and handlers: there must be none to forbid."""
    import re

    inline = re.compile(
        r"<script(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")|\sstyle\s*=|<style|javascript:"
        r"|\son(?:click|load|error|change|input|submit|focus|blur|key\w+|mouse\w+|toggle)\s*="
        r"|autoescape",
        re.IGNORECASE,
    )
    templates = sorted((SOURCE / "service" / "templates").rglob("*.html"))
    assert templates
    found = [
        f"{path.name}: {match[0]}"
        for path in templates
        for match in inline.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found, found
    unescaped = [path.name for path in templates if re.search(r"\|\s*safe\b", path.read_text())]
    assert set(unescaped) <= {"icons.html"}, "only our own drawings go into a page as they are"


@pytest.mark.parametrize("name", ["model.pt", "weights.ckpt", "model.safetensors", "innocent.bin"])
def test_p11_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    import pickle

    path = tmp_path / name
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UnsafeFile):
        refuse_pickle(path)
