"""What is told of models rather than of samples, what stands beside curves, and what is ranked with
what.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.plain import Plain, Spec
from tasks.report import draw_report
from tasks.report.numbers.clouds import clouds
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.findings import BEYOND, not_numbers, verdicts
from tasks.report.numbers.models import of_models
from tasks.report.pictures.quality import quality
from tasks.report.pictures.style import log_ticks
from tasks.results.models import ModelledAnswers
from tests.tasks.chosen import answers_to


def row(metric: str = "w1", **more: Plain) -> Spec:
    return {metric: 0.1, **more}


# --- metrics of models ----------------------------------------------------------------------------


def with_likelihoods() -> ModelledAnswers:
    """Every model asked by three samplers, which repeat its metrics."""
    values, floors = [1.1, 1.4, 1.2], [1.0, 1.2, 1.1]
    return answers_to(
        {
            "formulation": "edm",
            "seed": seed,
            "sampler": sampler,
            "w1": 0.1,
            "nll": value,
            "nll_floor": floor,
            "score-error": value / 10,
            "score-error_floor": 0.0,
        }
        for sampler in ("ddim", "heun", "euler")
        for seed, (value, floor) in enumerate(zip(values, floors, strict=True))
    )


def test_a_metric_of_models_counts_once_for_each_model_and_is_compared_with_its_floor_seed_by_seed() -> None:
    table = tabulate(with_likelihoods())
    assert table.metrics == ("w1",)
    found = of_models(table, "uniform")
    assert found is not None
    assert found.metrics == ("nll", "score-error")
    ((_, least, (nll, score)),) = found.rows
    assert nll is not None
    assert nll.above is not None
    assert score is not None
    assert least == 0.002  # of the schedule edm: what the densities are told at
    assert nll.value.values == (1.1, 1.4, 1.2)
    assert nll.above.values == pytest.approx((0.1, 0.2, 0.1))
    assert nll.above.sem == pytest.approx(np.std([0.1, 0.2, 0.1], ddof=1) / math.sqrt(3))
    assert score.above is None  # its floor is nothing
    assert score.lines()[1] == ""


def test_the_page_has_a_table_of_the_models_and_no_picture_of_such_a_metric() -> None:
    answers = with_likelihoods()
    page = draw_report(answers)
    assert "What each model answers by itself" in page
    assert "1.23 ± 0.088" in page
    assert "floor 1.10, above it 0.133 ± 0.033" in page
    assert [picture.title for picture in quality(tabulate(answers), "uniform", "nll")] == []


def test_there_is_no_such_table_where_nothing_of_the_kind_was_measured() -> None:
    answers = answers_to([row()])
    assert of_models(tabulate(answers), "uniform") is None
    assert "What each model answers by itself" not in draw_report(answers)


# --- baselines ------------------------------------------------------------------------------------

VAE: Spec = {"formulation": "vae", "sampler": "decode", "steps": 1}


def with_baseline(curves: tuple[str, ...] = ("edm", "exact")) -> ModelledAnswers:
    rows = [row(formulation=f, sampler=s, steps=n) for f in curves for s in ("ddim", "heun") for n in (1, 8)]
    return answers_to([*rows, *(row(**VAE, seed=seed, w1=0.3 + seed / 10) for seed in (0, 1))])


def test_what_samples_in_one_step_and_in_its_own_way_is_a_line_in_every_other_panel() -> None:
    answers = with_baseline()
    pictures = quality(tabulate(answers), "uniform", "w1")
    assert [picture.title for picture in pictures] == ["ddim", "heun"]
    for picture in pictures:
        (line,) = [trace for trace in picture.spec["data"] if trace["name"] == "vae"]
        assert set(line["y"]) == {0.34641}  # the geometric mean of the two seeds, on a logarithmic axis
    page = draw_report(answers)
    assert page.count('<th scope="row">vae, in 1 evaluation</th>') == 2  # below the rows of each sampler


def test_several_of_them_are_a_line_each() -> None:
    rows = [row(formulation="edm", steps=n) for n in (1, 8)]
    rows += [row(**{**VAE, "formulation": {"name": "vae", "latent": n}}, w1=n / 10) for n in (3, 4)]
    (picture,) = quality(tabulate(answers_to(rows)), "uniform", "w1")
    lines = {trace["name"]: trace["y"][0] for trace in picture.spec["data"] if trace["name"].startswith("vae")}
    assert lines == {"vae(latent=3)": 0.3, "vae(latent=4)": 0.4}


def test_a_study_of_nothing_else_has_its_own_picture() -> None:
    assert [picture.title for picture in quality(tabulate(with_baseline(())), "uniform", "w1")] == ["decode"]


# --- rankings -------------------------------------------------------------------------------------


INDI = {"name": "indi", "degradation": {"name": "mask", "seen": [0]}}


def test_whoever_knows_more_is_ranked_apart() -> None:
    rows = [
        row("sliced-w2", dataset="eight_gaussians", formulation=formulation, sampler=sampler) | {"sliced-w2": value}
        for formulation, sampler, value in (
            ("edm", "heun", 0.2),
            (INDI, "indi", 0.1),
            ("edm", {"name": "langevin", "start_from": "data"}, 0.05),
            ("exact", "forward-chain", 0.01),
            ("edm", {"name": "langevin", "nsr": 0.5}, 0.02),
        )
    ]
    answers = answers_to(rows)
    found = verdicts(tabulate(answers), "eight_gaussians", "sliced-w2")
    assert [(what, [best.who for best in ranking]) for what, ranking in found.rankings] == [
        ("Best at each budget", ["edm with heun"]),
        ("Best at each budget, from data", ["edm with langevin(start_from=data)"]),
        ("Best at each budget, from observation: mask", ["indi(degradation=mask) with indi"]),
        ("Best at each budget, from random to sigma/alpha = 0.5", ["edm with langevin(nsr=0.5)"]),
    ]
    page = draw_report(answers)
    assert all(what in page for what, _ in found.rankings)


def test_a_study_of_restorations_ranks_them() -> None:
    restored = {"dataset": "eight_gaussians", "formulation": INDI, "sampler": "indi", "sliced-w2": 0.1}
    found = verdicts(tabulate(answers_to([restored])), "eight_gaussians", "sliced-w2")
    assert [best.who for best in found.best] == ["indi(degradation=mask) with indi"]


def test_restorations_of_different_observations_have_floors_and_rankings_of_their_own() -> None:
    rows = [
        {
            "dataset": "eight_gaussians",
            "formulation": {"name": "indi", "degradation": {"name": "mask", "seen": seen}},
            "sampler": "euler",
            "sliced-w2": floor + 0.1,
            "sliced-w2_floor": floor,
        }
        for seen, floor in (([0], 0.005), ([1], 1.0))
    ]
    answers = answers_to(rows)
    table = tabulate(answers)
    curves = table.select("eight_gaussians", "sliced-w2")
    floors = [table.floor("eight_gaussians", "sliced-w2", curve.panel, curve.series) for curve in curves]
    assert floors == [0.005, 1.0]
    page = draw_report(answers)
    assert "Best at each budget, from observation: mask" in page
    assert "Best at each budget, from observation: mask(seen=(1,))" in page


def test_one_answer_that_is_best_at_several_budgets_is_told_once() -> None:
    rows = [
        row(formulation="edm", sampler="ddim", steps=1, w1=0.477),
        row(formulation="vp", sampler="ddim", steps=8, w1=0.9),
    ]
    ((_, (sentence,)),) = verdicts(tabulate(answers_to(rows)), "uniform", "w1").ranked()
    assert sentence == (
        "Budget of 1 to 8 evaluations: best is edm with ddim, w1 0.477 at N = 1 (1 NFE); undecided against vp with ddim."
    )


def test_samples_that_ran_away_are_named_although_their_points_are_ok() -> None:
    alone = 0.25  # W1 of U[0, 1] and its mean
    rows = [
        row(formulation=f, sampler="ddim", steps=n, w1=alone * times)
        for f, off in (("edm", (1.0, 0.5)), ("vp", (1.1 * BEYOND, 20 * BEYOND)))
        for n, times in zip((10, 100), off, strict=True)
    ]
    answers = answers_to(rows)
    (beyond,) = verdicts(tabulate(answers), "uniform", "w1", alone).beyond
    assert beyond.sentence().startswith("vp with ddim: w1 500 at N = 100, and beyond at 1 more step count")
    assert draw_report(answers).count(beyond.sentence()) == 1


def test_a_metric_that_does_not_apply_to_a_row_is_no_bug_of_that_row() -> None:
    of_restorations: Spec = {"restoration-error": 0.1, "restoration-error_floor": math.nan}
    rows = [
        row(formulation="edm", w1=0.2, w1_floor=0.1),
        row(formulation=INDI, sampler="indi", w1=0.2, w1_floor=0.1, **of_restorations),
    ]
    assert not_numbers(tabulate(answers_to(rows))) == []
    wrong = row(formulation="edm", w1=math.nan, w1_floor=0.1, steps=11)
    ((point, metrics),) = not_numbers(tabulate(answers_to([wrong, *rows])))
    assert (point.steps, metrics) == (11, ["w1"])


# --- small things ---------------------------------------------------------------------------------


def test_a_logarithmic_axis_has_a_tick_where_there_is_something() -> None:
    assert log_ticks(18 / 1.2, 18 * 1.2, [18])["tickvals"] == [18.0]
    assert log_ticks(30 / 1.2, 45 * 1.2, [30, 45])["tickvals"] == [30.0, 45.0]
    assert log_ticks(0.8, 120, [1, 100])["tickvals"] == [1, 2, 5, 10, 20, 50, 100]


@pytest.mark.parametrize("low", np.geomspace(1e-4, 1e4, 97))
def test_a_short_logarithmic_axis_has_two_ticks_with_short_names(low: float) -> None:
    for ratio in (1.7, 2.0, 3.0, 10.0, 1e4):
        ticks = log_ticks(low, low * ratio)
        assert len(ticks["tickvals"]) >= 2
        assert all(low * 0.999 <= value <= low * ratio * 1.001 for value in ticks["tickvals"])
        assert len(set(ticks["ticktext"])) == len(ticks["ticktext"])
        assert all(len(text) <= 6 or "<sup>" in text for text in ticks["ticktext"])


@pytest.mark.parametrize(("sampler", "drawn"), [("heun", 1), ("forward-chain", 0)])
def test_samples_of_another_law_do_not_stand_beside_the_torus(sampler: str, drawn: int) -> None:
    kept = np.zeros((10, 3), np.float32)
    answers = answers_to([{"dataset": "torus", "sampler": sampler, "sliced-w2": 0.1, "samples": kept}])
    table = tabulate(answers)
    assert len(clouds(answers, table, table.targets["torus"], 3)) == drawn
