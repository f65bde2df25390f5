"""A page that hosts the mask editor, served by the application under test, and its masks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_support import live
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pages_support import CHROMIUM
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.responses import HTMLResponse, Response

from izograf.engine.fake import FakeEngine
from izograf.service import pages
from izograf.service.access import Viewer
from izograf.service.pages.rendering import environment, shared_context
from izograf.service.run import running_service
from izograf.service.settings import ServiceSettings

WIDTH, HEIGHT = 96, 64
HOST = """
{% extends "base.html" %}
{% import "_mask_editor.html" as mask with context %}
{% block title %}Mask{% endblock %}
{% block head %}{{ mask.assets() }}{% endblock %}
{% block content %}
<h1>Mask</h1>
<form method="post" action="/mask-host" enctype="multipart/form-data">
  <label class="field">Picture <input class="mask-file" type="file" id="own"></label>
  {{ mask.editor("mask", src="/mask-picture?" ~ request.url.query, picture_field="own",
                 alt="A test") }}
  <button class="button" id="send">Send</button><button class="button" type="reset">Reset</button>
</form>
{% endblock %}
{% block scripts %}{{ mask.texts() }}{% endblock %}
"""
EDITOR = "document.querySelector('iz-mask-editor')"


def png(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@dataclass
class Hosted:
    """The page in Chromium; `sent` are the files that its form posted."""

    page: Any
    sent: list[bytes] = field(default_factory=list)

    def open(self, width: int = WIDTH, height: int = HEIGHT, zoom: float | None = None) -> None:
        """Opens a picture of that size, at `zoom` CSS pixels for one of its own."""
        self.page.goto(f"/mask-host?width={width}&height={height}")
        self.ready()
        if zoom is not None:
            self.page.evaluate(
                f"zoom => {{ {EDITOR}.view.zoomTo(zoom); {EDITOR}.zoomed(); }}", zoom
            )

    def ready(self) -> None:
        self.page.wait_for_selector('[data-mask="said"]:not(:empty)')

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where in the window a place of the picture is, from what the browser shows."""
        box = self.page.locator('[data-mask="picture"]').bounding_box()
        size = self.page.evaluate(f"[{EDITOR}.mask.width, {EDITOR}.mask.height]")
        return box["x"] + x / size[0] * box["width"], box["y"] + y / size[1] * box["height"]

    def drag(self, *places: tuple[float, float], button: str = "left") -> None:
        mouse = self.page.mouse
        mouse.move(*self.at(*places[0]))
        mouse.down(button=button)
        for place in places[1:]:
            mouse.move(*self.at(*place), steps=2)
        mouse.up(button=button)

    def click(self, *places: tuple[float, float]) -> None:
        for place in places:
            self.page.mouse.click(*self.at(*place))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def focus(self) -> None:
        self.page.focus('[data-mask="stage"]')

    def do(self, name: str, value: str = "") -> None:
        self.page.click(f'[data-do="{name}"]' + (f'[data-value="{value}"]' if value else ""))

    def size(self, pixels: int) -> None:
        self.page.evaluate(f"size => {EDITOR}.setSize(size)", pixels)

    def said(self) -> str:
        return str(self.page.inner_text('[data-mask="said"]'))

    def mask(self) -> NDArray[np.bool_]:
        """What the form sends when it is sent now, bool [H,W]; all False for no file."""
        self.page.click("#send")
        self.page.wait_for_selector("#received")
        data = self.sent[-1]
        if not data:
            return np.zeros((HEIGHT, WIDTH), dtype=bool)
        with Image.open(io.BytesIO(data)) as opened:
            pixels = np.asarray(opened.convert("RGBA"))
        assert (pixels[..., 3] == 255).all()
        assert set(np.unique(pixels[..., :3])) <= {0, 255}, "only black and white"
        return np.asarray(pixels[..., 0] == 255)


@contextmanager
def serving(folder: Path) -> Iterator[Callable[..., Hosted]]:
    """open(browser's options...) -> the editor in a window of its own.

    The page is served by a service beside its own pages; one Chromium is enough for all windows.
    A script's error fails the test.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    sent: list[bytes] = []
    errors: list[str] = []
    settings = ServiceSettings(data_dir=folder, grace_seconds=1, requests_per_minute=100_000)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(pages, "ROUTERS", (*pages.ROUTERS, _router(sent)))
        service = stack.enter_context(running_service(settings, engine=FakeEngine()))
        served = stack.enter_context(live(service))
        started = stack.enter_context(playwright.sync_playwright())
        opened = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        stack.callback(opened.close)

        windows: dict[str, Any] = {}  # one is expensive: those of the same options are shared

        def window(**options: Any) -> Hosted:
            if repr(options) not in windows:
                shape = {"viewport": {"width": 640, "height": 860}}
                context = opened.new_context(**{"base_url": served.url} | shape | options)
                page = windows[repr(options)] = context.new_page()
                page.on("pageerror", lambda error: errors.append(str(error)))
                page.set_default_timeout(60_000)
            return Hosted(windows[repr(options)], sent)

        yield window
        assert not errors


def _router(sent: list[bytes]) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/mask-host")
    def show(request: Request, identity: Viewer) -> Response:  # noqa: ARG001
        return HTMLResponse(environment().from_string(HOST).render(shared_context(request)))

    @router.post("/mask-host")
    async def receive(request: Request, identity: Viewer) -> Response:  # noqa: ARG001
        async with request.form() as form:
            mask = form["mask"]
            assert isinstance(mask, UploadFile), "the form sends files"
            sent.append(await mask.read())
        return HTMLResponse("<p id='received'>received</p>")

    @router.get("/mask-picture")
    def picture(identity: Viewer, width: int = WIDTH, height: int = HEIGHT) -> Response:  # noqa: ARG001
        y, x = np.mgrid[:height, :width]
        sky = np.stack([60 + 150 * y // height, 120 + 90 * y // height, 200 - 60 * x // width], -1)
        return Response(png(sky.astype(np.uint8)), media_type="image/png")

    return router
