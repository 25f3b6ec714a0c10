"""The page in a real browser: every picture is drawn with its data and nothing is asked of the
network; it fits a telephone, can be used by the keyboard alone, and axe-core finds nothing serious.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.report import draw_report
from tests.screenshots import FOLDER, keep, pixels_of
from tests.tasks.chosen import answers_to
from tests.tasks.page_reader import Page, unpacked
from tests.tasks.real_page import page_of_all_kinds, together
from tests.tasks.realistic import realistic
from tests.tasks.test_report_line import of_a_way

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-quic", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WIDE, NARROW = (1200, 800), (400, 800)

pytestmark = [
    together,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of curves, tables and findings, without samples."""
    path: Path = tmp_path_factory.mktemp("page") / "curves.html"
    answers = realistic(samplers=("heun", "ddim"), steps=(1, 10, 50), formulations=("edm", "vp"))
    path.write_text(draw_report(answers), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of all kinds."""
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_of_all_kinds(), encoding="utf-8")
    return path


class Watched:
    """A page that is open, with what it complained of and what it asked for."""

    def __init__(
        self,
        browser: Any,
        path: Path,
        size: tuple[int, int],
        scheme: str = "light",
        at: str = "",
        motion: str = "no-preference",
    ) -> None:
        viewport = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion=motion)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda asked: self.requests.append(asked.url))
        self.page.set_default_timeout(180_000)
        self.page.goto(path.as_uri() + at, wait_until="commit")
        until(self.page, "document.documentElement.dataset.drawn > 0")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def until(page: Any, expression: str) -> None:
    """Wait until it is true; not by the driver's own way, which the page's policy forbids."""
    deadline = time.monotonic() + 240
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def test_a_page_of_ten_thousand_points_is_small_and_opens_with_its_first_picture(browser: Any, tmp_path: Path) -> None:
    answers = realistic(seeds=28)
    assert answers.points.sizes["point"] > 10_000
    path = tmp_path / "many.html"
    path.write_text(draw_report(answers), encoding="utf-8")
    assert path.stat().st_size < 3_000_000
    with Watched(browser, path, WIDE) as page:
        box = page.locator(".plot").first.bounding_box()
        assert box["y"] + box["height"] <= 700
        assert page.locator(".plot").first.locator(".scatterlayer .trace path").count() > 10
        assert "10,080" in page.locator(".stamp").inner_text()


# What is on the page of each trace: its numbers, how many places on the page they have, and what stands for them.
DRAWN = """() => [...document.querySelectorAll(".plot")].map((place) => ({
  title: place.closest("figure").querySelector("h5").textContent,
  traces: place._fullData.map((trace, i) => ({
    kind: trace.type,
    numbers: Object.fromEntries(["x", "y", "z"].filter((key) => trace[key]).map((key) => [key, [...trace[key]].map(
      (row) => (typeof row === "object" && row !== null ? [...row] : row))])),
    places: place.calcdata[i].filter((one) => Number.isFinite(one.x) && Number.isFinite(one.y)).length,
    points: place.querySelectorAll(`.trace${trace.uid} .points path`).length,
    marks: trace.type === "scatter" ? place.querySelectorAll(`.trace${trace.uid} path, .trace${trace.uid} text`).length
      : trace.type === "bar" ? place.querySelectorAll(".barlayer .trace path").length
      : trace.type === "heatmap" ? place.querySelectorAll(".heatmaplayer image").length
      : place.querySelectorAll("canvas").length,
  })),
}))"""


def numbers_of(values: Any) -> Any:
    """A trace's numbers as a picture's specification or the page has them, to be compared."""
    found = unpacked(values) if isinstance(values, dict) else values
    if isinstance(found, list) and any(isinstance(one, str) for one in found):
        return found
    return np.array(found, np.float64).tolist()


def coloured(pixels: Any, box: dict[str, float]) -> int:
    """How many pixels of a picture have a colour, as neither axes nor texts nor the ground have."""
    left, top, right, bottom = (round(box[side]) for side in ("left", "top", "right", "bottom"))
    shades = pixels[top:bottom, left:right].astype(int)
    return int((shades.max(axis=2) - shades.min(axis=2) > 40).sum())


def test_a_browser_that_is_too_old_says_so_in_place_of_the_first_picture(browser: Any, curves: Path) -> None:
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(curves.as_uri(), wait_until="commit")
    until(page, "document.documentElement.dataset.problems !== undefined")
    (first, *others) = page.evaluate("[...document.querySelectorAll('.plot')].map((place) => place.innerText)")
    assert first == "The pictures cannot be drawn: this browser is too old to unpack them."
    assert set(others) == {""}
    page.close()


def test_every_picture_is_drawn_with_its_data(browser: Any, whole: Path) -> None:
    specs = Page(page_of_all_kinds()).specs
    with Watched(browser, whole, WIDE, at="#all") as page:
        until(page, "document.documentElement.dataset.all === 'drawn'")
        assert page.evaluate("document.documentElement.dataset.problems") is None
        found = page.evaluate(DRAWN)
        assert len(found) == len(specs) == page.evaluate("Number(document.documentElement.dataset.drawn)")
        assert {trace["kind"] for one in found for trace in one["traces"]} == {
            "scatter",
            "bar",
            "heatmap",
            "scatter3d",
            "surface",
        }
        for one, spec in zip(found, specs, strict=True):
            assert len(one["traces"]) == len(spec["data"])
            for drawn, wanted in zip(one["traces"], spec["data"], strict=True):
                for key, values in drawn["numbers"].items():
                    if key in wanted:
                        np.testing.assert_equal(numbers_of(values), numbers_of(wanted[key]), one["title"])
                assert set(drawn["numbers"]) >= {"x", "y", "z"} & set(wanted)
                assert drawn["marks"], one["title"]
                if drawn["kind"] == "scatter":
                    assert drawn["places"], one["title"]
                    markers = "markers" in wanted.get("mode", "")
                    assert drawn["points"] == (drawn["places"] if markers else 0), one["title"]
        assert pale(page, len(specs)) == []


def pale(page: Any, pictures: int) -> list[int]:
    """Which pictures have hardly a pixel in colour; the page is looked at in windows of 8,000 pixels,
    because a browser draws no more than twice that at once.
    """
    boxes = """[...document.querySelectorAll(".plot")].map((one) => one.getBoundingClientRect().toJSON())"""
    page.set_viewport_size({"width": 1200, "height": 8000})
    left, found, top = set(range(pictures)), [], 0
    while left:
        page.evaluate(f"scrollTo({{top: {top}, behavior: 'instant'}})")
        page.wait_for_timeout(100)
        places = page.evaluate(boxes)
        inside = [k for k in sorted(left) if places[k]["top"] >= 0 and places[k]["bottom"] <= 8000]
        assert inside, f"pictures {left} are nowhere"
        pixels = pixels_of(keep(page, f"page-of-all-kinds-{top}"))
        found += [k for k in inside if coloured(pixels, places[k]) < 50]
        left -= set(inside)
        top += min(7400, int(min((places[k]["top"] for k in left), default=0)) - 50)
    return found


def test_the_sections_stand_in_the_order_of_the_contents_and_the_rest_is_folded(browser: Any, curves: Path) -> None:
    with Watched(browser, curves, WIDE) as page:
        sections = page.evaluate(
            "[...document.querySelectorAll('main > section[id], footer[id]')].map((one) => one.id)"
        )
        order = ["answer", "data-1", "findings", "tables", "published", "claims", "method", "provenance"]
        assert [one for one in order if one in sections] == sections
        assert {"answer", "data-1", "tables", "claims", "method"} <= set(sections)
        hashes = page.evaluate("[...document.querySelectorAll('#contents a')].map((one) => one.hash.slice(1))")
        assert hashes == sections
        last = page.evaluate(
            "Math.max(...[...document.querySelectorAll('.plot')].map((one) => one.compareDocumentPosition("
            "document.querySelector('#tables')) & Node.DOCUMENT_POSITION_FOLLOWING))"
        )
        assert last  # no picture comes after the first table
        folds = """[...document.querySelectorAll("#tables, #claims, #method, #provenance")].map((one) =>
          [...one.children].filter((part) => part.localName === "details").map((part) => part.open))"""
        assert all(opened and not any(opened) for opened in page.evaluate(folds))
        keep(page, "page-wide")


def test_on_a_telephone_the_contents_are_in_reach_from_everywhere(browser: Any, curves: Path) -> None:
    with Watched(browser, curves, NARROW) as page:
        keep(page, "page-narrow")
        page.evaluate("scrollTo({top: document.body.scrollHeight, behavior: 'instant'})")
        button = page.get_by_role("button", name="Contents")
        assert 0 <= button.bounding_box()["y"] < 60
        button.click()
        link = page.locator('#contents a[href="#tables"]')
        box = link.bounding_box()
        assert 0 <= box["y"] < 800
        keep(page, "page-narrow-contents")
        link.click()
        until(page, "(({top}) => top >= 0 && top < 200)(document.querySelector('#tables h2').getBoundingClientRect())")
        assert not link.is_visible()


def test_a_name_dims_the_other_curves_also_in_pictures_that_are_drawn_later(browser: Any, whole: Path) -> None:
    stands = """([key, later]) => [...document.querySelectorAll(".plot")].flatMap((place) => (place._fullData || []).map((trace, i) => {
      const meta = place.data[i].meta;
      const drawing = meta && meta.families && place.querySelector(`.trace${trace.uid}`);
      return drawing ? [meta.families.includes(key), drawing.style.opacity === ""] : null;
    })).filter((one) => one !== null)"""
    figures = """(key) => [...document.querySelectorAll("figure[data-families]")].map((figure) =>
      [figure.dataset.families.split(" ").includes(String(key)), !figure.classList.contains("dim")])"""
    with Watched(browser, whole, WIDE) as page:
        button = page.locator(".legend button", has_text="vp")
        key = int(button.get_attribute("data-key"))
        button.click()
        page.mouse.move(600, 400)
        before = page.evaluate(stands, [key, False])
        assert {True, False} == {own for own, _ in before} == {lit for _, lit in before}
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        for place in page.locator(".plot:visible").all():
            place.scroll_into_view_if_needed()
        until(
            page, "[...document.querySelectorAll('.plot')].every((one) => one.offsetParent === null || one._fullData)"
        )
        after = page.evaluate(stands, [key, True])
        assert len(after) > len(before)
        assert all(own == lit for own, lit in after)
        found = page.evaluate(figures, key)
        assert {True, False} == {own for own, _ in found}
        assert all(own == lit for own, lit in found)
        keep(page, "page-one-name")


def test_printed_everything_is_unfolded_light_and_as_wide_as_paper(browser: Any, curves: Path) -> None:
    wide = """[...document.querySelectorAll('.plot')].filter((one) => one.offsetParent).map((one) =>
      [one.clientWidth, one._fullLayout?.width, one._fullLayout?.font.color])"""
    with Watched(browser, curves, WIDE, "dark") as page:
        closed = page.evaluate("document.querySelectorAll('details:not([open])').length")
        assert closed
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
        until(page, f"{wide}.every(([own, drawn, ink]) => Math.abs(own - drawn) < 1 && ink === '#1b1f24')")
        widths = [own for own, *_ in page.evaluate(wide)]
        assert max(widths) <= 43 * 16
        assert len(widths) > 5
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        until(page, "document.querySelector('.plot')._fullLayout.font.color === '#e6e9ed'")
        assert page.evaluate("document.querySelectorAll('details:not([open])').length") == closed
        page.pdf(path=FOLDER / "page-printed.pdf", prefer_css_page_size=True, format="A4")


STANDS = """[...document.querySelectorAll('.plot')].filter((one) => one.offsetParent).map((one) =>
  [one.clientWidth, one._fullLayout?.width, one._fullLayout?.font.color, one.querySelectorAll('.main-svg, canvas').length])"""


def test_what_is_printed_is_drawn_before_it_is_printed(browser: Any, whole: Path) -> None:
    """The browser waits for nobody between `beforeprint` and the paper: what stands when the page's own
    listener has returned is printed. That is every picture, in the colours and the width of paper,
    although most had not been in sight.
    """
    note = f"addEventListener('beforeprint', () => {{ window.stood = {STANDS}; }})"  # after the page's own
    with Watched(browser, whole, WIDE, "dark") as page:
        drawn, plots = page.evaluate(
            "[document.documentElement.dataset.drawn, document.documentElement.dataset.plots].map(Number)"
        )
        assert drawn < plots
        page.evaluate(note)
        page.pdf(path=FOLDER / "page-of-all-kinds-printed.pdf", prefer_css_page_size=True, format="A4")
        stood = page.evaluate("window.stood")
        assert len(stood) > drawn
        assert [one for one in stood if one[1] is None or abs(one[0] - one[1]) > 1] == []
        assert {ink for _, _, ink, _ in stood} == {"#1b1f24"}
        assert all(marks for *_, marks in stood)


def test_the_first_picture_is_in_sight_and_the_rest_is_drawn_when_it_comes(browser: Any, curves: Path) -> None:
    for size, lowest in ((WIDE, 700), (NARROW, 1600)):
        with Watched(browser, curves, size) as page:
            box = page.locator(".plot").first.bounding_box()
            assert box["y"] + box["height"] <= lowest
            assert page.locator(".sentences p").first.bounding_box()["y"] < 2 * size[1]
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            drawn, plots = page.evaluate(
                "[document.documentElement.dataset.drawn, document.documentElement.dataset.plots].map(Number)"
            )
            assert 0 < drawn < plots
            page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_print_keeps_what_introduces_with_what_follows_and_shows_its_keys(browser: Any, curves: Path) -> None:
    style = "([selector, key]) => [...document.querySelectorAll(selector)].map((one) => getComputedStyle(one)[key])"
    with Watched(browser, curves, WIDE) as page:
        assert set(page.evaluate(style, ["section > p", "breakAfter"])) == {"auto"}
        page.emulate_media(media="print")
        for selector in ("h2", "h3", "h4", "h5", "summary", ".key", "section > p"):
            found = page.evaluate(style, [selector, "breakAfter"])
            assert found, selector
            assert set(found) == {"avoid"}, selector
        assert set(page.evaluate(style, ["figure, tr, section > p", "breakInside"])) == {"avoid"}
        assert set(page.evaluate(style, [".swatch", "printColorAdjust"])) == {"exact"}
        assert page.evaluate(style, ["nav, .rail, .switch", "display"]) == ["none"] * 3


def test_names_contents_and_folds_are_used_by_the_keyboard_alone(browser: Any, curves: Path) -> None:
    dim = """(key) => [...document.querySelectorAll(".plot")].flatMap((place) => (place._fullData || []).map((trace, i) => {
      const meta = place.data[i].meta;
      const drawing = meta && !meta.exact && meta.families.includes(key) && place.querySelector(`.trace${trace.uid}`);
      return drawing ? drawing.style.opacity : null;
    })).filter((opacity) => opacity !== null)"""
    focused = "document.activeElement.outerHTML"
    with Watched(browser, curves, WIDE) as page:
        seen = []
        for _ in range(40):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(focused))
            if 'data-key="1"' in seen[-1]:
                break
        assert 'href="#answer"' in seen[0]  # the way past everything
        assert any('id="scheme"' in one for one in seen)
        assert any('href="#tables"' in one for one in seen)
        page.keyboard.press("Space")
        assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
        assert set(page.evaluate(dim, 1)) == {""}
        assert set(page.evaluate(dim, 0)) == {"0.12"}
        page.keyboard.press("Escape")
        assert set(page.evaluate(dim, 0)) == {""}
        link = page.locator('#contents a[href="#tables"]')
        link.focus()
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#tables').getBoundingClientRect().top < innerHeight")
        assert link.bounding_box()["y"] >= 0  # the contents are still in sight
        summary = page.locator("#tables summary").first
        summary.focus()
        before = page.evaluate("document.querySelector('#tables details').open")
        page.keyboard.press("Enter")
        assert page.evaluate("document.querySelector('#tables details').open") is not before


def test_the_switch_turns_the_colours_of_page_and_pictures(browser: Any, curves: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    line = "document.querySelector('.plot')._fullLayout.font.color"
    with Watched(browser, curves, WIDE) as page:
        light = page.evaluate(ground), page.evaluate(line)
        page.locator("#scheme").click()
        until(page, f"{line} !== '{light[1]}'")
        dark = page.evaluate(ground), page.evaluate(line)
        assert dark[0] != light[0]
    with Watched(browser, curves, WIDE, "dark") as page:
        assert (page.evaluate(ground), page.evaluate(line)) == dark


@pytest.mark.parametrize(
    ("which", "scheme", "size"),
    [("curves", "light", NARROW), ("curves", "dark", WIDE)],
)
def test_nothing_serious_keeps_anybody_from_reading_it(
    browser: Any, request: pytest.FixtureRequest, which: str, scheme: str, size: tuple[int, int]
) -> None:
    with Watched(browser, request.getfixturevalue(which), size, scheme) as page:
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        assert serious(page) == []


def serious(page: Any) -> list[tuple[str, list[str]]]:
    """What axe-core calls serious or critical of a page, and where."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    ).Axe
    return [
        (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
        for one in axe().run(page).response["violations"]
        if one["impact"] in {"serious", "critical"}
    ]


def test_nothing_serious_keeps_anybody_from_the_page_of_all_kinds(browser: Any, whole: Path) -> None:
    """Opened once, and turned: wide and narrow, light and dark."""
    with Watched(browser, whole, WIDE, at="#all") as page:
        until(page, "document.documentElement.dataset.all === 'drawn'")
        inks = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for size in (WIDE, NARROW):
                page.set_viewport_size({"width": size[0], "height": size[1]})
                page.wait_for_timeout(300)
                assert serious(page) == [], (scheme, size)
                inks.append(page.evaluate("getComputedStyle(document.body).color"))
        assert inks[0] == inks[1] != inks[2] == inks[3]


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A page of two pictures that move, of 60 and 13 frames; and what they draw."""
    rows = [*of_a_way(80, forward=False), *of_a_way(12, forward=False, schedule="edm")]
    html = draw_report(answers_to(rows, samples=400))
    path: Path = tmp_path_factory.mktemp("page") / "moving.html"
    path.write_text(html, encoding="utf-8")
    specs = [spec for spec in Page(html).specs if "frames" in spec]
    assert [len(spec["frames"]) for spec in specs] == [60, 13]
    return path, specs


# What the pictures that move draw now, and the level that is named above each.
MOVED = """() => [...document.querySelectorAll("figure:has(.frame)")].map((figure) => [
  figure.querySelector(".frame").textContent,
  figure.querySelector(".plot").calcdata.map((trace) => trace.map((one) => one.y)),
])"""


def frames(specs: list[dict[str, Any]], *which: int) -> list[list[Any]]:
    """Of each picture a frame as `MOVED` tells it."""
    chosen = [spec["frames"][k] for spec, k in zip(specs, which, strict=True)]
    return [[frame["name"], [trace["y"] for trace in frame["data"]]] for frame in chosen]


def test_one_control_moves_all_pictures_by_mouse_and_by_keyboard(
    browser: Any, moving: tuple[Path, list[dict[str, Any]]]
) -> None:
    path, specs = moving
    first, last = frames(specs, 0, 0), frames(specs, -1, -1)
    with Watched(browser, path, WIDE) as page:
        page.get_by_text("The same in motion").click()
        control = page.locator(".motion")
        button, slider = control.get_by_role("button"), control.get_by_role("slider")

        def shows(wanted: list[list[Any]]) -> None:
            deadline = time.monotonic() + 60
            while page.evaluate(MOVED) != wanted:
                assert time.monotonic() < deadline, [name for name, _ in page.evaluate(MOVED)]
                page.wait_for_timeout(50)

        until(page, "[...document.querySelectorAll('figure:has(.frame) .plot')].every((one) => one.calcdata)")
        shows(first)
        button.click()
        assert button.inner_text() == "Pause"
        shows(last)
        until(page, "document.querySelector('.motion button').textContent === 'Play'")
        slider.press("Home")
        shows(first)
        slider.press("ArrowRight")
        shows(frames(specs, 1, 0))
        slider.press("End")
        shows(last)
        assert slider.get_attribute("aria-valuetext") == last[0][0]
        page.locator("#scheme").click()
        until(page, "document.querySelector('.plot')._fullLayout.font.color === '#e6e9ed'")
        shows(last)  # in other colours, too
        button.focus()
        page.keyboard.press("Space")  # from the end it begins again
        until(page, "document.querySelector('.motion input').value < 50")
        page.keyboard.press("Space")
        held = slider.input_value()
        page.wait_for_timeout(300)
        assert (slider.input_value(), button.inner_text()) == (held, "Play")
        shows(frames(specs, int(held), round(int(held) / 59 * 12)))
        keep(page, "page-moving")
        for key in ("End", "ArrowLeft", "ArrowLeft"):
            slider.press(key)
        button.press("Enter")
        shows(last)


def test_who_wants_less_motion_moves_the_pictures_step_by_step(
    browser: Any, moving: tuple[Path, list[dict[str, Any]]]
) -> None:
    path, _ = moving
    with Watched(browser, path, NARROW, "dark", motion="reduce") as page:
        page.get_by_text("The same in motion").click()
        button, slider = page.locator(".motion button"), page.locator(".motion input")
        assert button.inner_text() == "Next"
        for k in range(1, 4):
            button.press("Enter")
            page.wait_for_timeout(150)
            assert slider.input_value() == str(k)
        slider.press("End")
        button.press("Enter")
        assert slider.input_value() == "0"
        keep(page, "page-moving-narrow")
