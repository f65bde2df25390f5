"""The two figures of `quality.py`, as SVG files that are equal byte for byte for equal results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# Okabe & Ito's colours, which the colour-blind tell apart; their yellow is too light for lines.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v")
GREY = "#5F5F5F"
STYLE: Any = {
    "svg.hashsalt": "izograf",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}
SIZE = (7.3, 4.6)  # inches: 700 pixels of a page are 525 points
MANTISSAS = (  # of round ticks, from few to many in a decade
    (1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7),
    *(tuple(1 + i / n for i in range(9 * n)) for n in (1, 2, 5, 10)),
)  # fmt: skip

Row = Mapping[str, Any]


def draw_evaluations(
    rows: Sequence[Row], path: Path, *, stochastic: set[str], score: str, about: str
) -> None:
    """Quality against network evaluations, a line for each sampler; dashed if it draws noise.

    Args:
        rows: of one model and backend, with sampler, budget, value, ci95.
        path: the SVG to write.
        stochastic: names of samplers.
        score: name of the number, for the axis.
        about: what was measured, in small print.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("Quality against evaluations of the denoiser", about)
        low, high = _log_axis(axes, "y", [b for row in rows for b in _bounds(row)])
        budgets = sorted({row["budget"] for row in rows})
        _ticks(axes, "x", budgets)
        axes.set_xlim(budgets[0] / 1.12, budgets[-1] * 1.06)
        names = list(dict.fromkeys(row["sampler"] for row in rows))
        solid = [name for name in names if name not in stochastic]
        dashed = [name for name in names if name in stochastic]
        ends = []
        for group, line, marker in ((solid, "-", "o"), (dashed, (0, (4, 2)), "s")):
            for index, name in enumerate(group):
                colour = COLOURS[index % len(COLOURS)]
                of = sorted((r for r in rows if r["sampler"] == name), key=lambda r: r["budget"])
                _line(axes, of, "budget", colour, line, marker)
                ends.append((name, of[-1]["budget"], of[-1]["value"], colour))
        _label_ends(axes, ends, low, high)
        axes.set_xlabel("evaluations of the denoiser")
        axes.set_ylabel(f"{score} (lower is better)")
        _save(figure, path)


