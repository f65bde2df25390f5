"""The gallery and the collections, without scripts: links and forms alone."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from pages_support import browser, make_pictures, pictures_on

from izograf.service.context import Service
from izograf.service.pages import gallery


@pytest.fixture
def page(service: Service) -> Iterator[TestClient]:
    with browser(service) as page:
        yield page


def test_an_empty_gallery_teaches(page: TestClient) -> None:
    html = page.get("/gallery").text
    assert "Your pictures will hang here" in html
    assert 'class="primary-button" href="/"' in html


def test_pictures_are_listed_newest_first_and_found_in_both_languages(
    page: TestClient, service: Service
) -> None:
    seas = make_pictures(service, page, "sea", 2, 3)
    mountains = make_pictures(service, page, "mountain", 2, 7)
    newest = [image.id for image in reversed([*seas, *mountains])]
    assert pictures_on(page.get("/gallery").text) == newest
    for words in ("море", "sea", "МОРЯ"):
        found = pictures_on(page.get("/gallery", params={"q": words}).text)
        assert set(found) == {image.id for image in seas}, words
    assert 'alt="Sea, seed 3"' in page.get("/gallery?label=sea").text


def test_a_search_without_a_hit_offers_to_clear(page: TestClient, service: Service) -> None:
    make_pictures(service, page)
    html = page.get("/gallery?q=whale&favourite=1&size=l").text
    assert "Nothing found for “whale”" in html
    assert '<a class="button" href="/gallery?size=l">Clear the filters</a>' in html


@pytest.mark.parametrize("day", ["tomorrow", "2026-13-01", "9999-12-31"])
def test_a_day_that_is_none_is_refused_in_words(page: TestClient, day: str) -> None:
    assert page.get("/gallery", params={"to_day": day}).status_code == 422


def test_every_page_of_the_gallery_is_reached_by_links(
    page: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "PER_PAGE", 2)
    made = make_pictures(service, page, count=5)
    url, seen = "/gallery?label=mountain", []
    while url:
        html = page.get(url).text
        seen += pictures_on(html)
        marker = 'rel="next" href="'
        url = html.split(marker)[1].split('"')[0].replace("&amp;", "&") if marker in html else ""
    assert seen == [image.id for image in reversed(made)]


def test_a_favourite_is_marked_and_the_reader_is_back_where_they_were(
    page: TestClient, service: Service
) -> None:
    image = make_pictures(service, page)[0]
    form = {"favourite": "yes", "next": "/gallery?label=mountain"}
    response = page.post(f"/images/{image.id}/favourite", data=form)
    assert (response.status_code, response.url.path) == (200, "/gallery")
    assert pictures_on(page.get("/gallery?favourite=1").text) == [image.id]
    page.post(f"/images/{image.id}/favourite", data={"favourite": "no", "next": "//evil.example"})
    assert pictures_on(page.get("/gallery?favourite=1").text) == []


def test_deleted_pictures_come_back_by_undo_and_from_recently_deleted(
    page: TestClient, service: Service
) -> None:
    made = [image.id for image in make_pictures(service, page)]
    chosen = {"action": "delete", "id": made[:2], "back": "label=mountain"}
    html = page.post("/gallery/selection", data=chosen).text
    assert "2 pictures deleted." in html
    assert pictures_on(html) == [made[2]]
    html = page.post("/gallery/selection", data={"action": "restore", "id": made[:1]}).text
    assert set(pictures_on(html)) == {made[0], made[2]}
    assert pictures_on(page.get("/gallery?deleted=1").text) == [made[1]]


def test_chosen_pictures_are_downloaded_as_one_zip(page: TestClient, service: Service) -> None:
    made = make_pictures(service, page)
    ids = [image.id for image in made]
    response = page.post("/gallery/selection", data={"action": "zip", "id": ids})
    names = zipfile.ZipFile(io.BytesIO(response.content)).namelist()
    assert sorted(names) == [f"mountain-{seed}.png" for seed in (7, 8, 9)]


def test_pictures_are_gathered_in_a_collection_and_taken_out(
    page: TestClient, service: Service
) -> None:
    made = [image.id for image in make_pictures(service, page)]
    chosen = {"action": "add", "id": made[:2], "new_collection": "Cover <1>"}
    assert "2 pictures added" in page.post("/gallery/selection", data=chosen).text
    (collection,) = service.store.collections.list_collections("local").items
    here = f"/gallery?collection={collection.id}"
    html = page.get(here).text
    assert "<h1>Cover &lt;1&gt;</h1>" in html
    assert set(pictures_on(html)) == set(made[:2])
    out = {"action": f"remove:{collection.id}", "id": made[:1], "back": here.partition("?")[2]}
    assert pictures_on(page.post("/gallery/selection", data=out).text) == [made[1]]


def test_collections_are_made_renamed_and_deleted(page: TestClient, service: Service) -> None:
    assert "No collections yet" in page.get("/collections").text
    page.post("/collections", data={"name": "North"})
    (collection,) = service.store.collections.list_collections("local").items
    page.post(f"/collections/{collection.id}/rename", data={"name": "South"})
    assert "South" in page.get("/collections").text
    refused = page.post("/collections", data={"name": "South"})
    assert refused.status_code == 422
    assert 'value="South"' in refused.text, "what was typed is kept"
    assert "already" in refused.text
    page.post(f"/collections/{collection.id}/delete")
    assert "No collections yet" in page.get("/collections").text


@pytest.mark.parametrize("action", ["", "burn", "add"])
def test_a_form_that_asks_for_nothing_is_refused_in_words(
    page: TestClient, service: Service, action: str
) -> None:
    image = make_pictures(service, page, count=1)[0]
    response = page.post("/gallery/selection", data={"action": action, "id": [image.id]})
    assert response.status_code == 422


def test_a_choice_survives_its_own_address() -> None:
    choice = gallery.Choice(q="море & sea", label="sea", favourite="1", size="l")
    assert gallery.parsed_choice(choice.query) == choice
