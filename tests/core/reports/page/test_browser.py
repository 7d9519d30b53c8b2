"""A page in a real browser: it opens from a folder, loads everything, and every control works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from kit.pages import NASTY, full_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

DESK, PHONE = 1280, 375

FAINT = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const rgb = numbers(getComputedStyle(at).backgroundColor);
      if (rgb.length < 4 || rgb[3] > 0) return rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3);
    const text = own.map((node) => node.data).join("").trim();
    if (!text || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [low, high] = [light(numbers(ink)), light(behind(element))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} ${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""
"""Text that differs from what is behind it by less than 4.5 to 1 (WCAG 2.1, 1.4.3)."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("av")
    return full_page(tmp_path_factory.mktemp("a folder, 100 %")).as_uri()


class Visit:
    """A page that is open, and what went wrong with it."""

    def __init__(self, browser: Browser, address: str, width: int = DESK, **how: Any):
        self.context = browser.new_context(
            viewport={"width": width, "height": 800}, reduced_motion="reduce", **how
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)  # other work may keep the cores busy
        self.problems: list[str] = []
        self.page.on("console", lambda said: self.problems.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda lost: self.problems.append(f"failed: {lost.url}"))
        self.page.on("request", self._look)
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog {dialog.message}"))
        self.page.goto(address)

    def _look(self, request: Request) -> None:
        if not request.url.startswith(("file://", "data:")):
            self.problems.append(f"leaves the folder: {request.url}")

    def overflow(self) -> int:
        """How many pixels the page is too wide."""
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")

    def close(self) -> None:
        """Leave, and say what went wrong."""
        self.context.close()
        assert self.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_the_page_opens_without_a_problem_and_can_be_read(
    browser: Browser, address: str, width: int, scheme: str
):
    visit = Visit(browser, address, width, color_scheme=scheme)
    page = visit.page
    assert visit.overflow() <= 0
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert visit.overflow() <= 0
    assert page.evaluate(FAINT) == []
    assert NASTY in page.inner_text("h1")
    assert page.locator("main script").count() == 0
    visit.close()


