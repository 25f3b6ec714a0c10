"""What a page of many points costs, in seconds, beside one of few and beside reading its points;
and how long a browser takes until its first picture is drawn, beside a page of the same plotly with
one picture of two points (`python -m tests.benchmarks.pages`, with Chromium).
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from plotly.offline import get_plotlyjs

from tasks.report import draw_report
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tests.benchmarks.pairs import Ratio, paired
from tests.tasks.realistic import realistic

MANY, FEW = 28, 3  # seeds: 10,080 and 1,080 points


def _page(made: ModelledAnswers) -> str:
    """The page of a store that is opened for it."""
    return draw_report(_opened(made))


def _opened(made: ModelledAnswers) -> ModelledAnswers:
    return ModelledAnswers(Store.open(str(made.provenance["store"])), made.name)


def page_grows() -> Ratio:
    """The page of 10,080 points over one of 1,080 with the same curves."""
    many, few = realistic(seeds=MANY), realistic(seeds=FEW)
    return paired(lambda: _page(many), lambda: _page(few), 3, time.process_time)


def page_against_reading() -> Ratio:
    """The page of 10,080 points over reading these with their specs."""
    many = realistic(seeds=MANY)

    def read() -> None:
        answers = _opened(many)
        assert len(answers.point_specs()) == answers.points.sizes["point"]

    return paired(lambda: _page(many), read, 3, time.process_time)


MEASURES: tuple[tuple[str, Callable[[], Ratio]], ...] = (
    ("the page of 10,080 points / of 1,080", page_grows),
    ("the page of 10,080 points / reading these and their specs", page_against_reading),
)
"""Lines for the table of `tests.benchmarks.run`."""


_DRAWN = """
new MutationObserver(() => {
  if (document.documentElement.dataset.drawn > 0) window.firstDrawn ??= performance.now();
}).observe(document, {attributes: true, subtree: true, attributeFilter: ["data-drawn"]});
"""


def _least() -> str:
    """A page with plotly as it is and one picture of two points."""
    drawn = "Plotly.newPlot('p', [{y: [1, 2]}]).then(() => { document.documentElement.dataset.drawn = 1; });"
    return f"<!doctype html><div id=p></div><script>{get_plotlyjs()}</script><script>{drawn}</script>"


def opening(times: int = 9) -> dict[str, tuple[Ratio, float, float]]:
    """From navigation to the first picture, in Chromium: the page of 10,080 points over the least
    one, by the clock and by the processor time of the page's own thread; then the median
    milliseconds of each. Both are opened in turns, each time in a new context, which has nothing in
    its cache. What the thread does while the picture is being noticed counts as well.
    """
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        full, least = Path(folder) / "full.html", Path(folder) / "least.html"
        full.write_text(_page(realistic(seeds=MANY)), encoding="utf-8")
        least.write_text(_least(), encoding="utf-8")
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])

        def opened(path: Path) -> tuple[float, float]:
            context = browser.new_context(viewport={"width": 1200, "height": 800})
            context.add_init_script(_DRAWN)
            page = context.new_page()
            inside = context.new_cdp_session(page)
            inside.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(path.as_uri(), wait_until="commit")
            while (drawn := page.evaluate("window.firstDrawn ?? null")) is None:
                page.wait_for_timeout(20)
            metrics = {one["name"]: one["value"] for one in inside.send("Performance.getMetrics")["metrics"]}
            context.close()
            return float(drawn), 1e3 * metrics["TaskDuration"]

        pairs = [(opened(full), opened(least)) for _ in range(times + 1)][1:]
        browser.close()
    found = {}
    for k, name in enumerate(("clock", "processor")):
        own, other = ([one[k] for one in side] for side in zip(*pairs, strict=True))
        ratios = [a / b for a, b in zip(own, other, strict=True)]
        ratio = statistics.median(ratios), min(ratios), max(ratios)
        found[name] = ratio, statistics.median(own), statistics.median(other)
    return found


def making(times: int = 3) -> tuple[float, float]:
    """Seconds in which the page of 10,080 points is made from its store: the least of some times, by
    the clock and by the processor.
    """
    many = realistic(seeds=MANY)

    def once() -> tuple[float, float]:
        clock, processor = time.perf_counter(), time.process_time()
        _page(many)
        return time.perf_counter() - clock, time.process_time() - processor

    clocks, processors = zip(*(once() for _ in range(times)), strict=True)
    return min(clocks), min(processors)


def main() -> None:
    """Measure and print."""
    print("the page of 10,080 points is made in {:.1f} s by the clock, {:.1f} s of processor".format(*making()))  # noqa: T201
    for name, measure in MEASURES:
        print("{}: {:.2f} (from {:.2f} to {:.2f})".format(name, *measure()))  # noqa: T201
    for by, (ratio, full, least) in opening().items():
        print(  # noqa: T201
            "first picture of the page of 10,080 points / of the least page, by the {}: {:.2f} (from {:.2f} to {:.2f}); "
            "{:.0f} and {:.0f} ms".format(by, *ratio, full, least)
        )


if __name__ == "__main__":
    main()
