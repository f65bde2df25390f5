"""What `quality.py` has found: its file, the comparison, the tables and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from common import Check, Report, Table

# isort: split
from izograf.core.storage import write_atomically
from izograf.diffusion.samplers import SAMPLERS
from izograf.metrics.intervals import jackknife_interval
from izograf.schema.errors import InvalidInput

COSTED = ("dpm-solver++", "ddim")  # samplers measured on every backend
BETTER, WORSE = ("dpm-solver++", 10), ("ddim", 50)
Result = dict[str, Any]


class Cell(NamedTuple):
    """One measurement: a model on a backend; a student, asked as its card says, has no sampler."""

    model: str
    backend: str
    sampler: str = ""
    budget: int = 0


def difference(first: Result, second: Result) -> tuple[float, tuple[float, float]]:
    """`first` minus `second`, and its 95 % interval: a jackknife over the groups of both at once.

    Sample i of both has one seed and class and lies in the same group, so what the two have in
    common cancels.
    """
    value = first["value"] - second["value"]
    pairs = zip(first["replicates"], second["replicates"], strict=True)
    return value, jackknife_interval(value, [a - b for a, b in pairs])


class Results:
    """Cells and the settings they were measured under, kept in a JSON file."""

    def __init__(self, path: Path, settings: Result, cells: list[Result]) -> None:
        self.path = path
        self.settings = settings
        self.cells = cells

    @classmethod
    def read(cls, path: Path) -> Results:
        """What `path` holds; nothing where there is no such file."""
        if not path.exists():
            return cls(path, {}, [])
        held = json.loads(path.read_text(encoding="utf-8"))
        return cls(path, held["settings"], held["cells"])

    def begin(self, settings: Result) -> None:
        """Goes on under these settings.

        Raises:
            InvalidInput: what is known was measured under others; says which.
        """
        if self.cells and (
            differ := [key for key in settings if self.settings.get(key) != settings[key]]
        ):
            was = "; ".join(f"{key} {self.settings.get(key)!r}" for key in differ)
            raise InvalidInput(
                f"{self.path} was measured with {was}, unlike now: name another file by --results."
            )
        self.settings = settings

    def add(self, result: Result) -> None:
        """Keeps a result, in the place of the same cell's older one, on disk too."""
        self.cells = [c for c in self.cells if cell_of(c) != cell_of(result)] + [result]
        lines = ",\n".join(json.dumps(cell, allow_nan=False) for cell in self.cells)
        settings = json.dumps(self.settings, ensure_ascii=False, indent=1)
        write_atomically(self.path, f'{{"settings": {settings},\n"cells": [\n{lines}\n]}}\n')

    def of_samplers(self, backend: str | None = None) -> list[Result]:
        """Cells of the model itself on a backend, its own by default."""
        wanted = (self.settings["model"], backend or self.settings["backend"])
        return [c for c in self.cells if c["sampler"] and (c["model"], c["backend"]) == wanted]


def report(results: Results) -> Report:
    """Tables, notes and the check of what has been found."""
    cells, settings = results.cells, results.settings
    told = Report("quality", ", ".join(dict.fromkeys(cell["precision"] for cell in cells)))
    score = settings["name"]
    own = {(c["sampler"], c["budget"]): c for c in results.of_samplers()}
    budgets = sorted({budget for _, budget in own})
    quality = Table(f"{score} of {settings['model']} on {settings['backend']}, by evaluations")
    for name in dict.fromkeys(sampler for sampler, _ in own):
        values = {str(b): shown(own[name, b]) if (name, b) in own else "-" for b in budgets}
        quality.rows.append({"sampler": name, **values})
    costs = Table("costs per picture")
    for c in cells:
        row = {key: c[key] or "-" for key in ("model", "backend", "sampler", "evaluations")}
        joules = "-" if c["joules"] is None else c["joules"]
        costs.rows.append({**row, "s": c["seconds"], "J": joules, score: shown(c)})
    told.tables += [table for table in (quality, costs) if table.rows]
    told.notes += [
        f"{settings['num_samples']:,} pictures a cell, the same seeds, against "
        f"{settings['num_real']:,} of {settings['split']}; held-out pictures have "
        f"{settings['floor']:.4g}, noise {settings['ceiling']:.4g}.",
        f"Energy: {'; '.join(dict.fromkeys(cell['energy'] for cell in cells))}; costs were "
        f"measured on: {settings['machine']}.",
        "Guidance is the card's default; a guided evaluation, computed twice, counts once.",
    ]
    if BETTER in own and WORSE in own:
        value, (low, high) = difference(own[BETTER], own[WORSE])
        name = f"{BETTER[0]} at {BETTER[1]} minus {WORSE[0]} at {WORSE[1]}, {score}"
        told.notes.append(f"{name}: {value:.1f}, 95 % {low:.1f} to {high:.1f} (paired)")
        told.checks.append(
            Check(f"{name}, lower end of the 95 % interval", low, 0, at_most=True, unit="")
        )
    return told


def shown(cell: Result) -> str:
    low, high = cell["ci95"]
    return f"{cell['value']:.4g} +- {(high - low) / 2:.2g}"


def draw(results: Results, folder: Path) -> list[Path]:
    """The figures of what has been found."""
    import quality_plots

    settings, drawn = results.settings, []
    about = (
        f"{settings['model']}: {settings['num_samples']:,} pictures a point, the same seeds, "
        f"guidance as on the card; bars: 95 %; held-out photographs: {settings['floor']:,.0f}"
    )
    if own := results.of_samplers():
        drawn.append(folder / "quality-steps.svg")
        quality_plots.draw_evaluations(
            own, drawn[-1], score=settings["name"], about=about,
            stochastic={name for name in SAMPLERS if SAMPLERS[name].order is None},
        )  # fmt: skip
    costed = [
        cell
        for cell in results.cells
        if cell["joules"] is not None and (not cell["sampler"] or cell["sampler"] in COSTED)
    ]
    if costed:
        method = costed[0]["energy"]  # joules of several methods do not share an axis
        drawn.append(folder / "quality-joules.svg")
        quality_plots.draw_joules(
            [cell for cell in costed if cell["energy"] == method], drawn[-1],
            score=settings["name"], method=method,
            about=f"{about}\nat the points: evaluations; stars: other models, as their cards ask",
        )  # fmt: skip
    return drawn


def cell_of(result: Result) -> Cell:
    return Cell(*(result[key] for key in Cell._fields))
