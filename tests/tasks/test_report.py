"""The report is one file that opens anywhere, says what the numbers say, and hides nothing."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

from tasks.report import ReportSource, draw_report
from tasks.report.numbers.curves import Mean, tabulate
from tasks.report.numbers.findings import failures, thin, verdicts
from tasks.report.pictures.quality import quality
from tasks.report.pictures.style import PALETTE, dash, escaped, symbol
from tasks.report.text import number, plus_minus
from tasks.results import Answers
from tasks.store import Store
from tests.tasks import report_fixture as fixture
from tests.tasks.chosen import Told, chosen
from tests.tasks.tiny_store import answer

MadeUp, dataset_of, realistic, study_of = (
    getattr(fixture, name) for name in ("MadeUp", "dataset_of", "realistic", "study_of")
)


class Page(HTMLParser):
    """What a browser would make of the page: attributes, the text that is read, and the pictures' specifications."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.specs: list[dict] = []
        self.ids: list[str] = []
        self._within: list[tuple[str, dict]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.ids += [value for key, value in attrs if key == "id"]
        if tag in {"script", "style"}:
            self._within.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        if tag in {"script", "style"}:
            self._within.pop()

    def handle_data(self, data) -> None:
        if not self._within:
            self.words.append(data)
        elif self._within[-1][0] == "style":
            self.styles.append(data)
        elif self._within[-1][1].get("type") == "application/json":
            self.specs.append(json.loads(data))
        else:
            self.scripts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def draw(answers) -> Page:
    return Page(draw_report(answers))


@pytest.fixture(scope="module")
def full_html() -> str:
    return draw_report(realistic(torus=True, plane=True))


@pytest.fixture(scope="module")
def full(full_html: str) -> Page:
    return Page(full_html)


# --- one file, no network ---------------------------------------------------------------------------------------------


def test_answers_made_by_hand_are_answers() -> None:
    answers: ReportSource = realistic(keep=False)
    assert answers.points.sizes["point"] > 0


def test_nothing_is_loaded_from_anywhere(full: Page) -> None:
    for tag, key, value in full.attributes:
        if key in {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href"}:
            pytest.fail(f"<{tag} {key}={value!r}>")
        if key == "href":
            assert value.startswith(("#", "data:,")), (tag, value)
    for style in full.styles:
        assert "url(" not in style
        assert "@import" not in style
    own = min(full.scripts, key=len)
    assert len(own) < 20_000
    for call in ("fetch", "XMLHttpRequest", "import(", "WebSocket", "http:", "https:"):
        assert call not in own


def test_a_policy_in_the_page_forbids_every_connection(full: Page) -> None:
    (policy,) = [value for tag, key, value in full.attributes if tag == "meta" and key == "content" and "-src" in value]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "connect-src" not in policy


def test_plotly_is_inside_once_and_the_data_beside_it_is_small(full_html: str, full: Page) -> None:
    assert sum(len(script) > 1_000_000 for script in full.scripts) == 1
    assert len(full_html) - max(map(len, full.scripts)) < 2_500_000


def check_with_plotly(spec: dict) -> None:
    """Plotly's own validation, with tokens of colours replaced as the page does."""

    def painted(value, key: str = ""):
        if key == "colorscale":
            return "Blues"
        if isinstance(value, dict):
            return {k: painted(v, k) for k, v in value.items() if k != "meta"}
        if isinstance(value, list):
            return [painted(v) for v in value]
        return "#123456" if key.endswith("color") and isinstance(value, str) and value.startswith("@") else value

    go.Figure(painted(spec))


def test_every_picture_is_valid_plotly(full: Page) -> None:
    assert len(full.specs) > 30
    for spec in full.specs:
        check_with_plotly(spec)


def test_pictures_have_a_title_a_caption_and_a_spoken_label(full: Page) -> None:
    plots = [value for tag, key, value in full.attributes if tag == "div" and key == "aria-label"]
    labels = [value for value in plots if ". " in value]
    assert full.tags.count("figure") == full.tags.count("figcaption") == full.tags.count("h5") == len(full.specs)
    assert len(labels) == len(full.specs)
    assert len(set(full.ids)) == len(full.ids)


def test_series_differ_by_symbol_and_dash_and_not_by_colour_alone() -> None:
    looks = {(style % PALETTE, symbol(style)) for style in range(24)}
    assert len(looks) == 24
    assert len({symbol(style) for style in range(PALETTE)}) == len({dash(style) for style in range(PALETTE)}) == PALETTE


# --- hostile names ----------------------------------------------------------------------------------------------------

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


def test_names_and_errors_are_text_and_never_markup() -> None:
    rows = [
        {"dataset": HOSTILE, "formulation": HOSTILE, "sampler": HOSTILE, "point_id": HOSTILE, "steps": n, "w1": 0.1 / n}
        for n in (1, 2)
    ]
    rows.append({**rows[0], "status": "failed", "error": HOSTILE, "w1": np.nan})
    answers = MadeUp(
        dataset_of(rows, ("w1",)),
        study_of(name=HOSTILE, description=HOSTILE, datasets=[{"name": HOSTILE}]),
        {"snapshot": HOSTILE, HOSTILE: HOSTILE},
        kept_samples={HOSTILE: xr.DataArray(np.zeros((5, 1)), dims=("sample", "coordinate"))},
    )
    page = draw(answers)
    assert "img" not in page.tags
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert HOSTILE in page.text
    assert len(page.scripts) == 2
    assert page.specs
    for spec in page.specs:
        names = [trace.get("name", "") for trace in spec["data"]]
        assert not any("<" in name for name in names)


def test_plotly_does_not_read_tags_or_fields_in_names() -> None:
    assert escaped("<b>&%{x}$") == "&lt;b&gt;&amp;%&#123;x}&#36;"


# --- what the numbers say ---------------------------------------------------------------------------------------------


def test_a_formulation_made_five_times_worse_is_named_and_the_others_are_not() -> None:
    answers = realistic(worse={"edm": 5.0}, keep=False)
    table = tabulate(answers.points, answers.study)
    found = verdicts(table, "uniform", "w1")
    verdict = {series.formulation: lines for series, lines in found.by_series()}
    assert {line.kind for line in verdict["edm"]} == {"far"}
    assert {line.kind for line in verdict["iddpm"]} == {"near"}
    text = draw(answers).text
    assert "does NOT lie near its exact curve" in text


def test_the_sentence_gives_the_step_count_from_which_a_curve_is_near_and_the_numbers_where_it_is_not() -> None:
    rows = []
    for n, trained, exact in ((1, 0.08, 0.02), (2, 0.06, 0.02), (4, 0.021, 0.02), (8, 0.011, 0.01)):
        for seed in range(3):
            rows += [
                {"steps": n, "nfe": n, "seed": seed, "w1": trained + 1e-5 * seed, "w1_floor": 1e-4},
                {"formulation": "exact", "steps": n, "nfe": n, "seed": seed, "w1": exact, "w1_floor": 1e-4},
            ]
    (near,) = verdicts(tabulate(dataset_of(rows, ("w1",)), {}), "uniform", "w1").nearness
    assert near.near_from == 4
    assert near.sentence() == (
        "lies within a factor of 1.10 of exact from N ≥ 4 on; does NOT lie near its exact curve at N in {1, 2}: "
        "w1 0.0800 vs 0.0200 at N = 1, ratio 4.0"
    )


def test_what_the_seeds_cannot_tell_apart_is_called_neither_far_nor_near() -> None:
    spread = [0.02, 0.02, 0.14]
    rows = [{"seed": seed, "w1": w1} for seed, w1 in enumerate(spread)]
    rows += [{"formulation": "exact", "seed": seed, "w1": 0.02} for seed in range(3)]
    (near,) = verdicts(tabulate(dataset_of(rows, ("w1",)), {}), "uniform", "w1").nearness
    assert [ratio.verdict for ratio in near.ratios] == ["unsure"]
    assert not near.near_everywhere
    assert near.sentence().startswith("cannot be told from so few seeds")
    assert near.ratios[0].value == pytest.approx(3)


def test_an_exact_row_of_another_schedule_or_grid_is_not_compared_with() -> None:
    rows = [{"w1": 0.1}, {"formulation": "exact", "schedule": "vp-linear", "w1": 0.01}]
    (near,) = verdicts(tabulate(dataset_of(rows, ("w1",)), {}), "uniform", "w1").nearness
    assert near.ratios == ()
    rows = [{"w1": 0.1}, {"w1": 0.2, "grid": "uniform-t"}, {"formulation": "exact", "grid": "uniform-t", "w1": 0.2}]
    own, other = verdicts(tabulate(dataset_of(rows, ("w1",)), {}), "uniform", "w1").nearness
    assert own.ratios == ()
    assert [ratio.verdict for ratio in other.ratios] == ["near"]


def test_the_best_at_a_budget_costs_no_more_than_the_budget() -> None:
    rows = [
        {"formulation": "a", "sampler": "ddim", "steps": 10, "nfe": 10, "w1": 0.05},
        {"formulation": "b", "sampler": "heun", "steps": 10, "nfe": 19, "w1": 0.01},
        {"formulation": "exact", "sampler": "heun", "steps": 10, "nfe": 19, "w1": 0.001},
    ]
    best = verdicts(tabulate(dataset_of(rows, ("w1",)), {}), "uniform", "w1").best
    assert [(one.budget, one.who) for one in best] == [(10, "a with ddim"), (19, "b with heun")]


def test_of_a_metric_of_which_more_is_better_the_most_is_ranked_first(tmp_path: Path) -> None:
    def guided(weight):
        return {"name": "ddim", "guidance": {"name": "class-label", "labels": [2, 3], "weight": weight}}

    spec = {
        "name": "asked",
        "datasets": ["digits"],
        "formulations": [{"name": "exact", "schedule": "edm"}],
        "samplers": [guided(0.0), guided(1.0)],
        "steps": [5],
        "samples": 10,
        "metrics": ["label-accuracy"],
    }
    answer(str(tmp_path / "results"), spec)
    answers = Answers(Store.open(str(tmp_path / "results")), "asked")
    ignored, heeded = answers.points["label-accuracy"].values.tolist()
    assert ignored < 0.5 < heeded
    (dataset,) = set(answers.points["dataset"].values.tolist())
    (best,) = verdicts(tabulate(answers.points, answers.study), dataset, "label-accuracy").best
    assert best.at.mean == heeded
    page = draw(answers)
    assert "higher is better" in page.text
    assert f", label-accuracy {number(heeded)} at N = 5" in page.text


def test_floors_of_different_laws_are_not_pooled() -> None:
    laws = {("forward-chain", "vp-linear"): 0.02, ("forward-chain", "ve-geometric"): 1.02, ("ddim", "vp-linear"): 0.003}
    rows = [
        {"formulation": f, "schedule": on, "sampler": by, "w1": w1, "w1_floor": floor, **asked}
        for (by, on), floor in laws.items()
        for asked in ({"nfe": 10} if by == "ddim" else {"nfe": 0, "start": "data", "process": "forward"},)
        for f, w1 in (("exact", 0.01), ("iddpm", 0.03))
    ]
    answers = fixture.MadeUp(dataset_of(rows, ("w1",)), {})
    table = tabulate(answers.points, {})
    for (by, on), floor in laws.items():
        (curve,) = [
            c for c in table.curves if (c.panel.sampler, c.series.formulation, c.series.schedule) == (by, "exact", on)
        ]
        assert table.floor("uniform", "w1", curve.panel, curve.series) == floor
    found = verdicts(table, "uniform", "w1")
    told = {(one.curve.panel.sampler, one.curve.series.schedule): one.near_everywhere for one in found.nearness}
    # off by 0.02: a floor of 1.02 or 0.02 allows for that, one of 0.003 does not
    assert told == {key: floor >= 0.02 for key, floor in laws.items()}
    assert {best.curve.panel.sampler for best in found.best} == {"ddim"}  # the others ask no model
    lines = {
        picture.title: [trace["y"][0] for trace in picture.spec["data"] if trace.get("name") == "sampling floor"]
        for picture in quality(table, "uniform", "w1")
    }
    assert lines == {"forward-chain": [0.02, 1.02], "ddim": [0.003]}
    page = draw_report(answers)
    assert f"(floor {number(1.02)})" in page
    assert f"(floor {number(0.02)})" in page
    assert f'<tr class="floor"><th scope="row">floor</th><td>{number(0.003)}</td></tr>' in page


def test_every_point_without_an_answer_is_mentioned_with_its_reason() -> None:
    answers = realistic(failed={"ve": "OutOfMemory <at step 3>"}, keep=False)
    points = answers.points.copy(deep=True)
    points["status"].values[0], points["error"].values[0] = "skipped", "heun does not take this grid"
    answers.points = points
    page = draw(answers)
    wrong = points["point_id"].values[points["status"].values != "ok"]
    assert len(wrong) > 100
    assert not [name for name in wrong.tolist() if name not in page.text]
    assert "OutOfMemory <at step 3>" in page.text
    assert "heun does not take this grid" in page.text
    groups = failures(tabulate(points, answers.study))
    assert sum(len(group.points) for group in groups) == len(wrong)


def test_an_answer_that_is_no_number_is_called_a_bug() -> None:
    page = draw(
        MadeUp(dataset_of([{"w1": 0.1}, {"w1": np.nan, "w1_floor": 0.01, "point_id": "lost"}], ("w1",)), study_of())
    )
    assert "a bug" in page.text
    assert "lost (w1)" in page.text


def test_the_tables_give_mean_and_standard_error_of_the_seeds() -> None:
    rows = [{"seed": seed, "w1": w1, "w1_floor": 0.003} for seed, w1 in enumerate([0.01, 0.02, 0.03])]
    text = draw(MadeUp(dataset_of(rows, ("w1",)), study_of())).text
    assert "0.0200 ± 0.0058" in text
    assert "floor 0.00300" in text


def test_the_interval_is_student_s() -> None:
    low, high = Mean(1, 1, (1.0, 2.0, 3.0)).interval
    assert (high - low) / 2 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert Mean(1, 1, (1.0,)).interval is None


def test_the_band_of_seeds_on_a_logarithmic_axis_is_that_of_their_logarithms() -> None:
    w1 = {2: (0.01, 0.02, 0.09), 8: (0.002, 0.002, 0.006)}
    spec = {"formulations": [{"name": "exact", "schedule": "edm"}], "samplers": ["euler"], "steps": [2, 8], "seeds": 3}
    answers = chosen(spec, lambda point: Told({"w1": w1[point.steps][point.cell.seed]}))
    (picture,) = quality(tabulate(answers.points, answers.study), "uniform", "w1")
    assert picture.spec["layout"]["yaxis"]["type"] == "log"
    (band,) = [trace for trace in picture.spec["data"] if trace.get("fill") == "toself"]
    (marks,) = [trace for trace in picture.spec["data"] if trace["mode"] == "markers"]
    logs = np.log([w1[2], w1[8]])
    half = 4.302653 * logs.std(axis=1, ddof=1) / math.sqrt(3)  # Student's t of two degrees of freedom
    low, high = (10.0**edge for edge in picture.spec["layout"]["yaxis"]["range"])
    assert marks["y"] == pytest.approx(np.exp(logs.mean(axis=1)), rel=1e-4)
    expected = [*np.exp(logs.mean(axis=1) + half), *np.exp(logs.mean(axis=1) - half)[::-1]]
    assert band["y"] == pytest.approx(np.clip(expected, low, high), rel=1e-3)
    assert 0.002 - 4.3 * np.std(w1[8], ddof=1) / math.sqrt(3) < 0  # what the mean of the numbers would have


def test_the_footer_says_how_to_ask_for_the_same_numbers() -> None:
    text = draw(realistic(keep=False)).text
    assert "diffatlas query --store results --study uniform --as-of K7Q2M4T0 --by dataset,formulation" in text
    assert "no samples were kept" in text


# --- whatever is missing ----------------------------------------------------------------------------------------------


def all_failed():
    return realistic(failed=dict.fromkeys((*fixture.SCHEDULE_OF, "exact"), "the loss is not finite"), keep=False)


def extreme():
    values = [0.0, 1e8, 1e300, 1e-12, 0.02, 0.0]
    rows = [{"steps": n, "nfe": n, "w1": w1, "w1_floor": 0.003} for n, w1 in enumerate(values, 1)]
    rows += [{"formulation": "exact", "steps": n, "nfe": n, "w1": 0.0} for n in range(1, 7)]
    return MadeUp(dataset_of(rows, ("w1",)), study_of())


def signed():
    rows = [{"steps": n, "nfe": n, "seed": s, "nll": 1.0 - n + s} for n in (1, 2, 3) for s in (0, 1)]
    return MadeUp(dataset_of(rows, ("nll",)), study_of(metrics=["nll"]))


def with_broken_samples():
    answers = realistic(seeds=1, steps=(1, 2), samplers=("heun",))
    for i, kept in enumerate(answers.kept_samples.values()):
        kept.values[:: (1 if i % 2 else 2)] = (np.nan, np.inf, 1e300)[i % 3]
    for name in answers.kept_trajectories:
        answers.kept_trajectories[name].values[3:] = np.nan
    answers.kept_losses.values[0] = np.nan
    answers.kept_losses.values[1, ::3] = np.inf
    return answers


def trajectory_of_nothing():
    answers = realistic(seeds=1, steps=(50,), samplers=("heun",))
    for kept in answers.kept_trajectories.values():
        kept.values[...] = np.nan
    return answers


def unknown_dataset():
    answers = realistic(seeds=1, steps=(1, 50), samplers=("heun",))
    answers.points = answers.points.assign_coords(dataset=("point", ["mine"] * answers.points.sizes["point"]))
    answers.study = study_of(datasets=[{"name": "mine", "width": 3}])
    return answers


def in_the_plane():
    rows = [{"dataset": "plane", "steps": n, "point_id": f"{n}", "w1": 0.1} for n in (1, 2)]
    kept = {
        "2": xr.DataArray(np.random.default_rng(0).standard_normal((500, 2)), dims=("sample", "coordinate")),
    }
    return MadeUp(dataset_of(rows, ("w1",)), study_of(datasets=["plane"]), kept_samples=kept)


CASES = {
    "one seed": lambda: realistic(seeds=1),
    "one step count": lambda: realistic(steps=(10,)),
    "one seed, one step count, one sampler": lambda: realistic(seeds=1, steps=(1,), samplers=("heun",)),
    "no exact rows": lambda: realistic(exact=False),
    "exact rows only": lambda: MadeUp(
        (whole := realistic(keep=False)).points.isel(point=whole.points["formulation"].values == "exact"), whole.study
    ),
    "nothing kept": lambda: realistic(keep=False),
    "all failed": all_failed,
    "several datasets": lambda: realistic(torus=True, steps=(1, 50), samplers=("heun",)),
    "zero, huge and tiny": extreme,
    "negative": signed,
    "broken samples": with_broken_samples,
    "trajectory of nothing": trajectory_of_nothing,
    "unknown dataset": unknown_dataset,
    "two dimensions": in_the_plane,
    "no points": lambda: MadeUp(dataset_of([], ("w1",)), study_of()),
    "an empty study": lambda: MadeUp(dataset_of([{"w1": 0.1}], ("w1",)), {}, {}),
    "several schedules of one formulation": lambda: MadeUp(
        dataset_of([{"schedule": s, "w1": 0.1, "nfe": n} for s in ("a", "b") for n in (1, 2)], ("w1",)), study_of()
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_missing_the_rest_is_drawn(case) -> None:
    page = draw(CASES[case]())
    assert "What the numbers say" in page.text
    assert page.tags.count("h1") == 1
    assert "nan" not in re.findall("[a-z]+", page.text)
    for spec in page.specs:
        assert spec["data"]
        check_with_plotly(spec)


def test_a_study_without_an_answer_says_so() -> None:
    assert "No point has an answer yet" in draw(all_failed()).text


def test_a_value_far_above_the_rest_is_a_triangle_on_the_edge_and_does_not_flatten_the_others() -> None:
    page = draw(realistic(samplers=("heun",), keep=False))
    heun = page.specs[0]
    low, high = heun["layout"]["yaxis"]["range"]
    assert -3.5 < low < -2
    assert 1 < high < 4
    triangles = [t for t in heun["data"] if (t.get("marker") or {}).get("symbol") == "triangle-up" and "text" in t]
    assert any("1.2" in text and "×10⁸" in text for trace in triangles for text in trace["text"])


def test_the_distribution_figure_marks_the_support_and_counts_what_lies_outside() -> None:
    answers = realistic(samplers=("heun",), formulations=("ve",), seeds=1)
    page = draw(answers)
    sweep = next(
        s for s in page.specs if s["data"][0]["type"] == "heatmap" and s["layout"]["xaxis"]["type"] == "category"
    )
    assert [shape["y0"] for shape in sweep["layout"]["shapes"]] == [0, 1]
    assert sweep["data"][0]["x"] == [*(str(n) for n in fixture.STEPS), "target"]
    assert "100" in sweep["data"][1]["text"]


def test_numbers_are_read_as_people_write_them() -> None:
    assert [number(x) for x in (0.0, 1.23456, 0.00313, 123e6, -0.5, float("nan"), float("inf"))] == [
        "0",
        "1.23",
        "0.00313",
        "1.23×10⁸",
        "−0.500",
        "–",
        "∞",
    ]
    assert plus_minus(0.5, float("nan")) == "0.500"
    assert thin(list(range(1, 1001)), 5)[0] == 1
    assert len(thin(list(range(1, 1001)), 5)) == 5


# --- in a real browser ------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--enable-logging=stderr",
    "--virtual-time-budget=60000",
    "--window-size=1280,2000",
]
CLICK = """<script>
const root = document.documentElement;
const shown = (n) => [...document.querySelectorAll(".plot")].flatMap((place) => place.data)
  .filter((trace) => trace.meta && trace.meta.families.includes(n) && trace.visible !== false).length;
const watch = setInterval(() => {
  if (root.dataset.all !== "drawn") return;
  clearInterval(watch);
  root.dataset.before = `${shown(0)} ${shown(1)}`;
  document.querySelector('.legend button[data-key="0"]').click();
  root.dataset.after = `${shown(0)} ${shown(1)}`;
}, 100);
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_browser_draws_every_picture_without_a_complaint(tmp_path: Path) -> None:
    html = draw_report(realistic(torus=True, plane=True, samplers=("heun", "ddim"), steps=(1, 3, 10, 50)))
    path = tmp_path / "report.html"
    path.write_text(html.replace("</body>", CLICK), encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"{path.as_uri()}#all"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(240, process.kill)
    timer.start()
    dom, log = process.communicate()
    timer.cancel()
    opening = re.search(r"<html[^>]*>", dom).group()
    attributes = dict(re.findall(r'data-(\w+)="([^"]*)"', opening))
    assert attributes.get("problems") is None
    assert attributes["all"] == "drawn"
    (vp, ve), (vp_after, ve_after) = (map(int, attributes[when].split()) for when in ("before", "after"))
    assert vp > 0
    assert vp_after == 0  # one button hides vp in every panel
    assert ve == ve_after > 0
    wanted = len(Page(html).specs)
    assert int(attributes["plots"]) == int(attributes["drawn"]) == wanted
    assert dom.count('class="main-svg"') >= wanted
    complaints = [line for line in log.splitlines() if "CONSOLE" in line]
    innocent = ("GL Driver Message", "willReadFrequently")  # swiftshader's speed, and plotly's own canvas
    assert not [line for line in complaints if not any(word in line for word in innocent)]
