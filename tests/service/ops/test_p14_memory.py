"""P14: what the web process and a worker hold does not grow with the number of model switches."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ops_support import Process

from izograf.schema.library import ZOO

MIB = 1 << 20
BATCH = 20


@pytest.fixture
def two_models(folder: Path) -> tuple[str, str]:
    """Names of two models whose cards are there, which is all the fake engine needs."""
    for name in ("first", "second"):
        (folder / "models" / name).mkdir(parents=True)
        shutil.copy(ZOO / "scenes" / "card.json", folder / "models" / name)
    return "first", "second"


def slope(memory: Sequence[float], switches: int) -> float:
    """Growth per switch, in the unit of `memory`, over evenly spaced samples."""
    return float(np.polyfit(np.linspace(0, switches, len(memory)), memory, 1)[0])


def switch(service: Process, models: tuple[str, str], count: int, **given: object) -> None:
    """`count` jobs whose models alternate, all done when it returns."""
    accepted = [service.submit(n, model=models[n % 2], **given)["id"] for n in range(count)]
    assert set(service.wait(accepted)) == {"done"}


def test_p14_memory_of_the_web_process_is_flat_over_500_model_switches(
    folder: Path, two_models: tuple[str, str]
) -> None:
    models = {"IZOGRAF_MODELS": str(folder / "models")}
    memory: list[float] = []
    with Process(folder, environment=models) as service:
        switch(service, two_models, 5 * BATCH)  # what is made once: caches, threads, connections
        for _ in range(500 // BATCH):
            switch(service, two_models, BATCH)
            memory.append(service.memory() / MIB)
    assert slope(memory, 500) < 0.1, memory


@pytest.mark.slow
def test_p14_memory_is_flat_over_50_switches_of_real_models(tmp_path: Path) -> None:
    sys.path.append(str(Path(__file__).parents[1] / "engine"))
    from tiny_models import save_tiny_model

    names = ("tiny-0", "tiny-1")
    for seed, name in enumerate(names):
        save_tiny_model(tmp_path / "models" / name, seed=seed)
    models = {"IZOGRAF_MODELS": str(tmp_path / "models")}
    web: list[float] = []
    worker: list[float] = []
    with Process(tmp_path, engine="forgetful", environment=models) as service:
        switch(service, names, 10)
        for _ in range(25):
            switch(service, names, 2)
            web.append(service.memory() / MIB)
            worker.append(worker_memory(service) / MIB)
    assert slope(web, 50) < 0.1, web
    assert slope(worker, 50) < 0.1, worker


def worker_memory(service: Process) -> float:
    text = service.client.get("/metrics").text
    found = re.search(r"^izograf_worker_memory_bytes\{.*\} (\S+)$", text, re.MULTILINE)
    assert found is not None, json.dumps(text)
    return float(found[1])
