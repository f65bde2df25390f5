"""Styles in the service: the interface, and the page with and without scripts."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest
from api_support import assert_problem
from fastapi.testclient import TestClient
from pages_support import browser, chromium

from izograf.schema.styles import bundled_styles
from izograf.service.context import Service


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text('[glow]\npositive = "{prompt}, <glow>"\n')
    monkeypatch.setenv("IZOGRAF_STYLES", str(file))
    return file


def test_styles_are_listed_with_both_languages(client: TestClient) -> None:
    answer = client.get("/api/v1/styles").json()
    assert answer["problem"] is None
    found = {item["name"]: item for item in answer["items"]}
    assert list(found) == [*bundled_styles(), "glow"]
    assert found["lubok"]["title"] == {"en": "Lubok", "ru": "Лубок"}
    assert [name for name, item in found.items() if not item["bundled"]] == ["glow"]
    assert all(item["applied"] is None for item in found.values())


def test_a_prompt_is_put_into_a_style(client: TestClient) -> None:
    asked = {"prompt": "заяц", "negative_prompt": "люди"}
    applied = client.get("/api/v1/styles/noir", params=asked).json()["applied"]
    words, away = bundled_styles()["noir"].apply("заяц", "люди")
    assert applied == {"prompt": words, "negative_prompt": away}
    listed = client.get("/api/v1/styles", params=asked).json()["items"]
    assert applied in [item["applied"] for item in listed]


def test_refusals(client: TestClient) -> None:
    sentence = assert_problem(client.get("/api/v1/styles/cinematik"), 404, "not_found")
    assert "cinematic" in sentence
    too_long = client.get("/api/v1/styles", params={"prompt": "x" * 2001})
    assert_problem(too_long, 422, "invalid_input")


def test_a_broken_file_is_told_and_leaves_the_bundled(
    client: TestClient, service: Service, own: Path
) -> None:
    own.write_text('[glow]\npositive = "glow"')
    answer = client.get("/api/v1/styles").json()
    assert [item["name"] for item in answer["items"]] == list(bundled_styles())
    assert "'glow'" in answer["problem"]
    assert str(own.parent) not in answer["problem"]
    with browser(service) as page:
        html = unescape(page.get("/styles").text)
    assert answer["problem"] in html
    assert "Film noir" in html


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_page_shows_every_style_in_the_readers_language(
    service: Service, language: str
) -> None:
    with browser(service, language) as page:
        html = unescape(page.get("/styles").text)
        assert '<a href="/styles">' in page.get("/help").text
    for style in bundled_styles().values():
        assert f"<h2>{style.title[language]}</h2>" in html
        assert style.negative[language] in html


def test_the_page_puts_a_prompt_into_every_style(service: Service) -> None:
    with browser(service, "en") as page:
        answer = page.get("/styles", params={"prompt": "река <b>"})
    assert "<b>" not in answer.text
    html = unescape(answer.text)
    for style in bundled_styles().values():
        assert f'data-copy="{style.apply("река <b>")[0]}"' in html
    assert html.count('<strong class="style-prompt">река <b></strong>') == len(bundled_styles()) + 1


def test_the_words_of_a_style_are_copied(service: Service) -> None:
    with chromium(service, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto("/styles?prompt=a+hare")
        page.click("#style-lubok [data-copy]")
        page.wait_for_selector(".toast")
        copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == bundled_styles()["lubok"].apply("a hare")[0]
