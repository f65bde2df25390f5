"""The pages Generate, Queue, Help and the error pages: without scripts, then in a real browser."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from izograf.engine.fake import FakeEngine, Fault
from izograf.schema.labels import ClassLabel
from izograf.schema.library import Listed
from izograf.schema.options import OptionSpec
from izograf.service.app import create_app
from izograf.service.catalogue import Catalogue
from izograf.service.context import Service
from izograf.service.run import running_service
from izograf.service.settings import ServiceSettings

CHROMIUM = Path("/usr/bin/chromium")
PAGES = ("/", "/queue", "/help", "/no-such-page")
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
FORM = {"model": "scenes", "class": "mountain", "number": "2", "seed": "7"}


@pytest.fixture
def browser(client: TestClient) -> TestClient:
    """A client that asks for pages, as a browser without scripts does."""
    client.headers.update({"Accept": "text/html", "Accept-Language": "en", **SAME_SITE})
    return client


def ended(client: TestClient, job_id: str) -> dict[str, Any]:
    for _ in range(1000):
        job: dict[str, Any] = client.get(f"/api/v1/jobs/{job_id}").json()
        if job["status"] not in ("queued", "running"):
            return job
        time.sleep(0.01)
    raise AssertionError(f"{job_id} did not end")


def submitted(client: TestClient, **fields: str) -> str:
    answer = client.post("/generate", data=FORM | fields, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    found = re.search(r"job=(job_[0-9a-z]{26})", answer.headers["location"])
    assert found
    return found[1]


# ---- without scripts


def test_the_form_comes_from_the_card(browser: TestClient) -> None:
    page = browser.get("/").text
    for name in ("num_inference_steps", "guidance_scale", "sampler", "schedule"):
        assert f'name="option.{name}"' in page
    assert 'value="mountain"' in page
    assert "Create 4" in page
    assert "Your first pictures" in page


def test_pages_in_russian(browser: TestClient) -> None:
    page = browser.get("/", headers={"Accept-Language": "ru"}).text
    assert '<html lang="ru"' in page
    assert "Создать 4" in page
    assert "Горы" in page


def test_a_chosen_language_and_theme_stay(browser: TestClient) -> None:
    browser.get("/help?lang=ru&theme=dark")
    page = browser.get("/queue").text
    assert '<html lang="ru" data-theme="dark">' in page


def test_from_the_form_to_the_pictures(browser: TestClient) -> None:
    job_id = submitted(browser, keep="1")
    ended(browser, job_id)
    page = browser.get(f"/?job={job_id}&keep=1").text
    assert 'alt="Mountain, seed 7"' in page
    assert 'alt="Mountain, seed 8"' in page
    assert re.search(r'name="seed"[^>]*value="7"', page)
    assert "Your first pictures" not in page


def test_without_the_lock_the_seed_is_another(browser: TestClient) -> None:
    job_id = submitted(browser, seed="123456789")
    page = browser.get(f"/?job={job_id}").text
    assert not re.search(r'name="seed"[^>]*value="123456789"', page)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("number", "0", "A whole number from 1 to 64."),
        ("number", "four", "A whole number from 1 to 64."),
        ("seed", "-1", "or nothing for a random one"),
        ("option.num_inference_steps", "2000", "A whole number from 1 to 1,000."),
        ("option.guidance_scale", "much", "A number from 0 to 20."),
        ("option.sampler", "magic", "Choose one of the list."),
        ("class", "moutain", "Unknown class"),
    ],
)
def test_what_is_wrong_is_said_and_what_was_typed_stays(
    browser: TestClient, field: str, value: str, said: str
) -> None:
    answer = browser.post("/generate", data=FORM | {field: value})
    assert answer.status_code == 422
    assert said in answer.text
    assert "everything you typed is still here" in answer.text
    if field not in ("class", "option.sampler"):
        assert re.search(rf'name="{re.escape(field)}"[^>]*value="{re.escape(value)}"', answer.text)
    assert re.search(r'value="mountain" checked', answer.text) or field == "class"


def test_an_unknown_model(browser: TestClient) -> None:
    answer = browser.post("/generate", data=FORM | {"model": "scenery<b>"})
    assert answer.status_code == 404
    assert "scenery&lt;b&gt;" in answer.text
    assert "<b>" not in answer.text


def test_a_full_queue_keeps_the_form(make_service: Callable[..., Service]) -> None:
    slow = FakeEngine(step_seconds=5)
    service = make_service(engine=slow, max_queued_per_owner=1)
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000") as client:
        client.headers.update({"Accept": "text/html", **SAME_SITE})
        for _ in range(8):
            answer = client.post("/generate", data=FORM | {"seed": "99"}, follow_redirects=False)
            if answer.status_code != 303:
                break
        assert answer.status_code == 429
        assert re.search(r'name="seed"[^>]*value="99"', answer.text)


def test_a_picture_fills_the_form(browser: TestClient) -> None:
    job = ended(browser, submitted(browser, **{"option.num_inference_steps": "5"}))
    page = browser.get(f"/?from={job['images'][1]['id']}").text
    assert re.search(r'name="seed"[^>]*value="8"', page)
    assert re.search(r'name="option.num_inference_steps"[^>]*value="5"', page)
    assert '<details class="more" open>' in page


def test_dice_and_reset_without_scripts(browser: TestClient) -> None:
    query = FORM | {"option.num_inference_steps": "5", "seed": "123456789"}
    page = browser.get("/", params=query | {"dice": "1"}).text
    assert 'value="123456789"' not in page
    assert re.search(r'name="option.num_inference_steps"[^>]*value="5"', page)
    page = browser.get("/", params=query | {"reset": "1"}).text
    assert re.search(r'name="option.num_inference_steps"[^>]*value="18"', page)


def test_cancel_and_try_again(make_service: Callable[..., Service]) -> None:
    service = make_service(engine=FakeEngine(step_seconds=5))
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000") as client:
        client.headers.update({"Accept": "text/html", **SAME_SITE})
        job_id = submitted(client)
        page = client.get(f"/?job={job_id}").text
        assert f'action="/jobs/{job_id}/cancel"' in page
        assert '<meta http-equiv="refresh"' in page
        queue = client.get("/queue").text
        assert f'action="/jobs/{job_id}/cancel"' in queue
        answer = client.post(
            f"/jobs/{job_id}/cancel", data={"next": "//elsewhere"}, follow_redirects=False
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert f'action="/jobs/{job_id}/retry"' in client.get(f"/?job={job_id}").text
        again = client.post(f"/jobs/{job_id}/retry", follow_redirects=False)
        assert again.status_code == 303
        assert job_id not in again.headers["location"]


def test_a_failed_job_says_why(make_service: Callable[..., Service]) -> None:
    engine = FakeEngine(step_seconds=0.001, faults=lambda *_: Fault("oom", 2))
    with TestClient(create_app(make_service(engine=engine)), base_url="http://127.0.0.1") as client:
        client.headers.update({"Accept": "text/html", **SAME_SITE})
        job_id = submitted(client)
        job = ended(client, job_id)
        page = client.get(f"/?job={job_id}").text
        assert "These pictures could not be made" in page
        assert job["reason"]
        assert "did not fit into memory" in page
        assert "Try again" in page


def test_the_piece_of_a_job(browser: TestClient) -> None:
    job_id = submitted(browser)
    ended(browser, job_id)
    piece = browser.get(f"/jobs/{job_id}/card").text
    assert f'data-result="{job_id}"' in piece
    assert "<html" not in piece


@pytest.mark.parametrize(
    ("path", "status"), [("/nothing", 404), ("/images/nothing", 404), ("/jobs/nothing/card", 404)]
)
def test_error_pages(browser: TestClient, path: str, status: int) -> None:
    answer = browser.get(path, headers={"Accept-Language": "ru"})
    assert answer.status_code == status
    assert "Здесь ничего нет" in answer.text
    assert "Traceback" not in answer.text


def test_a_model_of_a_kind_never_seen(service: Service) -> None:
    """Options without a text of their own, and more classes than fit on chips."""
    scenes = next(card for card in service.catalogue.generators() if card.name == "scenes")
    options = (
        OptionSpec("warm_glow", "boolean", True, "a warmer light"),
        OptionSpec("pen", "choice", "b", "what it draws with", choices=tuple("abcdef")),
        OptionSpec("grain_size", "number", 0.5),
    )
    many = tuple(ClassLabel(f"thing {i}") for i in range(40))
    strange = replace(scenes, name="strange", options=options, classes=many)
    plain = replace(scenes, name="plain", options=(), classes=(), conditions=())
    listed = [Listed(card.name, Path("nowhere"), False, card) for card in (strange, plain)]
    app = create_app(replace(service, catalogue=Catalogue(lambda: listed)))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        client.headers.update({"Accept": "text/html", "Accept-Language": "en", **SAME_SITE})
        page = client.get("/?model=strange").text
        assert "Warm glow" in page
        assert "A warmer light." in page
        assert 'list="classes"' in page
        assert "This model has nothing to choose." in client.get("/?model=plain").text
        form = {"model": "strange", "class": "thing 7", "number": "1", "seed": "1"}
        wrong = client.post("/generate", data=form | {"option.pen": "z", "class": "thing"})
        assert wrong.status_code == 422
        assert "2 fields need a look" in wrong.text


def test_no_model_at_all(service: Service) -> None:
    app = create_app(replace(service, catalogue=Catalogue(list)))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        page = client.get("/", headers={"Accept-Language": "ru"}).text
    assert "пока нет модели" in page


def test_no_page_has_inline_code_or_style(browser: TestClient) -> None:
    job_id = submitted(browser)
    ended(browser, job_id)
    for path in PAGES:
        page = browser.get(path).text
        assert not re.search(r"<[^>]+\sstyle=", page), path
        assert not re.search(r"<[^>]+\son[a-z]+=", page), path
        assert "<style" not in page, path
        for script in re.findall(r"<script[^>]*>", page):
            assert "src=" in script or 'type="application/json"' in script, path


# ---- in a real browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that a browser can reach, with steps slow enough to be seen."""
    settings = ServiceSettings(
        data_dir=tmp_path_factory.mktemp("pages"), grace_seconds=1, requests_per_minute=10_000
    )
    engine = FakeEngine(step_seconds=0.03, preview_seconds=0.06)
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, running_service(settings, engine=engine) as service:
        config = uvicorn.Config(create_app(service), ws="none", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])


