"""The comparison of samplers is paired and resumable, and its figures are the same every time."""

from __future__ import annotations

import importlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from izograf.core.rng import SeededNoise, generator
from izograf.core.types import Condition
from izograf.data.dataset import ImageSet
from izograf.data.scan import ScanReport
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import SCHEDULES
from izograf.generators.diffusion_options import diffusion_options
from izograf.metrics.evaluate import Reference
from izograf.metrics.extractors import open_extractor
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput

SIZE, COUNT = 8, 40
CARD = ModelCard("m", "fake", {}, SIZE, options=diffusion_options(), weights={"w": "1"})


@pytest.fixture
def quality() -> Any:
    return importlib.import_module("quality")


@pytest.fixture
def found() -> Any:
    return importlib.import_module("quality_results")


class Fake:
    """Noise that loses contrast with too few steps; a model without options takes none."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self.asked: list[dict[str, Any]] = []

    def sample(
        self, condition: Condition, seeds: Sequence[int], *, options: Mapping[str, Any]
    ) -> Tensor:
        del condition
        self.asked.append(dict(options))
        contrast = 1 - 1 / (1 + options.get("num_inference_steps", 1))
        return (0.4 * contrast * SeededNoise((3, SIZE, SIZE), seeds)()).clamp(-1, 1)


def pictures(count: int) -> ImageSet:
    noise = torch.randn(count, 3, SIZE, SIZE, generator=generator(0, "real"))
    images = (127.5 + 50 * noise).clamp(0, 255).byte()
    names, none = tuple(map(str, range(count))), torch.full((count,), -1)
    return ImageSet(images, none, (), names, "noise", "train", "", ScanReport(count))


@pytest.fixture
def measuring(quality: Any) -> Any:
    train, extractor = pictures(100), open_extractor("random-conv")
    reference = Reference.measure(train.images, train.images, extractor, split="noise")
    return quality.Measuring(reference, extractor, train, COUNT, seed=0, watts_per_core=6.0)


@pytest.fixture
def models(quality: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    """Models that `load_generator` finds, by name."""
    fakes = {"m": Fake(CARD), "gan": Fake(replace(CARD, name="gan", options=()))}
    place = SimpleNamespace(device="cpu", precision="fp32")
    monkeypatch.setattr(quality, "load_generator", lambda name, **_: (fakes[name], place))
    return fakes


def cells(found: Any, *budgets: int) -> list[Any]:
    return [found.Cell("m", "eager", name, b) for name in ("ddim", "heun") for b in budgets]


def test_every_sampler_on_the_models_own_backend_and_some_on_all(quality: Any) -> None:
    planned = quality.plan(
        "m", "fast", samplers=["a", "b", "c"], costed=["b"], budgets=[5, 10],
        backends=["eager", "fast"], students=["gan"],
    )  # fmt: skip
    told = [(c.model, c.backend, c.sampler) for c in planned if c.budget != 10]
    assert told == [
        ("m", "fast", "a"), ("m", "fast", "b"), ("m", "fast", "c"), ("m", "eager", "b"),
        ("gan", "eager", ""), ("gan", "fast", ""),
    ]  # fmt: skip
    assert len(planned) == len(set(planned)) == 2 * 4 + 2


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("budget", [5, 10, 20, 50])
def test_no_sampler_gets_more_evaluations_than_asked(
    quality: Any, found: Any, name: str, budget: int
) -> None:
    options = quality.options_of(found.Cell("m", "eager", name, budget))
    assert budget - 1 <= quality.work_of(CARD, options)["evaluations"] <= budget


def test_what_is_left_out_as_a_twin_is_one(quality: Any) -> None:
    assert quality.TWIN == "euler"
    assert "euler" not in quality.parse([]).samplers
    assert "ddim" in quality.parse([]).samplers

    def denoise(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        del condition
        return torch.tanh(x) / (1 + sigma[:, None, None, None])

    sigmas = SCHEDULES["karras"](8, 0.02, 80.0)
    x = 80 * torch.randn(2, 3, 4, 4, generator=generator(0), dtype=torch.float64)
    drawn = [
        SAMPLERS[name](denoise, x, sigmas, Condition(), lambda: x, lambda *_: None)
        for name in ("euler", "ddim")
    ]
    assert torch.allclose(*drawn, rtol=0, atol=1e-9)


def test_a_cell_is_measured_once_for_the_same_weights(
    quality: Any, found: Any, measuring: Any, models: dict[str, Fake], tmp_path: Path
) -> None:
    path = tmp_path / "quality.json"
    results = found.Results.read(path)
    results.begin(measuring.settings("m", "eager", "cpu"))
    for result in quality.measure_all(cells(found, 5), results.cells, measuring):
        results.add(result)
    again = found.Results.read(path)  # interrupted here, say
    assert again.cells == results.cells
    again.begin(measuring.settings("m", "eager", "cpu"))
    more = list(quality.measure_all(cells(found, 5, 10), again.cells, measuring))
    assert [(m["sampler"], m["budget"]) for m in more] == [("ddim", 10), ("heun", 10)]
    assert [m["steps"] for m in more] == [10, 5]

    models["m"].card = replace(CARD, weights={"w": "2"})
    for result in quality.measure_all(cells(found, 5), again.cells, measuring):
        again.add(result)
    assert [cell["weights"] for cell in again.cells] == ["2", "2"]


@pytest.mark.usefixtures("models")
def test_one_cell_holds_its_number_its_work_and_its_cost(
    quality: Any, found: Any, measuring: Any
) -> None:
    (student,) = quality.measure_all([found.Cell("gan", "eager")], [], measuring)
    assert (student["steps"], student["evaluations"]) == (1, 1)
    few, many = quality.measure_all(cells(found, 2, 50)[:2], [], measuring)
    low, high = many["ci95"]
    assert low < many["value"] < high
    assert many["value"] < few["value"] < student["value"]
    assert many["joules"] > 0
    assert many["energy"].startswith(("measured", "estimated"))
    json.dumps(many, allow_nan=False)


def test_results_of_other_settings_are_not_mixed(
    found: Any, measuring: Any, tmp_path: Path
) -> None:
    settings = measuring.settings("m", "eager", "cpu")
    results = found.Results(tmp_path / "quality.json", settings, [{}])
    results.begin(settings)
    with pytest.raises(InvalidInput, match="was measured with num_samples 40, unlike now"):
        results.begin({**settings, "num_samples": 5000})


def test_pictures_of_two_sizes_are_not_compared(quality: Any) -> None:
    quality.check_fits(CARD, pictures(2))
    with pytest.raises(InvalidInput, match="64 px"):
        quality.check_fits(replace(CARD, image_size=64), pictures(2))


def test_the_difference_is_paired(quality: Any, found: Any, measuring: Any) -> None:
    noise = SeededNoise((3, SIZE, SIZE), range(400))()
    own = SeededNoise((3, SIZE, SIZE), range(400, 800))()

    def cell(images: Tensor) -> Any:
        return quality.quality_of((127.5 + 60 * images).clamp(0, 255).byte(), measuring)

    first = cell(noise)
    assert found.difference(first, first) == (0, (0, 0))
    near = cell(noise + 0.05 * own)
    value, (low, high) = found.difference(first, near)
    assert value == first["value"] - near["value"]
    assert low < value < high
    apart = [b - a for a, b in (first["ci95"], near["ci95"])]
    assert high - low < 0.3 * math.hypot(*apart)  # what two unpaired intervals would give
    _, (low, high) = found.difference(first, cell(0.5 * noise))
    assert high < 0  # half the contrast is far worse, beyond doubt
    assert low < high


def result(sampler: str, budget: int, value: float, **more: Any) -> dict[str, Any]:
    return {
        "model": "m", "backend": "eager", "sampler": sampler, "budget": budget, "value": value,
        "ci95": [0.95 * value, 1.05 * value], "joules": 0.1 * max(1, budget), "seconds": 0.1,
        "replicates": [value - 1, value, value + 1], "precision": "fp32", "evaluations": budget,
        "energy": "estimated: by hand", **more,
    }  # fmt: skip


def made_up(found: Any, path: Path, better: float) -> Any:
    settings = {
        "name": "FD-x", "model": "m", "backend": "eager", "num_samples": 9, "num_real": 9,
        "split": "s", "floor": 60.0, "ceiling": 7000.0, "machine": "here",
    }  # fmt: skip
    of = [result("dpm-solver++", 10, better), result("ddim", 50, 700.0), result("heun", 50, 690.0)]
    of += [result("ddim", 50, 701.0, backend="fast"), result("", 0, 900.0, model="gan")]
    of.append(result("ddpm", 10, 2000.0, joules=None))
    return found.Results(path, settings, of)


@pytest.mark.parametrize(("better", "kept"), [(690.0, True), (701.0, True), (710.0, False)])
def test_the_bound_is_missed_only_beyond_doubt(
    found: Any, tmp_path: Path, better: float, kept: bool
) -> None:
    results = made_up(found, tmp_path, better)
    for value in (r for r in results.cells if r["sampler"] == "ddim"):
        value["replicates"] = [700.0, 700.0, 700.0]  # so that the interval is that of the other
    (check,) = found.report(results).checks
    assert check.kept is kept


def test_figures_are_equal_byte_for_byte_and_tell_no_date(found: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = [found.draw(made_up(found, tmp_path, 690.0), tmp_path / name) for name in ("a", "b")]
    assert [path.name for path in drawn[0]] == ["quality-steps.svg", "quality-joules.svg"]
    for first, second in zip(*drawn, strict=True):
        assert first.read_bytes() == second.read_bytes()
        assert "dc:date" not in first.read_text()
        assert ElementTree.parse(first).getroot().tag.endswith("svg")
        assert first.stat().st_size < 150_000


@given(st.floats(1e-4, 1e4), st.floats(1.05, 1e4))
def test_an_axis_has_some_round_ticks_and_not_too_many(low: float, factor: float) -> None:
    pytest.importorskip("matplotlib")
    ticks = importlib.import_module("quality_plots").round_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 12
    assert all(low <= tick <= low * factor for tick in ticks)
    assert ticks == sorted(ticks)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_labels_do_not_overlap(wanted: list[float]) -> None:
    pytest.importorskip("matplotlib")
    spread = importlib.import_module("quality_plots").spread
    places, gap = spread(wanted, 0.05), 0.05
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    ordered = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for before, after in itertools.pairwise(ordered):
        assert places[after] - places[before] >= gap - 1e-9
    if len(wanted) == 1:
        assert places == wanted


def test_nothing_to_draw_is_one_sentence(quality: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds nothing yet: say what to measure by --data"):
        quality.main(quality.parse(["--results", str(tmp_path / "none.json")]))
