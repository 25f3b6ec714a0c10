"""The report is one file that opens anywhere and hides nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.plan import Point
from tasks.report import draw_report
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.findings import failures
from tasks.report.pictures.style import PALETTE, dash, escaped, symbol
from tasks.results.models import ModelledAnswers
from tasks.store import Store
from tests.tasks import own_parts
from tests.tasks.chosen import GivenAnswer, OfCell, answers_to, chosen
from tests.tasks.page_reader import Page, check_with_plotly
from tests.tasks.real_page import all_kinds, page_of_all_kinds, together
from tests.tasks.realistic import SCHEDULE_OF, STEPS, realistic, wishes

pytestmark = together


def draw(answers: ModelledAnswers) -> Page:
    return Page(draw_report(answers))


@pytest.fixture(scope="module")
def full_html() -> str:
    return page_of_all_kinds()


@pytest.fixture(scope="module")
def full(full_html: str) -> Page:
    return Page(full_html)


# --- one file, no network -------------------------------------------------------------------------


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


# --- hostile names --------------------------------------------------------------------------------

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


def test_names_and_errors_are_text_and_never_markup(tmp_path: Path) -> None:
    file = tmp_path / '<script>alert("x")<img src=x onerror=alert(1)>.npy'
    np.save(file, np.random.default_rng(0).random((50, 1)))
    dataset = {"name": "from_file", "path": str(file)}
    rows = [{"dataset": dataset, "steps": n, "w1": 0.1 / n, "samples": np.zeros((5, 1), np.float32)} for n in (1, 2)]
    page = draw(answers_to([*rows, {"dataset": dataset, "steps": 3, "error": HOSTILE}], description=HOSTILE))
    assert "img" not in page.tags
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert page.text.count(HOSTILE) >= 2
    assert file.stem in page.text
    assert len(page.scripts) == 2
    assert page.specs
    for spec in page.specs:
        names = [trace.get("name", "") for trace in spec["data"]]
        assert not any("<" in name for name in names)


def test_plotly_does_not_read_tags_or_fields_in_names() -> None:
    assert escaped("<b>&%{x}$") == "&lt;b&gt;&amp;%&#123;x}&#36;"


# --- what is drawn --------------------------------------------------------------------------------


def half_answered() -> ModelledAnswers:
    """A formulation that failed, and guidance by labels that a target lacks."""
    spec = {
        "datasets": ["uniform", "eight_gaussians"],
        "metrics": ["sliced-w2"],
        "formulations": ["edm", "ve"],
        "samplers": ["heun", {"name": "heun", "guidance": {"name": "class-label", "labels": 3}}],
        "steps": [1, 2],
    }

    def tell(point: Point) -> GivenAnswer:
        failed = point.cell.formulation.registered_name == "ve"
        return (
            GivenAnswer(error="OutOfMemory <at step 3>", nfe=-1)
            if failed
            else GivenAnswer({"sliced-w2": 0.1 / point.steps})
        )

    return chosen(spec, tell)


def test_every_point_without_an_answer_is_mentioned_with_its_reason() -> None:
    answers = half_answered()
    page = draw(answers)
    points = answers.points
    wrong = points["point_id"].values[points["status"].values != "ok"]
    assert len(wrong) == 14
    assert not [name for name in wrong.tolist() if name not in page.text]
    assert "OutOfMemory <at step 3>" in page.text
    assert "dataset 'uniform' has no labels" in page.text
    groups = failures(tabulate(answers))
    assert sum(len(group.points) for group in groups) == len(wrong)


def test_an_answer_that_is_no_number_is_called_a_bug() -> None:
    answers = answers_to([{"w1": 0.1}, {"w1": np.nan, "w1_floor": 0.01, "steps": 11}])
    (lost,) = answers.points["point_id"].values[np.isnan(answers.points["w1"].values)].tolist()
    text = draw(answers).text
    assert "a bug" in text
    assert f"{lost} (w1)" in text


def test_the_tables_give_mean_and_standard_error_of_the_seeds() -> None:
    rows = [{"seed": seed, "w1": w1, "w1_floor": 0.003} for seed, w1 in enumerate([0.01, 0.02, 0.03])]
    text = draw(answers_to(rows)).text
    assert "0.0200 ± 0.0058" in text
    assert "floor 0.00300" in text


def test_the_footer_says_how_to_ask_for_the_same_numbers() -> None:
    answers = answers_to([{"w1": 0.1}])
    text = draw(answers).text
    found = answers.provenance
    assert (
        f"diffatlas query --store {found['store']} --study chosen --as-of {found['snapshot']} --by dataset,formulation"
        in text
    )
    assert "no samples were kept" in text


def test_a_formulation_made_five_times_worse_is_named() -> None:
    answers = realistic(worse={"edm": 5.0}, formulations=("edm", "iddpm"), samplers=("heun",))
    assert "does NOT lie near its exact curve" in draw(answers).text


# --- whatever is missing --------------------------------------------------------------------------


def all_failed() -> ModelledAnswers:
    return realistic(failed=dict.fromkeys((*SCHEDULE_OF, "exact"), "the loss is not finite"), samplers=("heun",))


def extreme() -> ModelledAnswers:
    values = [0.0, 1e8, 1e300, 1e-12, 0.02, 0.0]
    rows = [{"formulation": "edm", "steps": n, "w1": w1, "w1_floor": 0.003} for n, w1 in enumerate(values, 1)]
    return answers_to([*rows, *({"steps": n, "w1": 0.0} for n in range(1, 7))])


def of_models_and_negative() -> ModelledAnswers:
    return answers_to([{"steps": n, "seed": s, "w1": 0.1, "nll": s - 1.0} for n in (1, 2, 3) for s in (0, 1)])


def with_broken_samples() -> ModelledAnswers:
    """What single precision does to huge numbers, a network that came to nothing, and losses that
    left the numbers.
    """
    rows = wishes(seeds=1, steps=(1, 2), samplers=("heun",), keep=True)
    for i, row in enumerate(rows):
        row["samples"][:: (1 if i % 2 else 2)] = (np.inf, 3e38)[i % 2]
    return answers_to(rows, lambda cell: OfCell([np.nan, 1.0, np.inf, 0.5] if cell.training else ()))


def of_a_class_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> ModelledAnswers:
    """A study of a data set of somebody's own, whose class is not installed where the page is
    drawn.
    """
    rows = [
        {"dataset": "tests.tasks.own_parts:Wide", "steps": n, "w1": 0.1, "samples": np.zeros((5, 1), np.float32)}
        for n in (1, 50)
    ]
    answers = answers_to(rows)
    monkeypatch.delattr(own_parts, "Wide")
    return answers


def of_a_file_that_is_gone(tmp_path: Path) -> ModelledAnswers:
    np.save(tmp_path / "points.npy", np.random.default_rng(0).random((50, 2)))
    rows = [{"dataset": {"name": "from_file", "path": str(tmp_path / "points.npy")}, "sliced-w2": 0.1}]
    answers = answers_to([{**rows[0], "samples": np.zeros((5, 2), np.float32)}])
    (tmp_path / "points.npy").unlink()
    return answers


def in_the_plane() -> ModelledAnswers:
    samples = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32)
    return answers_to([{"dataset": "moons", "steps": n, "sliced-w2": 0.1, "samples": samples} for n in (1, 2)])


def whole_store() -> ModelledAnswers:
    answers = all_kinds()
    return ModelledAnswers(Store.open(answers.provenance["store"]))


CASES: dict[str, Callable[[], ModelledAnswers]] = {
    "one seed": lambda: realistic(seeds=1, samplers=("heun",)),
    "one step count": lambda: realistic(steps=(10,), samplers=("heun",)),
    "one seed, one step count, one sampler": lambda: realistic(seeds=1, steps=(1,), samplers=("heun",)),
    "no exact rows": lambda: realistic(exact=False, samplers=("heun",)),
    "exact rows only": lambda: answers_to([row for row in wishes(samplers=("heun",)) if row["formulation"] == "exact"]),
    "all failed": all_failed,
    "several datasets": all_kinds,
    "zero, huge and tiny": extreme,
    "negative": of_models_and_negative,
    "broken samples": with_broken_samples,
    "two dimensions": in_the_plane,
    "no points": lambda: chosen({"formulations": ["exact"], "samplers": ["heun"], "steps": [2]}, lambda _point: None),
    "a whole store": whole_store,
    "several schedules of one formulation": lambda: answers_to(
        [
            {"formulation": "denoising", "schedule": s, "w1": 0.1, "steps": n}
            for s in ("edm", "vp-linear")
            for n in (1, 2)
        ]
    ),
    "half answered": half_answered,
}


def check_whole(page: Page) -> None:
    assert "What the numbers say" in page.text
    assert page.tags.count("h1") == 1
    assert "nan" not in re.findall("[a-z]+", page.text)
    for spec in page.specs:
        assert spec["data"]
        check_with_plotly(spec)


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_missing_the_rest_is_drawn(case: str) -> None:
    check_whole(draw(CASES[case]()))


def test_a_data_set_that_is_not_installed_is_drawn_without_its_law(monkeypatch: pytest.MonkeyPatch) -> None:
    page = draw(of_a_class_that_is_gone(monkeypatch))
    check_whole(page)
    assert "the exact target is not drawn (unknown dataset 'tests.tasks.own_parts:Wide'" in page.text
    assert "Distribution of the samples against N" in page.text


def test_a_file_that_is_gone_is_missed_and_one_that_is_there_is_the_target(tmp_path: Path) -> None:
    page = draw(of_a_file_that_is_gone(tmp_path))
    check_whole(page)
    assert "the exact target is not drawn" in page.text
    assert "Samples in the plane against N" in page.text
    np.save(tmp_path / "points.npy", np.random.default_rng(0).random((50, 2)))
    rows = [{"dataset": {"name": "from_file", "path": str(tmp_path / "points.npy")}, "sliced-w2": 0.1}]
    page = draw(answers_to([{**rows[0], "samples": np.zeros((5, 2), np.float32)}]))
    assert "the exact target is not drawn" not in page.text
    assert "draws of the exact target" in page.text


def test_a_study_without_an_answer_says_so() -> None:
    assert "No point has an answer yet" in draw(all_failed()).text


def test_a_value_far_above_the_rest_is_a_triangle_on_the_edge_and_does_not_flatten_the_others() -> None:
    page = draw(realistic(samplers=("heun",)))
    heun = page.specs[1]  # after the one that the page opens with
    low, high = heun["layout"]["yaxis"]["range"]
    assert -3.5 < low < -2
    assert 1 < high < 4
    triangles = [t for t in heun["data"] if (t.get("marker") or {}).get("symbol") == "triangle-up" and "text" in t]
    assert any("1.2" in text and "×10⁸" in text for trace in triangles for text in trace["text"])


def test_the_distribution_figure_marks_the_support_and_counts_what_lies_outside() -> None:
    page = draw(answers_to(wishes(samplers=("heun",), formulations=("ve",), seeds=1, exact=False, keep=True)))
    sweep = next(
        s for s in page.specs if s["data"][0]["type"] == "heatmap" and s["layout"]["xaxis"]["type"] == "category"
    )
    assert [shape["y0"] for shape in sweep["layout"]["shapes"]] == [0, 1]
    assert sweep["data"][0]["x"] == [*(str(n) for n in STEPS), "target"]
    assert "100" in sweep["data"][1]["text"]
