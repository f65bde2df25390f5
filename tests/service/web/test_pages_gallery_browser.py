"""The same pages with scripts, in the system's Chromium: keys, live results, axe (promise P17)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pages_support import browser, chromium, make_pictures

from izograf.schema.job import StoredImage
from izograf.service.context import Service


@pytest.fixture
def pictures(service: Service) -> Sequence[StoredImage]:
    with browser(service) as page:
        return make_pictures(service, page, count=6)


@pytest.mark.usefixtures("pictures")
def test_p17_the_gallery_by_keyboard_alone(service: Service) -> None:
    with chromium(service) as page:
        page.goto("/gallery")
        for key in ("ArrowRight", "f"):
            page.keyboard.press(key)
        page.wait_for_selector('[data-favourite][aria-pressed="true"]')
        for key in ("x", "ArrowRight", "ArrowRight", "Shift+X"):
            page.keyboard.press(key)
        assert page.inner_text("[data-count]") == "3 chosen"
        page.keyboard.press("Delete")
        page.wait_for_selector(".toast button")
        assert page.locator("[data-picture]").count() == 3
        page.click(".toast button")
        page.locator("[data-picture]").nth(5).wait_for()
        page.keyboard.press("Space")
        assert page.locator("#viewer").is_visible()
        page.keyboard.press("Escape")
        with page.expect_download() as download:
            page.keyboard.press("d")
        assert download.value.suggested_filename.startswith("mountain-")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.type") == "search"
    assert sum(image.favourite for image in service.store.images.list_images().items) == 1


def test_p17_verify_and_a_strip_arrive_live(
    service: Service, pictures: Sequence[StoredImage]
) -> None:
    with chromium(service) as page:
        page.goto(f"/images/{pictures[0].id}")
        page.focus("#verify form button")
        page.keyboard.press("Enter")
        page.wait_for_selector(".verdict-bit-exact")
        page.select_option("[name=to_class]", "sea")
        page.fill("[name=frames]", "5")
        page.keyboard.press("Enter")
        page.wait_for_selector("iz-strip input")
        page.focus("iz-strip input")
        page.keyboard.press("ArrowRight")
        assert page.inner_text(".strip-said") == "Frame 2 of 5"
        assert page.locator(".verdict-bit-exact").count() == 1, "the other section stays"
        page.reload()
        assert page.locator("iz-strip input").count() == 1, "the address carries what was made"
