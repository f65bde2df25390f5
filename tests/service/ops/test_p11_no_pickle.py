"""P11: nothing in the program can load a pickle, but the pipes between its own processes."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ops_support import MakeService

import izograf
from izograf.service.context import Service

SOURCE = Path(izograf.__file__).parent
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"torch.load", "torch.save", "torch.jit.load", "torch.package.PackageImporter",
         "pandas.read_pickle", "pd.read_pickle", "yaml.load", "yaml.unsafe_load"}  # fmt: skip
NAMES = {"PickleType", "ForkingPickler", "_ForkingPickler", "Unpickler"}
PIPES = {"engine/process.py", "engine/worker.py", "engine/serving.py"}
"""Whose `multiprocessing` speaks with processes that this program started, over private pipes."""


def offences(text: str, file: str) -> Iterator[str]:
    """Every way to a pickle in the source of one file."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0], *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            allowed = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("allow_pickle")
            if called in CALLS or allowed not in (None, "False"):
                yield f"{file}:{node.lineno} calls {ast.unparse(node)[:60]}"
            continue
        elif isinstance(node, ast.Attribute | ast.Name):
            names = {node.attr if isinstance(node, ast.Attribute) else node.id} & NAMES
        else:
            continue
        if bad := names & (MODULES | NAMES):
            yield f"{file}:{getattr(node, 'lineno', 0)} uses {', '.join(sorted(bad))}"
        if "multiprocessing" in names and file not in PIPES:
            yield f"{file}:{getattr(node, 'lineno', 0)} opens pipes"


def test_p11_no_pickle_is_reachable() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 100
    found = [
        offence
        for path in files
        for offence in offences(path.read_text(), path.relative_to(SOURCE).as_posix())
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import torch\nx = torch.load(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)", "from sqlalchemy import PickleType",
        "import multiprocessing", "import joblib.memory",
    ],
)  # fmt: skip
def test_control_each_way_is_noticed(text: str) -> None:
    assert list(offences(text, "data/x.py"))


SPRUNG: list[str] = []


def spring(mark: str) -> None:
    SPRUNG.append(mark)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return spring, ("sprung",)


def test_control_the_trap_works() -> None:
    pickle.loads(pickle.dumps(Trap()))
    assert SPRUNG.pop() == "sprung"


@pytest.mark.parametrize("kind", ["application/octet-stream", "image/png", "application/json"])
def test_p11_a_pickle_sent_to_the_service_is_never_executed(
    make_service: MakeService, connect: Callable[[Service], TestClient], kind: str
) -> None:
    trap = pickle.dumps(Trap())
    client = connect(make_service())
    described = client.get("/api/v1/openapi.json").json()["paths"]
    paths = [path for path, methods in described.items() if "post" in methods]
    assert paths
    bodies: list[dict[str, Any]] = [
        {"content": trap, "headers": {"content-type": kind}},
        {"files": {"image": ("x.png", trap, kind)}},
    ]
    for path in paths:
        for body in bodies:
            answer = client.post(path.replace("{", "").replace("}", ""), **body)
            assert 400 <= answer.status_code < 500, (path, answer.text)
    assert SPRUNG == []
