"""What the tests of stored pictures' pages share: browsers with and without scripts, pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from api_support import live
from fastapi.testclient import TestClient
from web_support import wait_until_ended

from izograf.schema.job import StoredImage
from izograf.schema.request import GenerationRequest
from izograf.service import orders
from izograf.service.access import LOCAL
from izograf.service.app import create_app
from izograf.service.context import Service

BROWSER = {"accept": "text/html", "sec-fetch-site": "same-origin"}
CHROMIUM = Path("/usr/bin/chromium")


@contextmanager
def browser(service: Service, language: str = "en") -> Iterator[TestClient]:
    """A browser whose scripts are switched off: it follows links and posts forms."""
    headers = BROWSER | {"accept-language": language}
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000", headers=headers) as page:
        yield page


@contextmanager
def chromium(service: Service, **options: Any) -> Iterator[Any]:
    """A page of the system's Chromium on a live service; a script's error fails the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with live(service) as served, playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = opened.new_context(base_url=served.url, **options).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(15_000)
        yield page
        opened.close()
        assert not errors


def make_pictures(
    service: Service, page: TestClient, label: str = "mountain", count: int = 3, seed: int = 7
) -> Sequence[StoredImage]:
    """Pictures that the engine made, by seed."""
    condition = {"type": "class", "class": label}
    job = orders.submit(service, LOCAL, GenerationRequest("scenes", condition, count, seed))
    assert wait_until_ended(page, job.id)["status"] == "done"
    return service.store.images.of_job(job.id)


def pictures_on(html: str) -> list[str]:
    """The identifiers of the pictures that a page shows, in its order."""
    return re.findall(r'<figure[^>]* data-picture="(img_\w+)"', html)


def job_in(url: Any, name: str) -> str:
    """The job that a page's address names."""
    return str(url.params[name])


def serious(page: Any) -> list[str]:
    """What axe finds on a page that keeps somebody out."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    found = axe.Axe().run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html'][:160]}" for one in grave for node in one["nodes"]]
