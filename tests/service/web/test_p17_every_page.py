"""Every page there is, in both languages, lights and at 360 px: axe and the fit (promise P17)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pages_support import browser, chromium, make_pictures, serious

from izograf.service.access import declared_routes
from izograf.service.app import create_app
from izograf.service.context import Service

NOT_PAGES = {"/healthz", "/readyz", "/metrics", "/models/{name}/samples.png"}
FRAGMENTS = {"/jobs/{job_id}/card", "/queue/state", "/generate"}
OVERHANG = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
MORE = ("/nothing/here", "/gallery?q=whale", "/gallery?deleted=1", "/models/scenes-judge")


def page_routes(service: Service) -> Iterator[str]:
    """The paths of every page, with their parameters still open."""
    for route in declared_routes(create_app(service).routes):
        ours = route.path.startswith(("/api/", "/v1/"))
        if "GET" in (route.methods or ()) and not ours:
            yield route.path


@pytest.fixture
def paths(service: Service) -> list[str]:
    """An address for every page, with something to be seen at it."""
    with browser(service) as page:
        pictures = make_pictures(service, page, count=3)
    collection = service.store.collections.create("local", "North")
    service.store.collections.add("local", collection.id, [pictures[0].id])
    known = {"{image_id}": pictures[0].id, "{name}": "scenes"}
    found = []
    for path in sorted(set(page_routes(service)) - NOT_PAGES - FRAGMENTS):
        for parameter, value in known.items():
            path = path.replace(parameter, value)
        found.append(path)
    return [*found, f"/edit?image={pictures[0].id}", *MORE]


def test_the_pages_are_found(paths: list[str]) -> None:
    assert {"/", "/gallery", "/login", "/admin/users", "/models/scenes"} <= set(paths)
    assert not [path for path in paths if "{" in path], "name a value for the new parameter"


@pytest.mark.parametrize(("language", "light"), [("en", "light"), ("ru", "dark")])
def test_p17_axe_finds_nothing_serious_on_any_page(
    service: Service, paths: list[str], language: str, light: str
) -> None:
    with chromium(service, locale=language, color_scheme=light) as page:
        found = {}
        for path in paths:
            page.goto(path)
            page.evaluate("document.querySelectorAll('main details').forEach(d => d.open = true)")
            found[path] = serious(page)
        assert found == {path: [] for path in paths}


def test_p17_pages_with_too_few_models_fit_a_phone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for few in (1, 0):
        models = [model for model in service.catalogue.models() if model.name == "scenes"][:few]
        monkeypatch.setattr(service.catalogue, "models", lambda models=models: tuple(models))
        with chromium(service, locale="ru", viewport={"width": 360, "height": 740}) as page:
            for path in ("/", "/compare", "/models"):
                page.goto(path)
                assert page.evaluate(OVERHANG) <= 0, (path, few)
                assert serious(page) == []


def test_p17_every_page_fits_a_phone(service: Service, paths: list[str]) -> None:
    with chromium(service, locale="ru", viewport={"width": 360, "height": 740}) as page:
        for path in paths:
            page.goto(path)
            assert page.evaluate(OVERHANG) <= 0, path