def test_pictures_sounds_and_clips_load(browser: Browser, address: str):
    visit = Visit(browser, address)
    page = visit.page
    page.evaluate("document.querySelectorAll('img').forEach((each) => { each.loading = 'eager'; })")
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for section, kind in (("video", "video"), ("audio", "audio")):
        for policy in page.locator(f"#{section} .picker label").all():
            policy.click()
            shown = f"#{section} .panel:not([hidden]) {kind}"
            assert page.locator(shown).count() == 4
            page.wait_for_function(
                f"[...document.querySelectorAll('{shown}')].every((each) => each.readyState >= 1)"
            )
    page.locator("#image .picker label").last.click()
    page.wait_for_function("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    visit.close()


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_samples_are_compared_by_slider_and_flip(browser: Browser, address: str, width: int):
    visit = Visit(browser, address, width)
    compare = visit.page.locator("#image .compare")
    slider = compare.locator("input[type=range]")
    slider.press("ArrowRight")
    assert slider.input_value() == "51"
    assert slider.get_attribute("aria-valuetext") == "51 percent plain, 49 percent cached"
    clip = "getComputedStyle(document.querySelector('#image .view.cached')).clipPath"
    assert "51%" in visit.page.evaluate(clip)
    flip = compare.get_by_role("button", name="Flip")
    for value in ("0", "100"):
        flip.press("Enter")
        assert slider.input_value() == value
    first = compare.locator(".panel:not([hidden]) .stack").first
    first.scroll_into_view_if_needed()
    box = first.bounding_box()
    assert box is not None
    visit.page.mouse.click(box["x"] + box["width"] / 4, box["y"] + 5)
    assert abs(int(slider.input_value()) - 25) <= 2
    compare.get_by_label("side by side").check()
    plain, cached = (
        compare.locator(f".panel:not([hidden]) .view.{n}").first for n in ("plain", "cached")
    )
    boxes = plain.bounding_box(), cached.bounding_box()
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert not slider.is_visible()
    compare.get_by_label("difference").uncheck()
    assert compare.locator(".difference:visible").count() == 0
    compare.get_by_role("radio").last.press(" ")
    assert compare.locator(".panel h4:visible").count() == 0
    assert compare.locator(".panel").last.is_visible()
    assert not compare.locator(".panel").first.is_visible()
    assert visit.overflow() <= 0
    visit.close()


def test_clips_play_in_step_and_sounds_are_swapped_while_they_play(browser: Browser, address: str):
    visit = Visit(browser, address)
    page = visit.page
    play = page.get_by_role("button", name="Play all")
    play.click()
    clips = "[...document.querySelectorAll('#video .panel:not([hidden]) video')]"
    page.wait_for_function(f"{clips}.every((each) => !each.paused && each.currentTime > 0)")
    page.get_by_role("button", name="Pause all").click()
    assert page.evaluate(f"{clips}.every((each) => each.paused)")
    page.locator("#video").get_by_label("side by side").uncheck()
    assert not page.evaluate(f"{clips}[0].controls")
    sounds = "[...document.querySelectorAll('#audio .panel:not([hidden]) audio')]"
    page.evaluate(f"{sounds}[0].play()")
    page.wait_for_function(f"{sounds}[0].currentTime > 0")
    page.get_by_role("button", name="Swap what plays").click()
    page.wait_for_function(f"{sounds}[0].paused && !{sounds}[1].paused")
    assert page.evaluate(f"{sounds}[1].currentTime") > 0
    visit.close()


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_points_say_what_they_are_to_pointer_and_keyboard(
    browser: Browser, address: str, width: int
):
    visit = Visit(browser, address, width)
    page, tip = visit.page, visit.page.locator("#tip")
    plot = page.locator("#image .plot")
    assert plot.locator("g.mark").count() == 7  # plain has no error, and so no place
    ours = plot.locator("g.mark.ours")
    ours.locator(".shape").hover()
    words = ["plan 0.5", "compute: 0.500", "error: 0.02 (95 %: 0.015 to 0.03)", "predicted: 0.018"]
    words += ["speedup: 2.00x", "seconds: 2.5", "schedule: schedules/plan-0.5.json"]
    assert [word for word in words if word not in tip.inner_text()] == []
    page.mouse.move(1, 1)
    assert not tip.is_visible()
    ours.focus()
    assert tip.is_visible()
    page.keyboard.press("ArrowRight")
    assert "plan 0.5" not in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    published = plot.locator("g.mark.published")
    published.locator(".shape").click()
    assert NASTY in tip.inner_text()
    assert NASTY in str(published.get_attribute("aria-label"))
    assert visit.overflow() <= 0
    visit.close()


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_skip_maps_say_what_is_under_the_pointer(browser: Browser, address: str, width: int):
    visit = Visit(browser, address, width)
    page = visit.page
    shown = page.locator("#image .map").first
    rows = shown.locator("svg").nth(1)
    rows.scroll_into_view_if_needed()
    box = rows.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.5)
    assert page.locator("#tip").inner_text() == "ff, evaluation 2: reused or filled\nblocks.1.ff"
    page.mouse.move(1, 1)
    shown.locator(".grid").focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowRight", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    told = "attn, evaluation 3: computed (blocks.1.attn)"
    assert shown.locator(".told").inner_text() == told
    visit.close()


def test_theme_is_switched_and_remembered(browser: Browser, address: str):
    visit = Visit(browser, address, color_scheme="light")
    page = visit.page
    shade = "getComputedStyle(document.body).backgroundColor"
    before, button = page.evaluate(shade), page.get_by_role("button", name="Dark")
    button.click()
    dark = page.evaluate(shade)
    assert dark != before
    assert page.evaluate(FAINT) == []
    page.reload()
    assert page.evaluate(shade) == dark
    assert button.get_attribute("aria-pressed") == "true"
    button.press("Enter")
    assert page.evaluate(shade) == before
    visit.close()


def test_the_line_to_type_is_copied(browser: Browser, address: str):
    visit = Visit(browser, address, permissions=["clipboard-read", "clipboard-write"])
    visit.page.get_by_role("button", name="Copy").first.click()
    visit.page.wait_for_selector("button:text('Copied'), button:text('Selected')")
    assert "smoothcache-image sample" in visit.page.evaluate("getSelection().toString()")
    visit.close()


def test_screen_readers_hear_names_of_everything(browser: Browser, address: str):
    visit = Visit(browser, address)
    page = visit.page
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("audio:not([aria-label]), video:not([aria-label])").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("main, header, footer").count() == 3
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((each) => Number(each.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(level <= before + 1 for before, level in pairwise(levels))
    names = page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(set(names)) == len(names)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    visit.close()


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_what_matters_is_there_without_javascript(browser: Browser, address: str, width: int):
    visit = Visit(browser, address, width, java_script_enabled=False)
    page = visit.page
    assert page.locator(".needs-js:visible").count() == 0
    assert page.locator(".panel:visible").count() == 6
    assert page.locator("table:visible").count() == 7
    assert page.locator("video[controls]:visible").count() == 8
    assert page.locator("#image .view.plain img").first.is_visible()
    assert page.locator("#image g.mark title").count() == 7
    visit.close()
