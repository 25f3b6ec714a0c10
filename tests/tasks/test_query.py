"""Filter, group, reduce: records are what the rows say."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

from diffusion.metrics import ModeCoverage
from tasks.columns import FACTS
from tasks.plain import Spec
from tasks.query import STATISTICS, QueryError, pooled_schedules, query
from tasks.where.columns import Columns, Groups
from tests.tasks.metric_kit import saying

LABELS = {
    "dataset": "uniform",
    "formulation": "edm",
    "schedule": "edm",
    "sampler": "heun",
    "grid": "edm",
    "steps": 10,
    "seed": 0,
}


@dataclass(frozen=True)
class Hits(ModeCoverage):
    """A metric of which more is better, named in a study as `tests.tasks.test_query:Hits`."""

    higher_is_better = True


HITS = "tests.tasks.test_query:Hits"


def points_of(rows: list[dict[str, Any]], *metrics: str) -> xr.Dataset:
    """A dataset of points as `open_results` gives it; whatever a row leaves out is as in `LABELS`,
    and `ok`.
    """
    frame = pd.DataFrame(
        [
            {**LABELS, "status": "ok", "error": "", "point_id": f"{i:020d}", "cell_id": "c", **row}
            for i, row in enumerate(rows)
        ]
    )
    for name in (*metrics, "nfe", "train_seconds", *(f"{metric}_floor" for metric in metrics)):
        if name not in frame:
            frame[name] = frame["steps"] if name == "nfe" else 0.5
    columns = {name: ("point", np.array(frame[name].tolist())) for name in frame}
    labels = (*LABELS, "nfe", "cell_id", "point_id", "status", "error", *(name for name in FACTS if name in columns))
    coords = {name: columns.pop(name) for name in labels}
    return saying(xr.Dataset(columns, coords), metrics)


def random_points(n: int = 500) -> xr.Dataset:
    """Points with two metrics, some NaN, some failed, in no order."""
    draw = np.random.default_rng(0)
    return points_of(
        [
            {
                "formulation": draw.choice(["vp", "edm", "exact"]),
                "sampler": draw.choice(["heun", "ddim(eta=0.5)"]),
                "steps": int(draw.choice([1, 2, 10, 100])),
                "seed": i,
                "status": draw.choice(["ok", "ok", "ok", "failed"]),
                "w1": draw.choice([draw.normal(), np.nan], p=[0.9, 0.1]),
                "ks": draw.normal(),
            }
            for i in range(n)
        ],
        "w1",
        "ks",
    )


def test_every_statistic_of_every_group_is_what_its_rows_give() -> None:
    points = random_points()
    by = ["steps", "formulation"]
    found = query(points, "steps > 1", by, ["w1", "ks"], list(STATISTICS))
    assert list(found) == [*by, *(f"{m}_{s}" for m in ("w1", "ks") for s in STATISTICS)]
    frame = points.to_dataframe()
    frame = frame[(frame["status"] == "ok") & (frame["steps"] > 1)]
    assert list(zip(found["steps"], found["formulation"], strict=True)) == sorted(
        set(zip(frame["steps"], frame["formulation"], strict=True))
    )
    for _, row in found.iterrows():
        mine = frame[(frame["steps"] == row["steps"]) & (frame["formulation"] == row["formulation"])]
        for metric in ("w1", "ks"):
            x = mine[metric].dropna().to_numpy()
            width = scipy.stats.t.interval(0.95, len(x) - 1, x.mean(), scipy.stats.sem(x))[1] - x.mean()
            expected = [
                x.mean(),
                x.std(ddof=1),
                scipy.stats.sem(x),
                width,
                x.min(),
                x.max(),
                np.median(x),
                len(x),
                x.min(),
            ]
            np.testing.assert_allclose([row[f"{metric}_{s}"] for s in STATISTICS], expected, rtol=1e-10)


def test_of_one_row_there_is_a_mean_and_no_spread() -> None:
    found = query(points_of([{"w1": 0.25}], "w1"), None, ["sampler"], ["w1"], list(STATISTICS)).iloc[0]
    assert [found[f"w1_{s}"] for s in ("mean", "min", "max", "median", "best", "count")] == [0.25] * 5 + [1]
    assert all(np.isnan(found[f"w1_{s}"]) for s in ("std", "sem", "ci95"))


def test_the_95_percent_interval_holds_the_mean_95_times_in_100() -> None:
    # 4000 groups of 3: the share has standard deviation 0.0034; more than 5 of them off happens
    # once in 1.7 million seeds
    draws = np.random.default_rng(1).normal(1.0, 0.3, size=(4000, 3))
    rows = [{"steps": i, "seed": s, "w1": draws[i, s]} for i in range(4000) for s in range(3)]
    found = query(points_of(rows, "w1"), None, ["steps"], ["w1"], ["mean", "ci95"])
    inside = (np.abs(found["w1_mean"] - 1.0) <= found["w1_ci95"]).mean()
    assert abs(inside - 0.95) < 5 * 0.0034


def test_best_is_the_largest_where_the_metric_says_so_and_the_smallest_otherwise() -> None:
    rows = [{"seed": i, HITS: x, "w1": x} for i, x in enumerate([0.1, 0.3, 0.2])]
    found = query(points_of(rows, HITS, "w1"), None, ["sampler"], [HITS, "w1"], ["best"])
    assert found.iloc[0].tolist() == ["heun", 0.3, 0.1]
    part = f"{HITS}_network"
    points = points_of([{HITS: 1.0, part: x} for x in (0.1, 0.3)], HITS)
    assert query(points, None, ["sampler"], [part], ["best"]).iloc[0].tolist() == ["heun", 0.3]


def test_failed_points_are_records_and_no_part_of_a_group() -> None:
    points = points_of(
        [
            {"w1": 1.0},
            {"seed": 1, "w1": 9.0, "status": "failed", "error": "NaN"},
            {"seed": 2, "w1": 9.0, "status": "skipped"},
        ],
        "w1",
    )
    assert query(points, None, ["sampler"], ["w1"], ["mean", "count"]).iloc[0].tolist() == ["heun", 1.0, 1]
    assert query(points)["status"].tolist() == ["ok", "failed", "skipped"]


def test_numbers_without_a_mean_give_no_warning() -> None:
    points = points_of([{"seed": i, "w1": x} for i, x in enumerate([np.inf, -np.inf, np.nan, 1e308, 1e308])], "w1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = query(points, "w1 < 1 or not w1 < 1", ["sampler"], (), list(STATISTICS)).iloc[0]
    assert found["w1_count"] == 4
    assert found["w1_max"] == np.inf


def test_a_metric_of_models_counts_once_for_each_model_whoever_asks_it() -> None:
    """Its points repeat it; some, such as guided ones, have none. What stands beside it counts as
    it does.
    """
    likelihoods = {"a": 1.0, "b": 2.0, "c": 4.0}
    rows = [
        {"cell_id": cell, "seed": seed, "sampler": sampler, "nll": value, "nll_floor": value / 2, "w1": 0.1 * seed}
        for seed, (cell, value) in enumerate(likelihoods.items())
        for sampler, value in (("guided", np.nan), ("heun", value), ("ddim", value))
    ]
    found = query(
        points_of(rows, "nll", "w1"),
        by=["dataset"],
        metrics=["nll", "nll_floor", "w1"],
        statistics=["mean", "sem", "count"],
    )
    assert found["nll_count"].tolist() == [3]
    assert found["nll_mean"].tolist() == pytest.approx([7 / 3])
    assert found["nll_sem"].tolist() == pytest.approx([np.std([1, 2, 4], ddof=1) / 3**0.5])
    assert found["nll_floor_mean"].tolist() == pytest.approx([7 / 6])
    assert found["w1_count"].tolist() == [9]
    apart = query(points_of(rows, "nll", "w1"), by=["sampler"], metrics=["nll"], statistics=["count"])
    assert dict(zip(apart["sampler"], apart["nll_count"], strict=True)) == {"ddim": 3, "guided": 0, "heun": 3}


def test_without_groups_a_record_has_its_labels_first_and_only_the_metrics_that_were_asked_for() -> None:
    points = points_of([{"w1": 1.0, "ks": 2.0, "w1_network": 0.1, "ks_network": 0.2}], "w1", "ks")
    assert list(query(points))[:6] == ["dataset", "formulation", "schedule", "sampler", "grid", "steps"]
    beside = {"w1", "w1_floor", "w1_network"}
    assert set(query(points, metrics=["w1"])) == {*points.coords, "train_seconds", *beside}
    assert set(query(points)) == set(points.variables)


def test_a_question_that_nothing_satisfies_gives_the_columns_without_rows() -> None:
    points = random_points(20)
    found = query(points, "steps > 1000", ["sampler", "steps"], ["w1"])
    assert list(found) == ["sampler", "steps", "w1_mean", "w1_sem", "w1_count"]
    assert len(found) == 0
    assert len(query(points, "steps > 1000")) == 0
    assert len(query(points.isel(point=slice(0)), "sampler == 'heun'", ["sampler"])) == 0


def test_a_group_named_twice_is_one_and_one_labelled_nan_is_kept() -> None:
    points = points_of([{"w1": np.nan, "ks": 1.0}, {"seed": 1, "w1": 0.5, "ks": 2.0}], "w1", "ks")
    found = query(points, None, ["w1", "sampler", "w1"], ["ks"], ["mean"])
    assert list(found) == ["w1", "sampler", "ks_mean"]
    assert found["ks_mean"].tolist() == [2.0, 1.0]


def test_a_column_that_stands_beside_a_metric_is_asked_for_like_one() -> None:
    points = points_of([{"w1": 0.3, "w1_network": 0.1}], "w1")
    assert query(points, None, ["sampler"], ["w1_network"], ["mean"])["w1_network_mean"].tolist() == [0.1]


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ({"by": ["formulatoin"]}, "--by 'formulatoin' is unknown; did you mean 'formulation'?"),
        ({"metrics": ["w2"]}, "metric 'w2' is unknown; did you mean 'w1'?"),
        ({"by": ["steps"], "statistics": ["meen"]}, "--stat 'meen' is unknown; did you mean 'mean'?"),
        ({"metrics": ["x" * 5000]}, "is unknown"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(requested: Spec, expected: str) -> None:
    with pytest.raises(QueryError) as refusal:
        query(points_of([{"w1": 1.0}], "w1"), **requested)
    assert expected in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_only_columns_that_a_question_names_are_read() -> None:
    read = []

    def reader(name: str) -> np.ndarray:
        read.append(name)
        return np.arange(4)

    columns = Columns(["a", "b", "c"], 4, reader)
    some = columns.rows(columns["a"] > 1)
    assert some["b"].tolist() == [2, 3]
    assert some["b"].tolist() == [2, 3]
    assert read == ["a", "b"]


def test_groups_of_more_places_than_an_integer_counts_are_told_apart() -> None:
    draw = np.random.default_rng(0)
    columns = {f"axis {k}": draw.permutation(5000) // 2 for k in range(12)}  # 2500^12 places
    groups = Groups(columns, list(columns), 5000)
    frame = pd.DataFrame(columns)
    assert len(groups) == len(frame.drop_duplicates())
    expected = frame.groupby(list(columns), sort=True).ngroup()
    np.testing.assert_array_equal(groups.codes, expected)
    pd.testing.assert_frame_equal(
        pd.DataFrame(groups.labels)[list(columns)],
        frame.drop_duplicates().sort_values(list(columns), ignore_index=True),
    )


def test_that_exact_rows_of_several_schedules_are_mixed_is_said() -> None:
    exact = [{"formulation": "exact", "schedule": name, "w1": 0.1} for name in ("edm", "vp-linear", "ve-linear")]
    points = points_of([*exact, {"w1": 0.2}], "w1")
    said = pooled_schedules(points, ["formulation"])
    assert said is not None
    assert "up to 3 schedules: add schedule to --by" in said
    assert pooled_schedules(points, ["formulation", "schedule"]) is None
    assert pooled_schedules(points, ["sampler"]) is None  # who leaves the formulation out mixes by intent
    assert pooled_schedules(points, ["formulation"], 'schedule!="vp-linear"') is not None
    assert pooled_schedules(points, ["formulation"], 'schedule=="edm"') is None
    assert pooled_schedules(points, ["formulation"], 'formulation!="exact"') is None
