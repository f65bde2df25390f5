"""A picture's page, the comparison and the models, without scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pages_support import browser, job_in, make_pictures, pictures_on
from web_support import MakeService, wait_until_ended

from izograf.engine.fake import ENERGY_METHOD, FakeEngine
from izograf.schema.library import SAMPLES, ZOO, read_card
from izograf.service.catalogue import Catalogue
from izograf.service.context import Service
from izograf.service.pages.i18n import Format
from izograf.service.pages.models import sample_sheet, scores, sheet_size
from izograf.service.pages.picture import first_neighbour


@pytest.fixture
def page(service: Service) -> Iterator[TestClient]:
    with browser(service) as page:
        yield page


@pytest.fixture
def second_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Another model of the same classes on the search path, and one whose card is broken."""
    folder = tmp_path / "models"
    (folder / "draft").mkdir(parents=True)
    card = replace(read_card(ZOO / "scenes"), name="draft", metrics=())
    (folder / "draft" / "card.json").write_text(card.dumps(), encoding="utf-8")
    (folder / "torn").mkdir()
    (folder / "torn" / "card.json").write_text('{"version": 1', encoding="utf-8")
    monkeypatch.setenv("IZOGRAF_MODELS", str(folder))
    return "draft"


def test_a_picture_says_how_it_was_made(page: TestClient, service: Service) -> None:
    image = make_pictures(service, page)[0]
    html = page.get(f"/images/{image.id}").text
    record = image.record
    expected = [
        ">Mountain<", "seed 7", "/models/scenes", ENERGY_METHOD, record["model_sha256"],
        record["pixels_sha256"], image.sha256, image.id, "dpm-solver++",
    ]  # fmt: skip
    assert [text for text in expected if text not in html] == []
    assert image.joules is not None
    assert f"{Format('en').energy(image.joules)} (estimated)" in html
    russian = page.get(f"/images/{image.id}?lang=ru").text
    assert f"{Format('ru').energy(image.joules)} (оценка)" in russian
    assert "Горы" in russian


def test_again_fills_the_form_in_with_the_same_settings(page: TestClient, service: Service) -> None:
    image = make_pictures(service, page, seed=4321, count=1)[0]
    link = page.get(f"/images/{image.id}").text.split('class="primary-button" href="')[1]
    html = page.get(link.split('"')[0].replace("&amp;", "&")).text
    assert 'value="4321"' in html


def test_verify_shows_what_came_out(page: TestClient, service: Service) -> None:
    image = make_pictures(service, page)[1]
    shown = page.post(f"/images/{image.id}/verify")
    assert shown.url.path == f"/images/{image.id}"
    wait_until_ended(page, job_in(shown.url, "verify"))
    html = page.get(str(shown.url)).text
    assert "Verified: bit-exact" in html
    assert "verdict-bit-exact" in html


def test_a_pending_job_reloads_the_page_only_without_scripts(make_service: MakeService) -> None:
    service = make_service(engine=FakeEngine(step_seconds=0.05))
    with browser(service) as page:
        image = make_pictures(service, page, count=1)[0]
        shown = page.post(f"/images/{image.id}/verify")
        assert '<noscript><meta http-equiv="refresh"' in shown.text
        assert f'data-job="{job_in(shown.url, "verify")}"' in shown.text


def test_variations_are_the_eight_seeds_around(page: TestClient, service: Service) -> None:
    image = make_pictures(service, page, seed=100, count=1)[0]
    shown = page.post(f"/images/{image.id}/vary")
    wait_until_ended(page, job_in(shown.url, "vary"))
    made = service.store.images.of_job(job_in(shown.url, "vary"))
    assert [picture.seed for picture in made] == list(range(96, 104))
    assert pictures_on(page.get(str(shown.url)).text) == [picture.id for picture in made]


@pytest.mark.parametrize(("seed", "first"), [(0, 0), (3, 0), (7, 3), (2**63 - 1, 2**63 - 8)])
def test_neighbours_stay_among_the_seeds_there_are(seed: int, first: int) -> None:
    assert first_neighbour(seed) == first


def test_a_strip_leads_to_another_seed_and_class(page: TestClient, service: Service) -> None:
    image = make_pictures(service, page, count=1)[0]
    form = {"to_seed": "90", "to_class": "sea", "frames": "5"}
    shown = page.post(f"/images/{image.id}/strip", data=form)
    wait_until_ended(page, job_in(shown.url, "strip"))
    html = page.get(str(shown.url)).text
    assert len(pictures_on(html)) == 5
    assert "<iz-strip" in html
    assert "Mountain → Sea · 90, 5/5, seed 7" in html


@pytest.mark.parametrize(
    "form", [{}, {"to_seed": "soon"}, {"to_class": "whale"}, {"to_seed": "8", "frames": "1"}]
)
def test_a_strip_that_cannot_be_made_says_why_and_keeps_what_was_typed(
    page: TestClient, service: Service, form: dict[str, str]
) -> None:
    image = make_pictures(service, page, count=1)[0]
    refused = page.post(f"/images/{image.id}/strip", data=form)
    assert refused.status_code == 422
    assert 'role="alert"' in refused.text
    if "to_seed" in form:
        assert f'value="{form["to_seed"]}"' in refused.text


