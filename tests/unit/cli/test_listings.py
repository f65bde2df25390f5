"""`models`, `recipes`, `doctor` and `scan`: for people, and as JSON arrays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


def rows(izograf, *arguments: object) -> list[dict]:
    outcome = izograf(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    parsed = json.loads(outcome.out)
    assert isinstance(parsed, list)
    return parsed


def test_recipes_are_listed_with_paper_and_one_line(izograf) -> None:
    found = rows(izograf, "recipes")
    assert {"diffusion-unet", "dcgan"} <= {row["name"] for row in found}
    text = izograf("recipes").out
    for row in found:
        assert row["summary"]
        assert row["paper"]
        assert row["name"] in text
        assert row["paper"] in text
        assert f"objectives: {', '.join(row['objectives'])}" in text
    assert {"hinge", "flow"} <= {name for row in found for name in row["objectives"]}


def test_doctor_tells_the_same_as_text_and_as_json(izograf) -> None:
    found = rows(izograf, "doctor")
    names = {row["name"] for row in found}
    wanted = {"torch", "device", "precision", "threads", "memory", "disk", "cache", "models"}
    assert wanted <= names
    text = izograf("doctor").out
    assert all(row["name"] in text for row in found)


def test_doctor_names_a_broken_model_and_what_is_wrong(izograf, here) -> None:
    broken = here / "runs" / "broken"
    broken.mkdir(parents=True)
    (broken / "card.json").write_text("{")
    row = next(row for row in rows(izograf, "doctor") if row["name"] == "broken model")
    assert row["value"] == str(Path("runs") / "broken")
    assert "not a model card" in row["advice"]


def test_own_models_are_found_in_runs_and_in_the_models_folders(
    izograf, here, gan, monkeypatch
) -> None:
    shutil.copytree(gan, here / "runs" / "mine")
    monkeypatch.setenv("IZOGRAF_MODELS", str(gan.parent))
    own = {row["name"]: row for row in rows(izograf, "models") if not row["bundled"]}
    assert set(own) == {"mine", "gan"}
    card = json.loads((gan / "card.json").read_text())
    for row in own.values():
        assert row["classes"] == card["classes"]
        assert row["weights"] == card["weights"]
        assert row["image_size"] == 16
    text = izograf("models").out
    assert "forest лес" in text
    assert "sea море" in text


def test_one_model_is_shown_as_its_whole_card(izograf, gan) -> None:
    card = json.loads((gan / "card.json").read_text())
    assert json.loads(izograf("models", gan).out) == card
    assert rows(izograf, "models", gan) == [card]


def test_a_broken_model_is_listed_with_its_problem(izograf, here, gan) -> None:
    shutil.copytree(gan, here / "runs" / "good")
    shutil.copytree(gan, here / "runs" / "bad")
    (here / "runs" / "bad" / "card.json").write_text("[]")
    own = {row["name"]: row for row in rows(izograf, "models") if not row["bundled"]}
    assert "problem" not in own["good"]
    assert "JSON object was expected" in own["bad"]["problem"]
    assert "unusable" in izograf("models").out


@pytest.mark.parametrize("metric", [5, {"name": "x"}, {"name": "x", "value": "high"}])
def test_odd_scores_on_a_card_do_not_break_the_list(izograf, here, gan, metric) -> None:
    card = json.loads((gan / "card.json").read_text()) | {"metrics": [metric]}
    (gan / "card.json").write_text(json.dumps(card))
    shutil.copytree(gan, here / "runs" / "odd")
    outcome = izograf("models")
    assert outcome.code == 0
    assert "odd" in outcome.out


def test_scan_counts_classes_and_names_what_was_skipped(izograf, here, pictures) -> None:
    data = shutil.copytree(pictures, here / "data")
    (data / "train" / "sea" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (row,) = rows(izograf, "scan", "--data", data, "--image-size", 16)
    assert row["name"] == "data"
    assert row["read"] == 56
    assert row["per_class"] == {"forest": 28, "sea": 28}
    assert [name for name, _ in row["skipped"]] == ["train/sea/broken.png"]
    text = izograf("scan", "--data", data, "--image-size", 16).out
    assert "sea (sea, море)" in text
    assert "Skipped train/sea/broken.png: " in text


def test_scan_can_be_strict(refused, here, pictures) -> None:
    data = shutil.copytree(pictures, here / "data")
    (data / "train" / "sea" / "broken.png").write_bytes(b"no picture")
    sentence = refused("scan", "--data", data, "--image-size", 16, "--strict")
    assert "broken.png" in sentence


def test_doctor_names_the_backend_that_auto_is_and_those_there_are(izograf, monkeypatch) -> None:
    from izograf.core.backends import BACKENDS, OPENVINO

    for missing, best in (("", "openvino"), ("gone", "eager")):
        monkeypatch.setattr(type(BACKENDS[OPENVINO]), "missing", lambda _, missing=missing: missing)
        (row,) = [row for row in rows(izograf, "doctor") if row["name"] == "backend"]
        assert row["value"].startswith(f"{best} (of ")
        there = row["value"].partition("(of ")[2].rstrip(")").split(", ")
        assert ("openvino" in there) == (not missing)
