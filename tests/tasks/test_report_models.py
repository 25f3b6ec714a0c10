"""What is told of models rather than of samples, what stands beside curves, and what is ranked with what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from tasks.report import draw_report
from tasks.report.lookup.targets import target_of
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.findings import BEYOND, not_numbers, verdicts
from tasks.report.numbers.models import of_models
from tasks.report.pictures.quality import quality
from tasks.report.pictures.space import clouds
from tasks.report.pictures.style import log_ticks
from tests.tasks import report_fixture as fixture

MadeUp, dataset_of = fixture.MadeUp, fixture.dataset_of


OF_MODELS = {"metrics": ["w1", "nll", "score-error"]}


def asked(metric: str = "w1", **row: object) -> dict[str, object]:
    return {metric: 0.1, **row}


# --- metrics of models ------------------------------------------------------------------------------------------------


def with_likelihoods(values: list[float], floors: list[float]) -> xr.Dataset:
    """Every cell asked by three samplers, which repeat its metrics; a fourth point of each has no answer of that kind."""
    rows = [
        {
            "seed": seed,
            "sampler": sampler,
            "cell_id": f"c{seed}",
            "w1": 0.1,
            "nll": math.nan if sampler == "ddim" else value,
            "nll_floor": floor,
            "score-error": value / 10,
            "score-error_floor": 0.0,
        }
        for seed, (value, floor) in enumerate(zip(values, floors, strict=True))
        for sampler in ("ddim", "heun", "euler")
    ]
    return dataset_of(rows, ("w1", "nll", "score-error"))


def test_a_metric_of_models_counts_once_for_each_model_and_is_compared_with_its_floor_seed_by_seed() -> None:
    table = tabulate(with_likelihoods([1.1, 1.4, 1.2], [1.0, 1.2, 1.1]), OF_MODELS)
    assert table.metrics == ("w1",)
    found = of_models(table, "uniform", {})
    assert found is not None
    assert found.metrics == ("nll", "score-error")
    ((_, least, (nll, score)),) = found.rows
    assert least == 0.002  # of the schedule edm: what the densities are told at
    assert nll.value.values == (1.1, 1.4, 1.2)
    assert nll.above.values == pytest.approx((0.1, 0.2, 0.1))
    assert nll.above.sem == pytest.approx(np.std([0.1, 0.2, 0.1], ddof=1) / math.sqrt(3))
    assert score.above is None  # its floor is nothing
    assert score.lines()[1] == ""


def test_the_page_has_a_table_of_the_models_and_no_picture_of_such_a_metric() -> None:
    answers = MadeUp(with_likelihoods([1.1, 1.4, 1.2], [1.0, 1.2, 1.1]), OF_MODELS)
    page = draw_report(answers)
    assert "What each model answers by itself" in page
    assert "1.23 ± 0.088" in page
    assert "floor 1.10, above it 0.133 ± 0.033" in page
    assert [picture.title for picture in quality(tabulate(answers.points, OF_MODELS), "uniform", "nll")] == []


def test_there_is_no_such_table_where_nothing_of_the_kind_was_measured() -> None:
    points = dataset_of([asked()], ("w1",))
    assert of_models(tabulate(points, {}), "uniform", {}) is None
    assert "What each model answers by itself" not in draw_report(MadeUp(points, {}))


# --- baselines --------------------------------------------------------------------------------------------------------


def with_baseline() -> xr.Dataset:
    rows = [
        asked(formulation=f, sampler=s, steps=n, nfe=n)
        for f in ("edm", "exact")
        for s in ("ddim", "heun")
        for n in (1, 8)
    ]
    rows += [
        asked(formulation="vae", schedule="flow", sampler="decode", steps=1, nfe=1, seed=s, w1=0.3 + s / 10)
        for s in (0, 1)
    ]
    return dataset_of(rows, ("w1",))


def test_what_samples_in_one_step_and_in_its_own_way_is_a_line_in_every_other_panel() -> None:
    points = with_baseline()
    pictures = quality(tabulate(points, {}), "uniform", "w1")
    assert [picture.title for picture in pictures] == ["ddim", "heun"]
    for picture in pictures:
        (line,) = [trace for trace in picture.spec["data"] if trace["name"] == "vae"]
        assert set(line["y"]) == {0.34641}  # the geometric mean of the two seeds, on a logarithmic axis
    page = draw_report(MadeUp(points, {}))
    assert page.count('<th scope="row">vae, in 1 evaluation</th>') == 2  # below the rows of each sampler


def test_several_of_them_are_a_line_each() -> None:
    rows = [asked(formulation="edm", sampler="heun", steps=n, nfe=n) for n in (1, 8)]
    rows += [
        asked(formulation=f, sampler="decode", steps=1, nfe=1, w1=w1)
        for f, w1 in (("vae", 0.3), ("vae(latent=4)", 0.4))
    ]
    (picture,) = quality(tabulate(dataset_of(rows, ("w1",)), {}), "uniform", "w1")
    lines = {trace["name"]: trace["y"][0] for trace in picture.spec["data"] if trace["name"].startswith("vae")}
    assert lines == {"vae": 0.3, "vae(latent=4)": 0.4}


def test_a_study_of_nothing_else_has_its_own_picture() -> None:
    points = with_baseline()
    alone = points.isel(point=np.flatnonzero(points["formulation"].values == "vae"))
    assert [picture.title for picture in quality(tabulate(alone, {}), "uniform", "w1")] == ["decode"]


# --- rankings ---------------------------------------------------------------------------------------------------------


def test_whoever_knows_more_is_ranked_apart() -> None:
    rows = [
        asked(formulation="edm", sampler="heun", w1=0.2, start="random"),
        asked(formulation="indi", sampler="indi", w1=0.1, start="observation: blur", process="restoration"),
        asked(formulation="edm", sampler="langevin", w1=0.05, start="data", process="dynamics"),
        asked(formulation="edm", sampler="forward-chain", w1=0.01, start="data", process="forward", nfe=0),
        asked(
            formulation="edm",
            sampler="langevin(nsr=0.5)",
            w1=0.02,
            start="random to sigma/alpha = 0.5",
            process="dynamics",
        ),
    ]
    found = verdicts(tabulate(dataset_of(rows, ("w1",)), {}), "uniform", "w1")
    assert [(what, [best.who for best in ranking]) for what, ranking in found.rankings] == [
        ("Best at each budget", ["edm with heun"]),
        ("Best at each budget, from data", ["edm with langevin"]),
        ("Best at each budget, from observation: blur", ["indi with indi"]),
        ("Best at each budget, from random to sigma/alpha = 0.5", ["edm with langevin(nsr=0.5)"]),
    ]
    page = draw_report(MadeUp(dataset_of(rows, ("w1",)), {}))
    assert all(what in page for what, _ in found.rankings)


def test_a_study_of_restorations_ranks_them() -> None:
    rows = [asked(formulation="indi", sampler="indi", start="observation: blur", process="restoration")]
    found = verdicts(tabulate(dataset_of(rows, ("w1",)), {}), "uniform", "w1")
    assert [best.who for best in found.best] == ["indi with indi"]


def test_one_answer_that_is_best_at_several_budgets_is_told_once() -> None:
    rows = [
        asked(formulation="a", sampler="ddim", steps=1, nfe=1, w1=0.477),
        asked(formulation="b", sampler="ddim", steps=8, nfe=8, w1=0.9),
    ]
    ((_, (sentence,)),) = verdicts(tabulate(dataset_of(rows, ("w1",)), {}), "uniform", "w1").ranked()
    assert (
        sentence
        == "Budget of 1 to 8 evaluations: best is a with ddim, w1 0.477 at N = 1 (1 NFE); undecided against b with ddim."
    )


def test_samples_that_ran_away_are_named_although_their_points_are_ok() -> None:
    alone = target_of("uniform", {}).error_of_its_mean("w1", {"metrics": ["w1"]})
    rows = [
        asked(formulation=f, sampler="langevin", steps=n, nfe=n, w1=alone * times)
        for f, off in (("edm", (1.0, 0.5)), ("vp", (1.1 * BEYOND, 20 * BEYOND)))
        for n, times in zip((10, 100), off, strict=True)
    ]
    points = dataset_of(rows, ("w1",))
    (beyond,) = verdicts(tabulate(points, {}), "uniform", "w1", alone).beyond
    assert beyond.sentence().startswith("vp with langevin: w1 500 at N = 100, and beyond at 1 more step count")
    page = draw_report(MadeUp(points, {"metrics": ["w1"]}))
    assert page.count(beyond.sentence()) == 1


def test_a_metric_that_does_not_apply_to_a_row_is_no_bug_of_that_row() -> None:
    rows = [
        asked(formulation="edm", w1=0.2, w1_floor=0.1),
        asked(
            formulation="indi", w1=0.2, w1_floor=0.1, **{"restoration-error": 0.1, "restoration-error_floor": math.nan}
        ),
    ]
    assert not_numbers(tabulate(dataset_of(rows, ("w1", "restoration-error")), {})) == []
    wrong = [{**rows[0], "w1": math.nan, "point_id": "wrong"}, *rows]
    ((point, metrics),) = not_numbers(tabulate(dataset_of(wrong, ("w1", "restoration-error")), {}))
    assert (point.point_id, metrics) == ("wrong", ["w1"])


# --- small things -----------------------------------------------------------------------------------------------------


def test_a_logarithmic_axis_has_a_tick_where_there_is_something() -> None:
    assert log_ticks(18 / 1.2, 18 * 1.2, [18])["tickvals"] == [18.0]
    assert log_ticks(30 / 1.2, 45 * 1.2, [30, 45])["tickvals"] == [30.0, 45.0]
    assert log_ticks(0.8, 120, [1, 100])["tickvals"] == [1, 2, 5, 10, 20, 50, 100]


@pytest.mark.parametrize(("sampler", "drawn"), [("heun", 1), ("forward-chain", 0)])
def test_samples_of_another_law_do_not_stand_beside_the_torus(sampler: str, drawn: int) -> None:
    row = asked(dataset="torus", formulation="exact", sampler=sampler, grid="edm", point_id="p")
    answers = MadeUp(dataset_of([row], ("w1",)), {})
    answers.kept_samples["p"] = xr.DataArray(np.zeros((10, 3)), dims=("sample", "coordinate"))
    assert len(clouds(answers, tabulate(answers.points, {}), target_of("torus", {}), 3)) == drawn