@pytest.fixture
def open_page(chromium: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens a page; anything that the browser complains about fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(path: str, *, width: int = 1280, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.goto(address + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not [c for c in complaints if "404" not in c and "DISCONNECTED" not in c]


def test_p17_generate_by_keyboard_alone(open_page: Callable[..., Any]) -> None:
    page = open_page("/", locale="en")
    page.keyboard.press("g")
    page.keyboard.press("ArrowRight")
    chosen = page.evaluate("document.querySelector('[name=class]:checked').value")
    page.keyboard.press("Enter")
    page.wait_for_selector("iz-job [data-film] li")
    picture = page.wait_for_selector("[data-result] [data-picture] a")
    assert chosen in picture.query_selector("img").get_attribute("alt").lower()
    picture.focus()
    page.keyboard.press("f")
    page.wait_for_selector("[data-picture] [data-favourite][aria-pressed=true]")
    page.keyboard.press("ArrowRight")
    second = page.locator("[data-picture]").nth(1)
    assert second.evaluate("figure => figure.matches(':focus-within')")
    page.keyboard.press("Space")
    assert page.evaluate("document.getElementById('viewer').open")
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.keyboard.press("d")
    assert download.value.suggested_filename.endswith(".png")


@pytest.mark.parametrize("path", PAGES)
def test_p17_nothing_is_wider_than_a_telephone(open_page: Callable[..., Any], path: str) -> None:
    page = open_page(path, width=360, locale="ru")
    if path == "/":
        page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_cancel_in_the_browser(open_page: Callable[..., Any]) -> None:
    page = open_page("/", locale="en")
    page.locator("summary").click()
    page.fill("#option-num_inference_steps", "500")
    page.locator("[data-submit]").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Nothing was kept.").wait_for()


def test_a_broken_connection_is_said_and_mended(open_page: Callable[..., Any]) -> None:
    page = open_page("/", locale="en")
    page.context.set_offline(True)
    page.locator("[data-offline]").wait_for()
    page.context.set_offline(False)
    page.locator("[data-offline]").wait_for(state="hidden")


def test_without_scripts_in_the_browser(open_page: Callable[..., Any]) -> None:
    page = open_page("/", locale="ru", java_script_enabled=False)
    page.get_by_role("radio", name="Море").check()
    page.get_by_role("button", name="Создать 4").click()
    page.get_by_alt_text(re.compile("Море, зерно")).first.wait_for()