def test_a_deleted_picture_says_so_and_comes_back(page: TestClient, service: Service) -> None:
    image = make_pictures(service, page)[0]
    page.post(f"/images/{image.id}/change", data={"action": "delete"})
    assert "was deleted" in page.get(f"/images/{image.id}").text
    page.post(f"/images/{image.id}/change", data={"action": "restore"})
    assert "was deleted" not in page.get(f"/images/{image.id}").text


def test_models_are_compared_on_the_same_seeds_by_an_address_that_can_be_shared(
    page: TestClient, second_model: str
) -> None:
    form = {"model": ["scenes", second_model], "class": "sea", "seed": "5", "num_images": "2"}
    shown = page.post("/compare", data=form)
    for job in shown.url.params.get_list("job"):
        wait_until_ended(page, job)
    html = page.get(str(shown.url)).text
    assert len(pictures_on(html)) == 4
    assert "<iz-compare" in html
    assert [html.count(f'data-model="{name}"') for name in form["model"]] == [1, 1]


@pytest.mark.parametrize(
    "changes",
    [{"model": ["scenes"]}, {"seed": "x"}, {"num_images": "99"}, {"class": "whale"},
     {"model": ["scenes", "nobody"]}],
)  # fmt: skip
def test_a_comparison_that_cannot_be_made_queues_nothing(
    page: TestClient, service: Service, second_model: str, changes: dict[str, object]
) -> None:
    form = {"model": ["scenes", second_model], "class": "sea", "seed": "5", "num_images": "2"}
    refused = page.post("/compare", data=form | changes)
    assert refused.status_code == 422
    assert 'role="alert"' in refused.text
    assert not service.store.jobs.list_jobs().items


def test_the_models_page_lists_generators_judges_and_broken_ones(
    page: TestClient, second_model: str
) -> None:
    html = page.get("/models").text
    for text in ("scenes", second_model, "scenes-judge", "torn", "is not a model card", "89.3 %"):
        assert text in html, text
    assert "/models/torn/card.json" not in html, "where it lies is not the reader's business"
    assert "cannot be used" in page.get("/models/torn").text


def test_a_models_page_is_its_whole_card(page: TestClient) -> None:
    html = page.get("/models/scenes").text
    card = read_card(ZOO / "scenes")
    expected = [
        card.notes[:40], "num_inference_steps", "not measured", "CC0", card.licence, "1 h 3 min",
        "Mountain, seed 3", card.fingerprint,
    ]  # fmt: skip
    missing = [text for text in expected if text.replace(" ", "") not in
               html.replace("\N{NO-BREAK SPACE}", "").replace(" ", "")]  # fmt: skip
    assert missing == []


def test_bundled_generators_have_samples(page: TestClient, service: Service) -> None:
    for card in service.catalogue.generators():
        listed = next(m for m in service.catalogue.models() if m.name == card.name)
        if not listed.bundled:
            continue
        assert sample_sheet(listed.folder, card, "en") is not None, card.name
        assert (listed.folder / SAMPLES).stat().st_size < 300_000
        response = page.get(f"/models/{card.name}/samples.png")
        assert response.headers["content-type"] == "image/png"


@pytest.mark.parametrize("name", ["scenes-judge", "..", "..%2fscenes", "%2e%2e%2f%2e%2e", "nobody"])
def test_p10_no_client_text_reaches_the_path_of_samples(page: TestClient, name: str) -> None:
    assert page.get(f"/models/{name}/samples.png").status_code == 404


def test_a_sheet_that_does_not_fit_its_card_is_not_cut(tmp_path: Path) -> None:
    card = read_card(ZOO / "scenes")
    file = tmp_path / SAMPLES
    assert sample_sheet(tmp_path, card, "en") is None
    for content in (b"", b"GIF89a" + bytes(40)):
        file.write_bytes(content)
        assert sheet_size(file) is None
    file.write_bytes((ZOO / "scenes" / SAMPLES).read_bytes())
    assert sample_sheet(tmp_path, card, "ru") is not None
    assert sample_sheet(tmp_path, replace(card, image_size=48), "en") is None
    reads = read_card(ZOO / "scenes-text")
    file.write_bytes((ZOO / "scenes-text" / SAMPLES).read_bytes())
    assert sample_sheet(tmp_path, reads, "en") is not None
    assert sample_sheet(tmp_path, replace(reads, examples=("a sea",)), "en") is None


def test_scores_that_are_no_numbers_are_left_out() -> None:
    card = read_card(ZOO / "scenes")
    odd = ({"name": "a", "value": "good"}, {"name": "b"}, {"name": "c", "value": 2, "ci95": [1]})
    (score,) = scores(replace(card, metrics=odd))
    assert (score.name, score.value, score.low) == ("c", 2.0, None)


def test_a_catalogue_without_models_teaches(page: TestClient, service: Service) -> None:
    object.__setattr__(service, "catalogue", Catalogue(list))
    assert "No models yet" in page.get("/models").text
    assert "takes two models" in page.get("/compare").text


def test_texts_are_there_in_both_languages() -> None:
    from izograf.service.pages.i18n import texts

    areas = ("gallery.", "collections.", "picture.", "compare.", "models.")
    found = [{k for k in texts(lang) if k.startswith(areas)} for lang in ("en", "ru")]
    assert found[0] == found[1]
    assert json.dumps(texts("ru"), ensure_ascii=False)
