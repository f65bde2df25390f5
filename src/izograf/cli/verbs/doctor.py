"""`izograf doctor`: what this machine is to izograf, and what is missing for what."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from izograf import __version__
from izograf.cli.app import app
from izograf.cli.arguments import Json

EXTRAS = {
    "tensorboard": ("tensorboard", "izograf train --tensorboard"),
    "openvino": ("openvino", "pictures several times faster on a CPU"),
    "int8": ("nncf", "--backend openvino-int8"),
    "stable-diffusion": ("diffusers", "Stable Diffusion checkpoints"),
}
LOW_DISK_BYTES = 2e9
LOW_MEMORY_BYTES = 2e9


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show device, precision, threads, memory and disk, and what is missing for what."""
    findings = _findings()
    if as_json:
        typer.echo(json.dumps(findings, ensure_ascii=False, indent=1))
        return
    width = max(len(item["name"]) for item in findings)
    for item in findings:
        advice = f"  -> {item['advice']}" if item["advice"] else ""
        typer.echo(f"{item['name']:{width}}  {item['value']}{advice}")


def _findings() -> list[dict[str, Any]]:
    import torch

    from izograf.core.backends import BACKENDS, choose_backend
    from izograf.core.devices import (
        PROBE_MARGIN,
        cache_folder,
        choose_placement,
        free_threads,
        processor_name,
        remembered_ratio,
    )
    from izograf.schema.library import list_models

    placement = choose_placement()
    name = torch.cuda.get_device_name() if placement.device == "cuda" else processor_name()
    precision: str = placement.precision
    if placement.device == "cpu":
        ratio = remembered_ratio(128)
        precision += f" (bf16 is {ratio:.2f} x as fast as fp32; taken from {PROBE_MARGIN:g} x on)"
    kind = placement.device.split(":")[0]
    chosen = choose_backend("auto", device=placement.device, precision="auto")
    usable = [name for name, b in BACKENDS.items() if kind in b.devices and not b.missing()]
    available, total = memory_bytes()
    disk = shutil.disk_usage(Path.cwd()).free
    found = list_models()
    broken = [item for item in found if item.card is None]
    rows = [
        _row("izograf", f"{__version__}, Python {platform.python_version()}"),
        _row("torch", torch.__version__),
        _row("device", f"{placement.device} ({name})"),
        _row("precision", precision),
        _row("backend", f"{chosen} (of {', '.join(usable)})"),
        _row("threads", f"{free_threads()} of {os.cpu_count()} cores"),
        _row(
            "memory",
            f"{available / 1e9:.1f} GB available of {total / 1e9:.1f} GB",
            "close other programs before training" if available < LOW_MEMORY_BYTES else "",
        ),
        _row(
            "disk",
            f"{disk / 1e9:.1f} GB free here",
            "free some space before training" if disk < LOW_DISK_BYTES else "",
        ),
        _row("cache", str(cache_folder())),
        _row("models", f"{len(found) - len(broken)} usable"),
    ]
    rows += [_row("broken model", str(item.folder), item.problem) for item in broken]
    for extra, (module, purpose) in EXTRAS.items():
        present = importlib.util.find_spec(module) is not None
        rows.append(
            _row(
                f"extra {extra}",
                importlib.metadata.version(module) if present else "not installed",
                "" if present else f"for {purpose}: pip install 'izograf[{extra}]'",
            )
        )
    return rows


def _row(name: str, value: str, advice: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "advice": advice}


def memory_bytes() -> tuple[int, int]:
    """Available and total main memory in bytes; zeros where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return sizes["MemAvailable"], sizes["MemTotal"]
    with suppress(OSError, ValueError, AttributeError):
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
        return total, total
    return 0, 0
