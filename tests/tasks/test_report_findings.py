"""What the numbers say: near and far, best at each budget, floors, and bands, for chosen numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from tasks.plain import Spec
from tasks.report import draw_report
from tasks.report.numbers.curves import Mean, tabulate
from tasks.report.numbers.findings import thin, verdicts
from tasks.report.numbers.leads import lead
from tasks.report.pictures.quality import quality
from tasks.report.text import number, plus_minus
from tasks.results.models import ModelledAnswers
from tasks.statistics import decision
from tasks.store import Store
from tests.tasks.chosen import GivenAnswer, answers_to, chosen
from tests.tasks.page_reader import Page
from tests.tasks.realistic import realistic
from tests.tasks.tiny_store import SPEC, answer


def test_a_formulation_made_five_times_worse_is_named_and_the_others_are_not() -> None:
    table = tabulate(realistic(worse={"edm": 5.0}, samplers=("heun",)))
    found = verdicts(table, "uniform", "w1")
    verdict = {series.formulation: lines for series, lines in found.by_series()}
    assert {line.kind for line in verdict["edm"]} == {"far"}
    assert {line.kind for line in verdict["iddpm"]} == {"near"}


def test_the_sentence_gives_the_step_count_from_which_a_curve_is_near_and_the_numbers_where_it_is_not() -> None:
    rows: list[Spec] = []
    for n, trained, exact in ((1, 0.08, 0.02), (2, 0.06, 0.02), (4, 0.021, 0.02), (8, 0.011, 0.01)):
        for seed in range(3):
            rows += [
                {"formulation": "edm", "steps": n, "seed": seed, "w1": trained + 1e-5 * seed, "w1_floor": 1e-4},
                {"steps": n, "seed": seed, "w1": exact, "w1_floor": 1e-4},
            ]
    (near,) = verdicts(tabulate(answers_to(rows)), "uniform", "w1").nearness
    assert near.near_from == 4
    assert near.sentence() == (
        "lies within a factor of 1.10 of exact from N ≥ 4 on; does NOT lie near its exact curve at N in {1, 2}: "
        "w1 0.0800 vs 0.0200 at N = 1, ratio 4.0"
    )


def test_what_the_seeds_cannot_tell_apart_is_called_neither_far_nor_near() -> None:
    spread = [0.02, 0.02, 0.14]
    rows = [{"formulation": "edm", "seed": seed, "w1": w1} for seed, w1 in enumerate(spread)]
    rows += [{"seed": seed, "w1": 0.02} for seed in range(3)]
    (near,) = verdicts(tabulate(answers_to(rows)), "uniform", "w1").nearness
    assert [ratio.verdict for ratio in near.ratios] == ["unsure"]
    assert not near.near_everywhere
    assert near.sentence().startswith("cannot be told from so few seeds")
    assert near.ratios[0].value == pytest.approx(3)


def test_an_exact_row_of_another_schedule_or_grid_is_not_compared_with() -> None:
    rows: list[Spec] = [{"formulation": "edm", "w1": 0.1}, {"schedule": "vp-linear", "w1": 0.01}]
    (near,) = verdicts(tabulate(answers_to(rows)), "uniform", "w1").nearness
    assert near.ratios == ()
    trained = [{"formulation": "edm", "w1": 0.1}, {"formulation": "edm", "w1": 0.2, "grid": "uniform-t"}]
    rows = [*trained, {"grid": "uniform-t", "w1": 0.2}]
    own, other = verdicts(tabulate(answers_to(rows)), "uniform", "w1").nearness
    assert own.ratios == ()
    assert [ratio.verdict for ratio in other.ratios] == ["near"]


def test_the_best_at_a_budget_costs_no_more_than_the_budget() -> None:
    rows: list[Spec] = [
        {"formulation": "edm", "sampler": "ddim", "w1": 0.05},
        {"formulation": "vp", "w1": 0.01},
        {"w1": 0.001},
    ]
    best = verdicts(tabulate(answers_to(rows)), "uniform", "w1").best
    assert [(one.budget, one.who) for one in best] == [(10, "edm with ddim"), (19, "vp with heun")]


def test_a_lead_takes_pairs_where_the_rule_that_tells_apart_does() -> None:
    none = np.nan
    best, other = np.array([1.0, 1.1, 4.4, none, none]), np.array([none, none, 4.0, 6.0, 6.6])  # one seed is shared
    (contrast,) = decision.by_seed(best[None], other[None]).change
    found = lead("other", best, other)
    assert contrast > 0
    assert found.change == pytest.approx((4.0 * 6.0 * 6.6) ** (1 / 3) / (1.0 * 1.1 * 4.4) ** (1 / 3))
    assert found.interval is None
    alone = lead("other", best[2:3], other[2:3])
    assert alone.change == pytest.approx(4.0 / 4.4)


def test_of_a_metric_of_which_more_is_better_the_most_is_ranked_first(tmp_path: Path) -> None:
    def guided(weight: float) -> Spec:
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
    answers = ModelledAnswers(Store.open(str(tmp_path / "results")), "asked")
    ignored, heeded = answers.points["label-accuracy"].values.tolist()
    assert ignored < 0.5 < heeded
    (dataset,) = set(answers.points["dataset"].values.tolist())
    (best,) = verdicts(tabulate(answers), dataset, "label-accuracy").best
    assert best.at.mean == heeded
    page = Page(draw_report(answers))
    assert "higher is better" in page.text
    assert f", label-accuracy {number(heeded)} at N = 5" in page.text


def test_floors_of_different_laws_are_not_pooled() -> None:
    laws = {("forward-chain", "vp-linear"): 0.02, ("forward-chain", "ve-geometric"): 1.02, ("ddim", "vp-linear"): 0.003}
    rows = [{"schedule": on, "sampler": by, "w1": 0.03, "w1_floor": floor} for (by, on), floor in laws.items()]
    answers = answers_to(rows)
    table = tabulate(answers)
    for (by, on), floor in laws.items():
        (curve,) = [c for c in table.curves if (c.panel.sampler, c.series.schedule) == (by, on)]
        assert table.floor("uniform", "w1", curve.panel, curve.series) == floor
    found = verdicts(table, "uniform", "w1")
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


def test_the_interval_is_student_s() -> None:
    interval = Mean(1, 1, (1.0, 2.0, 3.0)).interval
    assert interval is not None
    low, high = interval
    assert (high - low) / 2 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert Mean(1, 1, (1.0,)).interval is None


def test_the_band_of_seeds_on_a_logarithmic_axis_is_that_of_their_logarithms() -> None:
    w1 = {2: (0.01, 0.02, 0.09), 8: (0.002, 0.002, 0.006)}
    spec = {"formulations": [{"name": "exact", "schedule": "edm"}], "samplers": ["euler"], "steps": [2, 8], "seeds": 3}
    answers = chosen(spec, lambda point: GivenAnswer({"w1": w1[point.steps][point.cell.seed]}))
    (picture,) = quality(tabulate(answers), "uniform", "w1")
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


# --- equal but for rounding -----------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize("last_digit", [-1, 1])
def test_who_is_equal_but_for_rounding_ties_and_the_first_of_the_study_has_the_name(
    last_digit: int, seeds: int
) -> None:
    """Two samplers that are one rule on a schedule, whose errors differ by 1e-12: for every seed in the
    same direction, so that a test alone would tell them apart.
    """
    own = [0.010, 0.011, 0.0105, 0.0102]
    rows: list[Spec] = []
    for seed, value in enumerate(own[:seeds]):
        other = value * (1 + last_digit * 1e-12 * (1 + 1e-3 * seed))
        rows += [
            {"formulation": "edm", "sampler": "ddim", "seed": seed, "w1": value},
            {"formulation": "edm", "sampler": "euler", "seed": seed, "w1": other},
            {"formulation": "edm", "sampler": "heun", "seed": seed, "w1": 3 * value * (1 + 0.01 * seed)},
        ]
    (at_ten, at_nineteen) = verdicts(tabulate(answers_to(rows)), "uniform", "w1").best
    assert (at_ten.who, at_ten.ties, at_ten.undecided) == ("edm with ddim", ("edm with euler",), ())
    assert (at_nineteen.who, at_nineteen.ties) == ("edm with ddim", ("edm with euler",))
    if seeds > 1:
        assert at_nineteen.undecided == ()
        assert at_nineteen.lead is not None
        assert at_nineteen.lead.who == "edm with heun"
    else:
        assert at_nineteen.undecided == ("edm with heun",)


def test_the_nearest_of_those_behind_is_the_first_of_equals_too() -> None:
    for last_digit in (-1, 1):
        rows: list[Spec] = []
        for seed, value in enumerate([0.010, 0.011, 0.0105, 0.0102]):
            for sampler, more in (("heun", 1.0), ("ddim", 3.0), ("euler", 3.0 * (1 + last_digit * 1e-12))):
                drawn = value * more * (1 + 0.01 * seed * (more > 1))
                rows.append({"formulation": "edm", "sampler": sampler, "seed": seed, "w1": drawn, "nfe": 10})
        (best,) = verdicts(tabulate(answers_to(rows)), "uniform", "w1").best
        assert best.who == "edm with heun"
        assert best.lead is not None
        assert best.lead.who == "edm with ddim"


def test_what_differs_by_more_than_rounding_is_told_apart() -> None:
    rows: list[Spec] = []
    for seed, value in enumerate([0.010, 0.011, 0.0105, 0.0102]):
        other = value * (1 - 1e-7 * (1 + 1e-3 * seed))
        rows += [
            {"formulation": "edm", "sampler": sampler, "seed": seed, "w1": w1}
            for sampler, w1 in (("ddim", value), ("euler", other))
        ]
    (best,) = verdicts(tabulate(answers_to(rows)), "uniform", "w1").best
    assert (best.who, best.ties) == ("edm with euler", ())


def test_a_mean_that_is_nothing_but_rounding_is_written_as_nothing_and_no_ratio_to_it_is_told() -> None:
    """An exact denoiser whose error is 1e-17, as a sum that cancels leaves it."""
    rows: list[Spec] = []
    for seed in range(3):
        for n in (2, 10):
            rows += [
                {"formulation": "edm", "steps": n, "seed": seed, "w1": 0.1 / n * (1 + 0.01 * seed)},
                {"steps": n, "seed": seed, "w1": (1.0 + 0.2 * seed) * 1e-17},
            ]
    answers = answers_to(rows)
    (near,) = verdicts(tabulate(answers), "uniform", "w1").nearness
    assert "ratio" not in near.sentence()
    assert all(math.isnan(ratio.value) for ratio in near.ratios)
    page = Page(draw_report(answers))
    assert re.findall(r"\S*10⁻¹\S+|\S*\de-1\d\S*|\bratio \d\S*", page.text) == []


@pytest.mark.parametrize("order", [("euler", "ddim"), ("ddim", "euler")])
def test_euler_and_ddim_of_a_real_run_tie_on_edm_and_the_first_that_the_study_names_leads(
    order: tuple[str, str], tmp_path: Path
) -> None:
    spec = {**SPEC, "samplers": list(order), "steps": [3, 10], "samples": 300, "keep": {}}
    answer(str(tmp_path / "results"), spec)
    answers = ModelledAnswers(Store.open(str(tmp_path / "results")), "tiny")
    values = {name: answers.points["w1"].values[(answers.points["sampler"].values == name)].tolist() for name in order}
    assert values[order[0]] == pytest.approx(values[order[1]], rel=1e-12)  # one rule, but for rounding
    for best in verdicts(tabulate(answers), "uniform", "w1").best:
        assert (best.who, best.ties) == (f"edm with {order[0]}", (f"edm with {order[1]}",))