def draw_joules(rows: Sequence[Row], path: Path, *, score: str, method: str, about: str) -> None:
    """Quality against joules per picture: a line for each sampler and backend, stars for students.

    Args:
        rows: with model, sampler (empty for a student), backend, budget, value, ci95, joules.
        path: the SVG to write.
        score: name of the number, for the axis.
        method: how the joules came about, for the axis.
        about: what was measured, in small print.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("Quality against energy", about, width=0.62)
        low, high = _log_axis(axes, "y", [b for row in rows for b in _bounds(row)])
        _log_axis(axes, "x", [row["joules"] for row in rows])
        samplers = list(dict.fromkeys(row["sampler"] for row in rows if row["sampler"]))
        backends = list(dict.fromkeys(row["backend"] for row in rows))
        ends = []
        for i, backend in enumerate(backends):
            colour = COLOURS[i % len(COLOURS)]
            of_backend = [row for row in rows if row["backend"] == backend]
            for j, sampler in enumerate(samplers):
                of = [row for row in of_backend if row["sampler"] == sampler]
                of.sort(key=lambda row: row["budget"])
                if of:
                    _line(axes, of, "joules", colour, "-", MARKERS[j % len(MARKERS)])
                    name = f"{sampler}, {backend}"
                    ends.append((name, of[-1]["joules"], of[-1]["value"], colour))
                for row in () if i else of:  # the others cost more or less, in the same order
                    _beside(axes, row, str(row["budget"]), colour)
            for row in of_backend:
                if not row["sampler"]:
                    axes.plot(row["joules"], row["value"], "*", color=colour, markersize=12)
                    _beside(axes, row, f"{row['model']}, {backend}", colour, above=i % 2 == 0)
        _label_ends(axes, ends, low, high)
        axes.set_xlabel(f"joules per picture ({method})")
        axes.set_ylabel(f"{score} (lower is better)")
        _save(figure, path)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions in [0,1] close to the wanted ones, in their order, at least `gap` apart.

    Where they do not all fit, the gap is what fits.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    up, down = [0.0] * len(wanted), [0.0] * len(wanted)
    for k, i in enumerate(order):
        lowest = up[order[k - 1]] + gap if k else 0.0
        up[i] = max(wanted[i], lowest)
    for k, i in reversed(list(enumerate(order))):
        highest = down[order[k + 1]] - gap if k + 1 < len(order) else 1.0
        down[i] = min(wanted[i], highest)
    # the one keeps the lower end, the other the upper: their mean keeps the gaps
    places = [min(max((a + b) / 2, 0.0), 1.0) for a, b in zip(up, down, strict=True)]
    for k, i in enumerate(order[1:], start=1):
        places[i] = max(places[i], places[order[k - 1]] + gap)
    for k in range(len(order) - 1, -1, -1):
        ceiling = 1 - (len(order) - 1 - k) * gap
        places[order[k]] = min(places[order[k]], ceiling)
    return places


def _axes(title: str, about: str, *, width: float = 0.68) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, facecolor="white")
    axes = figure.add_axes((0.09, 0.12, width, 0.73))
    figure.text(0.02, 0.945, title, fontsize=12, fontweight="bold")
    figure.text(0.02, 0.925, about, fontsize=8, color=GREY, va="top")
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _bounds(row: Row) -> tuple[float, float]:
    """The interval, kept above a tenth of the value: it is drawn on a logarithmic axis."""
    low, high = row["ci95"]
    return max(low, row["value"] / 10), high


def _line(axes: Axes, rows: Sequence[Row], x: str, colour: str, line: Any, marker: str) -> None:
    places, values = [row[x] for row in rows], [row["value"] for row in rows]
    axes.plot(
        places, values, color=colour, linestyle=line, marker=marker, markersize=4, linewidth=1.4
    )
    for place, row in zip(places, rows, strict=True):
        axes.plot([place, place], _bounds(row), color=colour, linewidth=0.8)


def _beside(axes: Axes, row: Row, text: str, colour: str, *, above: bool = True) -> None:
    axes.annotate(
        text, (row["joules"], row["value"]), (4, 4 if above else -11), textcoords="offset points",
        fontsize=7.5, color=colour,
    )  # fmt: skip


def _label_ends(
    axes: Axes, ends: Sequence[tuple[str, float, float, str]], low: float, high: float
) -> None:
    """Names at the right, each as near to the end of its line as its neighbours let it."""
    wanted = [math.log(value / low) / math.log(high / low) for _, _, value, _ in ends]
    for (name, x, value, colour), place in zip(ends, spread(wanted, 0.048), strict=True):
        axes.annotate(
            name, (x, value), (1.035, place), textcoords="axes fraction", color=colour, va="center",
            arrowprops={
                "arrowstyle": "-", "color": colour, "linewidth": 0.5, "relpos": (0, 0.5),
                "shrinkA": 1, "shrinkB": 3,
            },
        )  # fmt: skip


def round_ticks(low: float, high: float) -> list[float]:
    """At least four round numbers between two positive ones, where there are so many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for mantissas in MANTISSAS:
        ticks = [m * 10.0**k for k in decades for m in mantissas if low <= m * 10.0**k <= high]
        if len(ticks) >= 4:
            break
    return ticks or [math.sqrt(low * high)]


def _log_axis(axes: Axes, which: str, values: Sequence[float]) -> tuple[float, float]:
    """A logarithmic axis around positive values, with round ticks; returns its limits."""
    margin = max(1.05, (max(values) / min(values)) ** 0.05)
    low, high = min(values) / margin, max(values) * margin
    _ticks(axes, which, round_ticks(low, high))
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    return low, high


def _ticks(axes: Axes, which: str, ticks: Sequence[float]) -> None:
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
