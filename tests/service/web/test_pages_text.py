"""Prompts on the pages, without scripts: the form, its errors, the picture, the way back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from pages_support import browser
from text_support import READER, with_reader
from web_support import wait_until_ended

from izograf.schema.library import ZOO, read_card
from izograf.schema.styles import bundled_styles
from izograf.service.context import Service

EVIL = '</textarea><script>alert("1")</script>'
FORM = {"model": READER, "number": "1", "seed": "7", "prompt": "a sea", "negative": "", "style": ""}


@pytest.fixture
def page(service: Service) -> Iterator[TestClient]:
    with browser(with_reader(service)) as client:
        yield client


def send(page: TestClient, **fields: str) -> Any:
    return page.post("/generate", data=FORM | fields, follow_redirects=False)


def made(page: TestClient, **fields: str) -> dict[str, Any]:
    """The job of a form that was sent and done."""
    answer = send(page, **fields)
    assert answer.status_code == 303, answer.text
    found = re.search(r"job=(job_[0-9a-z]{26})", answer.headers["location"])
    assert found
    job = wait_until_ended(page, found[1])
    assert job["status"] == "done"
    return job


def typed(html: str) -> dict[str, str]:
    """The prompt's fields as a browser would send them."""
    prompt = re.search(r'<textarea[^>]*name="prompt"[^>]*>(.*?)</textarea>', html, re.DOTALL)
    negative = re.search(r'<input[^>]*name="negative"[^>]*value="([^"]*)"', html)
    assert prompt
    assert negative
    chosen = {}
    for name, options in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', html, re.S):
        selected = re.search(r'<option value="([^"]*)"[^>]*\sselected', options)
        chosen[name] = selected[1] if selected else ""
    return {"prompt": unescape(prompt[1]), "negative": unescape(negative[1]), **chosen}


def test_a_reader_has_a_box_for_the_prompt_in_place_of_classes(page: TestClient) -> None:
    html = page.get(f"/?model={READER}").text
    assert typed(html)["prompt"] == ""
    assert 'name="class"' not in html
    assert 'name="option.guidance_scale"' in html
    for style in bundled_styles().values():
        assert f'<option value="{style.name}">{style.title["en"]}</option>' in unescape(html)
    assert 'name="attribute.sky"' in html, "the model has words for every sky"
    assert 'name="attribute.brightness"' not in html, "and for no brightness"
    assert 'name="prompt"' not in page.get("/?model=scenes").text


def test_the_box_speaks_the_readers_language(service: Service) -> None:
    with browser(with_reader(service), "ru") as page:
        html = unescape(page.get(f"/?model={READER}").text)
    assert bundled_styles()["noir"].title["ru"] in html
    assert re.search(r'<option value="orange">[^<]*[а-я]', html)


def test_from_the_form_to_the_picture(page: TestClient) -> None:
    job = made(page, prompt=" a sea ", negative="forest", **{"attribute.sky": "orange"})
    assert job["condition"] == {
        "type": "text", "prompt": "a sea, with an orange sky", "negative_prompt": "forest",
    }  # fmt: skip
    html = page.get(f"/?job={job['id']}").text
    assert 'alt="A sea, with an orange sky, seed 7"' in html
    picture = unescape(page.get(f"/images/{job['images'][0]['id']}").text)
    assert "<h1>a sea, with an orange sky</h1>" in picture.replace("<h1>A sea", "<h1>a sea")


@pytest.mark.parametrize("style", ["", "noir"])
def test_the_link_again_fills_in_the_same_prompt(page: TestClient, style: str) -> None:
    negative = "" if style else "forest & more"
    job = made(page, prompt="море & лес", negative=negative, style=style)
    image = job["images"][0]["id"]
    links = re.findall(r'href="(/\?[^"]*prompt=[^"]*)"', page.get(f"/images/{image}").text)
    assert links
    for address in (unescape(links[0]), f"/?from={image}"):
        html = page.get(address).text
        fields = typed(html)
        assert (fields["prompt"], fields["negative"]) == ("море & лес", negative)
        assert fields["style"] == style
        assert re.search(r'name="seed"[^>]*value="7"', html)
    again = made(page, **{name: fields[name] for name in ("prompt", "negative", "style")})
    assert again["condition"] == job["condition"]
    assert again["images"][0]["sha256"] == job["images"][0]["sha256"]


