"""`izograf styles`: for people in either language, and as a JSON array."""

from __future__ import annotations

import json

import pytest

from izograf.schema.styles import bundled_styles


@pytest.fixture(autouse=True)
def own(here, monkeypatch: pytest.MonkeyPatch):
    file = here / "mine.toml"
    file.write_text('[glow]\ntitle = "Glow"\npositive = "{prompt}, glow"\n')
    monkeypatch.setenv("IZOGRAF_STYLES", str(file))
    return file


def test_every_style_is_listed_with_its_words(izograf) -> None:
    for language in ("en", "ru"):
        outcome = izograf("styles", "--language", language)
        assert outcome.code == 0, outcome.err
        for style in bundled_styles().values():
            for words in (style.title, style.positive, style.negative):
                assert words[language] in outcome.out
    assert "Glow  (your own)" in izograf("styles").out
    assert izograf("styles").out == izograf("styles", "--language", "en").out


def test_the_json_has_both_languages(izograf) -> None:
    rows = json.loads(izograf("styles", "--json").out)
    assert [row["name"] for row in rows] == [*bundled_styles(), "glow"]
    assert rows[0]["title"] == {"en": "Enhance", "ru": "Улучшить"}
    assert rows[-1] == {
        "name": "glow", "title": {"en": "Glow", "ru": "Glow"}, "bundled": False,
        "positive": {"en": "{prompt}, glow", "ru": "{prompt}, glow"},
        "negative": {"en": "", "ru": ""},
    }  # fmt: skip


def test_one_style_is_shown_by_its_title(izograf) -> None:
    (row,) = json.loads(izograf("styles", "лубок", "--json").out)
    assert row["name"] == "lubok"
    assert izograf("styles", "glow").out == "glow  Glow  (your own)\n      + {prompt}, glow\n"


def test_refusals_are_one_sentence(refused, own) -> None:
    assert "did you mean origami" in refused("styles", "origamy")
    assert "choose en or ru" in refused("styles", "--language", "de")
    own.write_text('[glow]\npositive = "glow"\n')
    sentence = refused("styles")
    assert "mine.toml" in sentence
    assert "'glow'" in sentence
