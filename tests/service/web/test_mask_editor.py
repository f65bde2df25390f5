"""The mask editor in Chromium: marks land where they were made, at every zoom and density."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mask_support import EDITOR, HEIGHT, WIDTH, Hosted, png, serving
from numpy.typing import NDArray
from pages_support import serious
from PIL import Image, ImageDraw

Host = Callable[..., Hosted]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """host(browser's options...) -> the editor in a window of its own; earlier ones are closed."""
    with serving(tmp_path_factory.mktemp("served")) as window:
        yield window


def centres() -> tuple[NDArray[Any], NDArray[Any]]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return x + 0.5, y + 0.5


def stroke(a: tuple[float, float], b: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    """Pixels whose centre is within `radius` of a line."""
    x, y = centres()
    d = np.subtract(b, a)
    along = np.clip(((x - a[0]) * d[0] + (y - a[1]) * d[1]) / max(d @ d, 1e-9), 0, 1)
    return np.asarray(np.hypot(x - a[0] - along * d[0], y - a[1] - along * d[1]) <= radius)


def same(mask: NDArray[np.bool_], expected: NDArray[np.bool_], slack: float = 0.0) -> bool:
    """Whether two masks agree but for a share `slack` of the marked pixels."""
    assert mask.shape == expected.shape
    return bool((mask != expected).sum() <= slack * expected.sum())


@pytest.mark.parametrize("density", [1, 2])
def test_a_stroke_lands_where_it_was_drawn(host: Host, density: int) -> None:
    on = host(device_scale_factor=density) if density > 1 else host()
    for zoom in (0.5, 2, 6):
        on.open(zoom=zoom)
        on.size(12)
        on.drag((20, 16), (70, 48))
        # a place of the mouse is a whole pixel of the window: at 50 % two of the picture
        slack = 0.12 if zoom < 1 else 0.04
        assert same(on.mask(), stroke((20, 16), (70, 48), 6), slack), zoom


def test_a_zoomed_page_changes_nothing(host: Host) -> None:
    on = host(viewport={"width": 1100, "height": 900}, device_scale_factor=1.5)
    for factor in ("50%", "200%"):
        on.open()
        on.page.evaluate("factor => { document.documentElement.style.zoom = factor; }", factor)
        on.page.locator('[data-mask="stage"]').scroll_into_view_if_needed()
        on.size(10)
        on.drag((20, 20), (60, 20))
        assert same(on.mask(), stroke((20, 20), (60, 20), 5), 0.06), factor


def test_panning_and_zooming_keep_the_place(host: Host) -> None:
    on = host()
    on.open(zoom=16)
    before = on.at(48, 32)
    on.page.mouse.move(*before)
    on.page.keyboard.down("Control")
    on.page.mouse.wheel(0, -100)
    on.page.keyboard.up("Control")
    after = on.at(48, 32)
    assert max(abs(np.subtract(after, before))) < 1, "what is below the pointer stays"
    assert on.page.evaluate(f"{EDITOR}.view.zoom") > 20
    on.drag((48, 32), (44, 30), button="middle")
    assert max(abs(np.subtract(on.at(48, 32), before))) > 50
    on.do("tool", "hand")
    on.drag((48, 32), (50, 33))
    on.do("tool", "brush")
    on.size(6)
    on.drag((44, 30), (50, 34))
    assert same(on.mask(), stroke((44, 30), (50, 34), 3), 0.05)


def test_a_picture_much_larger_than_the_stage(host: Host) -> None:
    on = host()
    on.open(2048, 1536)
    on.size(100)
    on.drag((300, 300), (1700, 1200))
    mask = on.mask()
    assert mask.shape == (1536, 2048)
    assert mask[750, 1000]
    length = np.hypot(1400, 900)
    assert mask.sum() == pytest.approx(100 * length + np.pi * 50**2, rel=0.02)


def test_tools_and_history(host: Host) -> None:
    on = host()
    on.open(zoom=6)
    on.do("tool", "rectangle")
    on.drag((10.5, 8.5), (39.5, 30.5))
    box = np.zeros((HEIGHT, WIDTH), dtype=bool)
    box[8:31, 10:40] = True
    on.do("tool", "eraser")
    on.size(8)
    on.drag((10, 20), (40, 20))
    on.do("tool", "brush")
    on.page.keyboard.down("Shift")
    on.drag((12, 10), (36, 10))
    on.page.keyboard.up("Shift")
    erased = box & ~stroke((10, 20), (40, 20), 4)
    both = erased & ~stroke((12, 10), (36, 10), 4)
    share = float(on.said().split(" %")[0])
    assert share == pytest.approx(100 * both.mean(), abs=0.3)
    on.do("undo")
    on.press("Control+z")
    on.do("redo")
    on.press("Control+Shift+z", "Control+z")
    assert same(on.mask(), erased, 0.02)


def test_invert_clear_undo_and_an_empty_mask(host: Host) -> None:
    on = host()
    on.open()
    assert on.page.locator('[data-do="undo"]').is_disabled()
    on.do("invert")
    assert on.said() == "100 % of the picture will be repainted."
    on.do("clear")
    assert on.said().startswith("Nothing is marked yet")
    assert not on.mask().any()
    assert on.sent[-1] == b"", "no mask is no file"
    on.open()
    on.do("invert")
    on.do("clear")
    on.do("undo")
    assert on.mask().all()


def test_a_polygon_by_clicks_is_closed_at_its_first_corner(host: Host) -> None:
    on = host()
    on.open(zoom=6)
    on.do("tool", "polygon")
    on.click((10, 10), (80, 10))
    assert not on.page.locator('[data-do="close"]').is_visible()
    on.click((50, 30), (10, 50))
    assert on.page.locator('[data-do="close"]').is_visible()
    on.press("Backspace")
    on.click((10, 50), (80, 50), (10, 10))
    drawn = Image.new("L", (WIDTH * 8, HEIGHT * 8))
    corners = [(10, 10), (80, 10), (50, 30), (10, 50), (80, 50)]
    ImageDraw.Draw(drawn).polygon([(8 * a, 8 * b) for a, b in corners], fill=255)
    expected = np.asarray(drawn)[4::8, 4::8] > 0
    assert same(on.mask(), expected, 0.03)


def test_shapes_by_the_keyboard_alone(host: Host) -> None:
    on = host()
    on.open()
    on.focus()
    on.press("r")
    # the cursor begins in the middle, (48, 32); with Shift it moves by one pixel
    on.press(
        *["Shift+ArrowLeft"] * 3, "Space", *["Shift+ArrowRight"] * 5, "Shift+ArrowDown", "Space"
    )
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[32:34, 45:51] = True
    assert same(on.mask(), expected)
    on.open()
    on.focus()
    on.press("p", "Space")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft"):
        on.press(*[f"Shift+{key}"] * 6, "Space")
    on.press(*["Shift+ArrowUp"] * 3, "Space", "Backspace", "Enter")
    expected[:] = False
    expected[32:38, 48:54] = True
    assert same(on.mask(), expected)


def test_strokes_by_the_keyboard_alone(host: Host) -> None:
    on = host()
    on.open()
    on.focus()
    on.press("b", *["-"] * 30)
    assert on.page.inner_text('[data-mask="size-said"]') == "1 px"
    on.press("Space")  # one pixel
    on.page.keyboard.down("Shift")
    on.press(*["ArrowRight"] * 4)
    on.page.keyboard.up("Shift")
    on.page.keyboard.down("Space")
    on.press(*["ArrowDown"] * 3)
    on.page.keyboard.up("Space")
    assert on.page.inner_text('[data-mask="spoken"]') == "52, 35: marked"
    on.press("ArrowRight")
    assert on.page.inner_text('[data-mask="spoken"]') == "53, 35: kept"
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[32, 48] = True
    expected[32:36, 52] = True
    on.press("i", "i", "Control+z", "Control+z", "e", "+", "=")
    assert on.page.inner_text('[data-mask="size-said"]') == "3 px"
    assert same(on.mask(), expected)


def test_keys_of_the_editor_are_not_those_of_the_page(host: Host) -> None:
    on = host()
    on.open()
    on.focus()
    on.press("p", "m")
    assert on.page.get_attribute('[data-value="polygon"]', "aria-pressed") == "true"
    assert on.page.get_attribute('[data-do="alone"]', "aria-pressed") == "true"
    assert on.page.locator("html[data-pixelated]").count() == 0
    on.press("?")
    assert on.page.locator("#keys").is_visible(), "what the editor does not use is the page's"
    on.press("Escape", "Tab")
    assert on.page.locator("#received").count() == 0
    on.page.focus('[data-mask="size"]')
    on.press("Enter")
    assert on.page.locator("#received").count() == 0, "no key sends the form"


def touch(on: Hosted, kind: str, *places: tuple[float, float]) -> None:
    """Sends what a touch screen would; places are in the window."""
    session = getattr(on, "session", None) or on.page.context.new_cdp_session(on.page)
    on.session = session  # type: ignore[attr-defined]
    points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_touch_draws_with_one_finger_and_zooms_with_two(host: Host) -> None:
    on = host(viewport={"width": 390, "height": 800}, has_touch=True, device_scale_factor=2)
    on.open()
    on.size(8)
    touch(on, "touchStart", on.at(20, 20))
    for x in range(25, 71, 5):
        touch(on, "touchMove", on.at(x, 20))
    touch(on, "touchEnd")
    zoom = on.page.evaluate(f"{EDITOR}.view.zoom")
    (ax, ay), (bx, by) = on.at(30, 40), on.at(50, 40)
    touch(on, "touchStart", (ax, ay))
    touch(on, "touchMove", (ax + 2, ay))
    touch(on, "touchStart", (ax, ay), (bx, by))
    for wider in range(10, 41, 10):
        touch(on, "touchMove", (ax - wider, ay), (bx + wider, by))
    touch(on, "touchEnd")
    assert on.page.evaluate(f"{EDITOR}.view.zoom") > 1.5 * zoom
    on.do("fit")
    on.do("tool", "polygon")
    for place in ((60, 40), (90, 40), (90, 60)):
        on.page.touchscreen.tap(*on.at(*place))
    on.do("close")
    x, y = centres()
    corner = (x < 90) & (y > 40) & (y - 40 < (x - 60) * 20 / 30)
    assert same(on.mask(), stroke((20, 20), (70, 20), 4) | corner, 0.05)


def test_a_mask_from_a_file(host: Host) -> None:
    on = host()
    on.open()
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[10:20, 30:70] = 255
    field = '[data-mask="file"]'

    def upload(data: bytes, name: str = "any.png") -> str:
        before = on.said()
        on.page.set_input_files(field, {"name": name, "mimeType": "image/png", "buffer": data})
        on.page.wait_for_selector(f'[data-mask="said"]:not(:text-is("{before}"))')
        return on.said()

    assert upload(png(mask)) == "6.5 % of the picture will be repainted."
    assert upload(b"no picture").startswith("That file is no picture")
    on.do("undo")
    on.do("redo")
    assert same(on.mask(), mask > 0)
    on.open()
    small = np.stack([mask[::2, ::2]] * 3 + [np.full_like(mask[::2, ::2], 255)], -1)
    assert upload(png(small)).startswith("The mask had another size and was fitted")
    assert same(on.mask(), mask > 0)
    on.open()
    clear = np.dstack([np.full((HEIGHT, WIDTH, 3), 255, np.uint8), mask])
    assert upload(png(clear)).startswith("6.5 %"), "what is transparent is kept"
    assert upload(png(mask // 2)).startswith("That mask has no white")


def test_the_form_sends_what_was_marked_last(host: Host) -> None:
    on = host()
    on.open()
    script = f"""() => {{
        const form = document.querySelector("form"), editor = {EDITOR};
        editor.change((mask) => mask.rectangle([0, 0], [9.5, 9.5], 1));
        return new FormData(form).get("mask").size;
    }}"""
    assert on.page.evaluate(script) > 0, "also before the file is ready"
    marked = on.mask()
    assert marked[:10, :10].all()
    assert marked.sum() == 100
    on.open()
    on.do("invert")
    on.page.click("[type=reset]")
    assert on.said().startswith("Nothing is marked yet")
    assert not on.mask().any()


def test_a_picture_of_the_users_own_is_shown_instead(host: Host) -> None:
    on = host()
    on.open()
    on.do("invert")
    picture = {"name": "own.png", "mimeType": "image/png",
               "buffer": png(np.zeros((40, 50, 3), np.uint8))}  # fmt: skip
    on.page.set_input_files("#own", picture)
    on.page.wait_for_selector('[data-mask="paint"][width="50"][height="40"]')
    assert on.said().startswith("Nothing is marked yet")
    on.do("invert")
    assert on.mask().shape == (40, 50)


def test_without_scripts_a_mask_can_still_be_sent(host: Host) -> None:
    on = host(java_script_enabled=False)
    on.page.goto("/mask-host")
    assert not on.page.locator('[data-do="undo"]').is_visible()
    assert on.page.locator('[data-mask="picture"]').is_visible()
    data = png(np.full((HEIGHT, WIDTH), 255, np.uint8))
    sent = {"name": "m.png", "mimeType": "image/png", "buffer": data}
    on.page.set_input_files('[data-mask="file"]', sent)
    on.page.click("#send")
    on.page.wait_for_selector("#received")
    assert on.sent[-1] == data


@pytest.mark.parametrize(("language", "light"), [("en", "light"), ("ru", "dark")])
def test_axe_finds_nothing_serious_and_a_phone_has_room(
    host: Host, language: str, light: str
) -> None:
    on = host(locale=language, color_scheme=light)
    for width in (1000, 360):
        on.page.set_viewport_size({"width": width, "height": 740})
        on.open()
        on.page.evaluate("document.querySelector('.mask-help').open = true")
        assert serious(on.page) == []
        overhang = on.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overhang <= 0