def test_the_form_of_the_last_prompt_comes_back(page: TestClient) -> None:
    job = made(page, prompt="a forest", negative="sea")
    for address in ("/", f"/?job={job['id']}&keep=1"):
        fields = typed(page.get(address).text)
        assert (fields["prompt"], fields["negative"]) == ("a forest", "sea")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt": ""}, "prompt-error"),
        ({"prompt": "  \n "}, "prompt-error"),
        ({"style": "noire"}, "Unknown style 'noire': did you mean noir"),
        ({"attribute.sky": "plaid"}, "Unknown value 'plaid' of sky"),
        ({"number": "many"}, "A whole number from 1 to 64."),
        ({"option.guidance_scale": "much"}, "A number from 0 to 20."),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(
    page: TestClient, wrong: dict[str, str], said: str
) -> None:
    asked = {"prompt": "a sea", "negative": "forest", "attribute.sky": "", "style": "noir"} | wrong
    answer = send(page, **asked)
    assert answer.status_code == 422
    assert said in unescape(answer.text)
    fields = typed(answer.text)
    assert fields["prompt"] == asked["prompt"].strip()
    assert fields["negative"] == "forest"
    assert fields["style"] == ("" if asked["style"] == "noire" else "noir")
    assert page.get("/api/v1/jobs").json()["items"] == []


def test_a_chosen_attribute_stays_beside_another_mistake(page: TestClient) -> None:
    answer = send(page, number="0", **{"attribute.sky": "orange"})
    assert answer.status_code == 422
    assert typed(answer.text)["attribute.sky"] == "orange"


def test_unknown_words_are_told_where_the_picture_is_and_before(page: TestClient) -> None:
    job = made(page, prompt="a river")
    sentence = job["remarks"][0]
    assert "«river»" in sentence
    for address in (
        f"/?job={job['id']}",
        f"/jobs/{job['id']}/card",
        "/?prompt=a+river&model=reader",
    ):
        assert sentence in unescape(page.get(address).text), address


def test_a_prompt_is_text_and_never_markup(page: TestClient) -> None:
    job = made(page, prompt=EVIL, negative=EVIL)
    image = job["images"][0]["id"]
    addresses = [
        "/", f"/?job={job['id']}", f"/jobs/{job['id']}/card", f"/images/{image}", "/gallery",
        "/queue", f"/?from={image}", f"/compare?images={image}",
    ]  # fmt: skip
    pages = {address: page.get(address) for address in addresses}
    pages["wrong"] = send(page, prompt=EVIL, negative=EVIL, number="0")
    for address, answer in pages.items():
        assert answer.status_code in (200, 422), address
        assert "<script>alert" not in answer.text, address
        assert "<script>alert" not in answer.text.lower(), address
    assert EVIL in unescape(pages["/"].text)
    assert typed(pages["wrong"].text)["prompt"] == EVIL


def test_a_prompt_for_a_model_of_classes_draws_its_class(page: TestClient) -> None:
    """A model chosen after the prompt was typed: what it cannot read is passed over."""
    job = made(page, model="scenes", prompt="a sea", **{"class": "forest"})
    assert job["condition"] == {"type": "class", "class": "forest"}


def test_before_the_first_picture_the_samples_say_what_was_asked(page: TestClient) -> None:
    html = unescape(page.get("/?model=scenes-text").text)
    examples = read_card(ZOO / "scenes-text").examples
    assert len(examples) >= 5
    assert "Write what is to be seen" in html
    for seed, prompt in enumerate(examples):
        said = quote(prompt)
        assert f'href="/?prompt={said}&seed={seed}&number=1&keep=1&model=scenes-text"' in html
        link = f'href="/?model=scenes-text&prompt={said}&seed={seed}&number=1&keep=1"'
        assert link in unescape(page.get("/models/scenes-text").text)
    kept = page.get(f"/?prompt={quote(examples[1])}&seed=1&number=1&keep=1&model=scenes-text").text
    assert typed(kept)["prompt"] == examples[1]
    assert "Write what is to be seen" in page.get(f"/?model={READER}").text, "without samples, too"
