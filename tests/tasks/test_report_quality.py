"""Curves of quality, names as they are shown, and numbers in words."""

from __future__ import annotations

import itertools
import math
import re

import pytest

from tasks.messages import counted
from tasks.report import draw_report
from tasks.report.lookup.labels import Part, short_labels
from tasks.report.numbers.window import Window
from tasks.report.text import listing, some
from tests.tasks.chosen import answers_to
from tests.tasks.page_reader import pictures_of
from tests.tasks.realistic import realistic


def test_lines_end_at_the_edge_of_the_picture_and_none_runs_along_it() -> None:
    scale = Window(0.01, 1.0, logarithmic=True)
    x, y = scale.line([1, 2, 4, 8, 16, 32, 64], [0.1, 10.0, 1000.0, 100.0, 0.1, 1e-5, 0.1])
    gaps = [i for i, value in enumerate(y) if math.isnan(value)]
    assert len(gaps) == 2
    assert all(0.01 * (1 - 1e-9) <= value <= 1 * (1 + 1e-9) for value in y if not math.isnan(value))
    assert x[:2] == pytest.approx([1, math.sqrt(2)])  # from 0.1 to 10 in one doubling, the edge half way
    assert y[:2] == pytest.approx([0.1, 1])
    assert not [pair for pair in itertools.pairwise(y) if pair == pytest.approx((1, 1))]
    x, y = scale.line([1, 2], [5.0, 7.0])
    assert x == []
    x, y = scale.line([1], [0.5])
    assert y == pytest.approx([0.5] * len(y))


def test_a_line_that_crosses_the_whole_picture_is_drawn() -> None:
    x, y = Window(0.0, 1.0, logarithmic=False).line([1, math.e**4], [-1.0, 3.0])
    assert x == pytest.approx([math.e, math.e**2])
    assert y == pytest.approx([0, 1])


def test_bands_are_drawn_from_three_seeds_on() -> None:
    def banded(seeds: int) -> bool:
        html = draw_report(realistic(seeds=seeds, steps=(1, 10), samplers=("heun",), formulations=("edm",)))
        return any(trace.get("fill") == "toself" for trace in pictures_of(html)["heun"][0]["data"])

    assert [banded(seeds) for seeds in (1, 2, 3)] == [False, False, True]


def test_one_is_singular() -> None:
    html = draw_report(answers_to([{"formulation": "edm", "w1": 0.1}]))
    assert "<b>1 point</b>" in html
    text = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"\b1 (points|seeds|samples|evaluations|datasets|schedules|samplers|verdicts|reasons)\b", text)
    assert [counted(1, "seed"), counted(1200, "seed")] == ["1 seed", "1,200 seeds"]
    assert [listing([]), listing(["a"]), listing(["a", "b"]), some(["a", "b", "c"], 2)] == [
        "",
        "a",
        "a and b",
        "a, b and 1 more",
    ]


# --- names ----------------------------------------------------------------------------------------


def spelled(*parts: Part) -> str:
    return "".join(part.spelled() for part in parts)


CHURN = Part("churn", ("s_churn=80.0", "s_noise=1.007"))
V, X0 = (Part("denoising", (f"parametrization={p}", "weighting=simple")) for p in ("v", "x0"))
GUIDED = [Part("class-label", ("labels=(2, 3)", f"weight={w}"), " | ") for w in (1.5, 3.0)]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ([(Part("heun"),), (Part("ddim", ("eta=0.5",)),)], ["heun", "ddim(eta=0.5)"]),
        ([(CHURN,), (Part("heun"),)], ["churn", "heun"]),
        ([(V,), (X0,)], ["denoising(parametrization=v)", "denoising(parametrization=x0)"]),
        ([(CHURN, Part("vp-linear", (), " on ")), (CHURN,)], ["churn on vp-linear", "churn"]),
        (
            [(Part("heun"), GUIDED[0]), (Part("heun"), GUIDED[1])],
            ["heun | class-label(weight=1.5)", "heun | class-label(weight=3.0)"],
        ),
        ([(Part("mixture", ("means=((0.0, 1.0), (2.0, 3.0))", "stds=(1.0, 1.0)")),), (Part("mixture"),)], None),
        ([(Part("a", ("first=1234567890", "second=1234567890")),), (Part("a"),)], None),
    ],
)
def test_long_labels_lose_what_tells_nothing_and_different_ones_stay_different(
    labels: list[tuple[Part, ...]], wanted: list[str] | None
) -> None:
    given = {spelled(*parts): parts for parts in labels}
    found = short_labels(given)
    assert list(found) == list(given)
    assert len(set(found.values())) == len(labels)
    assert wanted is None or list(found.values()) == wanted


def test_the_page_has_short_names_and_says_what_they_stand_for() -> None:
    spec = {"name": "denoising", "parametrization": "v", "noise_levels": "uniform-t", "weighting": "simple"}
    rows = [
        {"formulation": spec, "schedule": schedule, "steps": n, "w1": 1 / n}
        for schedule in ("vp-linear", "vp-cosine")
        for n in (1, 2)
    ]
    answers = answers_to(rows)
    (label,) = set(answers.points["formulation"].values.tolist())
    assert len(label) > 50
    html = draw_report(answers)
    assert html.count(label) == 1  # in the list of names
    assert "1 trained formulation (denoising) with 2 schedules (vp-linear, vp-cosine)" in html


# --- warnings -------------------------------------------------------------------------------------


def test_a_schedule_that_does_not_end_in_noise_is_pointed_out() -> None:
    far = {"dataset": {"name": "uniform", "low": 100.0, "high": 101.0}, "w1": 0.1}
    expected = "uniform(low=100.0,high=101.0): schedule edm does not end in noise"
    assert expected in draw_report(answers_to([far]))
    assert expected in draw_report(answers_to([{**far, "schedule": "flow", "other_schedule": "edm"}]))
    assert 'class="warnings"' not in draw_report(answers_to([{"w1": 0.1}]))
