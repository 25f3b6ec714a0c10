"""The page of `diffatlas explore` in a real browser, with a real store, a real server and the real
command: what one does with it, and what it must never do.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

from flows.command_line import app
from tests.screenshots import colours_in, keep
from tests.tasks.tiny_store import SPEC, answer

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = "/usr/bin/chromium"
pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no browser on this machine")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of a real study."""
    found = str(tmp_path_factory.mktemp("page") / "store")
    answer(found, SPEC)
    return found


@pytest.fixture(scope="module")
def address(uri: str) -> Iterator[str]:
    """The address of the page, which the command itself serves."""
    command = [sys.executable, "-m", "flows", "explore", "--store", uri, "--no-browser", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[2]
        process.terminate()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    """The page, drawn; nothing may be asked of any other machine, and nothing may go wrong in it."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1300, "height": 1000})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        opened = context.new_page()
        opened.set_default_timeout(20_000)
        wrong: list[str] = []
        told = re.compile("the server responded with a status of (400|500)")  # which the page tells in a sentence
        opened.on(
            "console",
            lambda said: wrong.append(said.text) if said.type == "error" and not told.search(said.text) else None,
        )
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on(
            "request",
            lambda one: wrong.append(one.url) if not one.url.startswith((address, "data:", "blob:")) else None,
        )
        opened.goto(address)
        drawn(opened)
        yield opened
        assert opened.evaluate("document.documentElement.dataset.problems") is None
        assert wrong == []
        browser.close()


def drawn(page: Page) -> None:
    page.wait_for_selector("html[data-shown]")


def rows(page: Page) -> list[list[str]]:
    """The cells of the page's table, numbers in full."""
    found: list[list[str]] = page.eval_on_selector_all(
        "#table tbody tr", "all => all.map(row => [...row.cells].slice(2).map(cell => cell.title || cell.textContent))"
    )
    return found


def copied(page: Page, name: str) -> str:
    page.get_by_role("button", name=name).first.click()
    page.get_by_text("copied", exact=True).wait_for()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def printed(command: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What a copied command prints, in full."""
    capsys.readouterr()
    assert not app([*shlex.split(command)[1:], "--format", "json"], standalone_mode=False)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@needs_browser
def test_a_reader_looks_filters_clicks_compares_and_copies(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    lines = page.locator("#plot .scatterlayer .trace .lines path")
    assert lines.count() >= 4
    everything = rows(page)

    page.get_by_label("Filter").fill("sampler == 'heun'")
    page.get_by_label("Filter").press("Enter")
    page.wait_for_url("**where=sampler**")
    drawn(page)
    assert len(rows(page)) < len(everything)

    page.get_by_label("Filter").fill("smapler == 'heun'")
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("alert").wait_for()
    assert "no column 'smapler'; did you mean 'sampler'?" in page.get_by_role("alert").inner_text()
    page.go_back()
    drawn(page)
    assert page.get_by_role("alert").count() == 0
    assert page.get_by_label("Filter").input_value() == "sampler == 'heun'"

    place = page.locator("#plot .scatterlayer .trace .points path").last.bounding_box()
    assert place is not None
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.get_by_role("heading", name="Samples").wait_for()
    page.locator("#details .barlayer path").first.wait_for()
    assert "point=" in page.url
    assert page.get_by_text("400 of 400 samples").count() == 1
    page.get_by_text("Spec of its cell").click()
    assert '"engine"' in page.locator("#details details[open] pre").inner_text()

    boxes = page.locator("#table tbody input")
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_role("button", name="Compare the ticked rows").click()
    page.get_by_role("heading", name="Can they be told apart?").wait_for()
    assert page.locator("#comparison td", has_text="steps").count() >= 1

    shown = rows(page)
    records = printed(copied(page, "As a command"), capsys)
    assert [float(row[-3]) for row in shown] == [record["w1_mean"] for record in records]

    link = copied(page, "As a link")
    page.goto("about:blank")
    page.goto(link)
    drawn(page)
    page.get_by_role("heading", name="Can they be told apart?").wait_for()
    assert rows(page) == shown

    page.goto(link.partition("?")[0] + "?study=none")
    page.get_by_role("alert").get_by_text("none").wait_for()
    assert not page.locator("html[data-shown]").count()
    page.get_by_label("Study").select_option("tiny")
    drawn(page)
    assert page.get_by_role("alert").count() == 0
    page.get_by_label("Statistic").select_option("median")
    page.wait_for_url("**stat=median**")
    drawn(page)
    assert (page.get_by_label("Band").is_disabled(), page.get_by_label("Band").input_value()) == (True, "none")

    page.route("**/api/view?*", lambda route: route.fulfill(status=500, body="Internal Server Error"))
    page.get_by_label("Metric").select_option("ks")
    page.get_by_role("alert").get_by_text("The server failed to answer this (status 500)").wait_for()
    page.unroute("**/api/view?*")


VIEWS = {
    "curves": "",
    "every-seed": "?each=1&x=nfe",
    "by-texts": "?x=sampler&by=formulation,steps",
    "baseline": "?base=formulation+%3D%3D+%27exact%27&by=formulation,sampler",
    "heat": "?view=heat",
    "heat-of-two": "?view=heat&x=sampler&y=steps&metric=ks",
    "scatter": "?view=scatter&x=nfe",
    "every-point": "?view=scatter&x=ks&each=1",
    "moved": "?view=moved",
}

# Of each trace that stands for rows: its numbers as plotly has them, and where its markers are in the window.
MARKERS = """() => { const place = document.querySelector("#plot");
  return place.data.map((trace, i) => [trace, i]).filter(([trace]) => trace.customdata && trace.type === "scatter").map(([trace, i]) => {
    const finite = (one) => Number.isFinite(one.x) && Number.isFinite(one.y);
    const marks = [...place.querySelectorAll(`.trace${place._fullData[i].uid} .points path`)].map((mark) => {
      const box = mark.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    });
    return { x: trace.x, y: trace.y, marks, drawn: place.calcdata[i].filter(finite).length };
  }); }"""

# Where the picture's own area is, and what its axes reach from and to.
AREA = """() => { const place = document.querySelector("#plot");
  const { x, y, width, height } = place.querySelector(".nsewdrag").getBoundingClientRect();
  const axis = ({ type, range, _categories }) => ({ type, range, categories: _categories || null });
  return { x, y, width, height, axes: [axis(place._fullLayout.xaxis), axis(place._fullLayout.yaxis)] }; }"""


def rows_drawn(shown: dict[str, Any]) -> list[list[tuple[Any, float]]]:
    """What each trace must draw: the rows of the answer that have a place."""
    if shown["view"] == "moved":
        groups = shown["groups"]
        names = ["better", "worse", "within noise", "unchanged", "not testable"]
        at = [[i for i, one in enumerate(groups["verdict"]) if one == name] for name in names]
        return [[(groups["before"][i], groups["after"][i]) for i in own] for own in at]
    return [list(zip(one["x"], one["y"], strict=True)) for one in shown["series"]]


def place_of(value: Any, axis: dict[str, Any]) -> float:
    """Where a value stands on an axis, from 0 at its beginning to 1 at its end."""
    low, high = axis["range"]
    at = axis["categories"].index(value) if axis["type"] == "category" else value
    found: float = ((np.log10(at) if axis["type"] == "log" else at) - low) / (high - low)
    return found


@needs_browser
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_draws_the_rows_of_its_answer_where_they_belong(page: Page, address: str, view: str) -> None:
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1300, "height": 1000})
    page.goto(f"{address}{VIEWS[view]}")
    drawn(page)
    with urllib.request.urlopen(f"{address}api/view{VIEWS[view]}") as answered:  # noqa: S310  # this machine's own
        shown = json.load(answered)
    page.wait_for_timeout(200)
    picture = keep(page, f"explorer-{view}")
    area = page.evaluate(AREA)
    if shown["view"] == "heat":
        colours_are_those_of_the_cells(page, picture, area, shown)
        return
    found, wanted = page.evaluate(MARKERS), rows_drawn(shown)
    assert [list(zip(one["x"], one["y"], strict=True)) for one in found] == [list(map(tuple, rows)) for rows in wanted]
    assert sum(map(len, wanted)) >= 4
    empty = np.array([colour_of(page, name) for name in ("page", "grid")])
    for one, own in zip(found, wanted, strict=True):
        rows = [(x, y) for x, y in own if x is not None and y is not None]
        assert len(one["marks"]) == one["drawn"] == len(rows)
        for (left, top), (x, y) in zip(one["marks"], rows, strict=True):
            assert left == pytest.approx(area["x"] + area["width"] * place_of(x, area["axes"][0]), abs=2.5)
            assert top == pytest.approx(area["y"] + area["height"] * (1 - place_of(y, area["axes"][1])), abs=2.5)
        shades = colours_in(picture, one["marks"])
        assert (np.abs(shades[:, None] - empty).max(axis=2) > 20).all()  # neither the ground nor a line of the grid


def colour_of(page: Page, name: str) -> list[int]:
    """A colour of the page's sheet, by its name there."""
    text: str = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')").strip()
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]


def colours_are_those_of_the_cells(page: Page, picture: bytes, area: dict[str, Any], shown: dict[str, Any]) -> None:
    """Near a corner of each cell, beside its number, the picture has the ramp's colour of its value."""
    cells = np.array([[np.nan if one is None else one["value"] for one in row] for row in shown["cells"]], float)
    assert np.isfinite(cells).sum() == len(shown["table"]["rows"]) >= 4
    assert min(cells.shape) > 1
    values = np.log10(cells) if shown["z"]["log"] else cells
    share = (values - np.nanmin(values)) / (np.nanmax(values) - np.nanmin(values))
    ramp = np.array([colour_of(page, f"ramp-{k}") for k in range(1, 6)], float)
    down, across = cells.shape
    where = [(i, j) for i in range(down) for j in range(across) if np.isfinite(cells[i, j])]
    spots = [
        (area["x"] + area["width"] * (j + 0.08) / across, area["y"] + area["height"] * (i + 0.12) / down)
        for i, j in where
    ]
    wanted = [[np.interp(4 * share[place], range(5), ramp[:, k]) for k in range(3)] for place in where]
    assert colours_in(picture, spots) == pytest.approx(np.array(wanted), abs=3)
    texts = page.locator("#plot .annotation-text").all_inner_texts()
    assert len(texts) == len(where)


def tab_to(page: Page, there: str, key: str = "Tab") -> None:
    """Go on by the keyboard until what has the focus is `there`, an expression of `one`."""
    for _ in range(150):
        page.keyboard.press(key)
        if page.evaluate(f"(one => {there})(document.activeElement)"):
            return
    raise AssertionError(there)


@needs_browser
def test_all_of_it_can_be_done_by_the_keyboard(page: Page, address: str) -> None:
    named = "one.getAttribute('aria-label') || one.textContent"
    page.set_viewport_size({"width": 1300, "height": 1000})
    page.goto(address)
    drawn(page)
    tab_to(page, "one.name === 'view'")
    for key, view in (
        ("ArrowRight", "heat"),
        ("ArrowRight", "scatter"),
        ("ArrowLeft", "heat"),
        ("ArrowLeft", "curves"),
    ):
        page.keyboard.press(key)
        page.wait_for_selector(f"html[data-shown={view}]")
    tab_to(page, "one.classList.contains('pin')")
    page.keyboard.press("Space")
    page.wait_for_url("**base=**")
    drawn(page)
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"  # it is there still
    page.keyboard.press("Space")
    drawn(page)

    tab_to(page, f"({named}).startsWith('open ')")
    opener = page.evaluate(f"(one => {named})(document.activeElement)")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Samples").wait_for()
    page.wait_for_function("document.activeElement.id === 'details'")
    tab_to(page, "one.textContent === 'Spec of its cell'")
    page.keyboard.press("Enter")
    assert '"engine"' in page.locator("#details details[open] pre").inner_text()
    tab_to(page, "one.textContent === 'Close'", "Shift+Tab")
    page.keyboard.press("Enter")
    assert not page.locator("#details").is_visible()
    assert page.evaluate(f"(one => {named})(document.activeElement)") == opener

    for _ in range(2):
        tab_to(page, "one.type === 'checkbox' && one.closest('#table')")
        page.keyboard.press("Space")
    tab_to(page, "one.id === 'compare'", "Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Can they be told apart?").wait_for()
    tab_to(page, "one.textContent === 'As a command'")
    page.keyboard.press("Enter")
    page.get_by_text("copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#asked pre.command").first.inner_text()
    keep(page, "explorer-by-keyboard")


@needs_browser
@pytest.mark.parametrize(
    ("view", "scheme"), [("curves", "dark"), ("heat", "light"), ("scatter", "dark"), ("moved", "light")]
)
def test_every_view_can_be_read_by_anyone_on_any_screen(page: Page, address: str, view: str, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(f"{address}?view={view}" + ("&x=nfe" if view == "scatter" else ""))
    drawn(page)
    page.locator("#fold summary").click()
    if view == "curves":
        page.get_by_role("button", name="open").first.click()
        page.get_by_role("heading", name="Training loss").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    keep(page, f"explorer-{view}-narrow", full_page=True)
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in serious] == []


@needs_browser
def test_the_page_follows_a_store_as_shards_are_committed(page: Page, address: str, uri: str) -> None:
    page.set_viewport_size({"width": 1300, "height": 1000})
    page.goto(address)
    drawn(page)
    before, lines = page.locator("#snapshot").inner_text(), len(rows(page))
    page.get_by_role("button", name="open").first.click()
    listed = page.get_by_role("heading", name="points behind this")
    listed.wait_for()
    page.get_by_text("Spec of its cell").click()
    page.get_by_label("Column").select_option("steps")
    page.get_by_label("Value", exact=True).select_option("steps == 3")
    page.get_by_label("Filter").fill("seed <")
    page.get_by_label("Metric", exact=True).focus()
    answer(uri, SPEC | {"steps": [1, 2, 3]})
    page.get_by_text(before, exact=True).wait_for(state="detached")
    page.locator("html[data-shown] #table tbody tr").nth(lines).wait_for()
    assert "2" in {row[-4] for row in rows(page)}
    assert page.get_by_label("Filter").input_value() == "seed <"
    assert page.get_by_text("Typed, not applied yet").is_visible()
    assert page.get_by_label("Value", exact=True).input_value() == "steps == 3"
    assert listed.is_visible()
    assert '"engine"' in page.locator("#details details[open] pre").inner_text()
    page.get_by_role("button", name="Clear", exact=True).click()
    assert page.get_by_label("Filter").input_value() == ""
