"""Who is best, and who cannot be told from the best; what nothing beats."""

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.command_line.query import _nothing
from tasks.plain import Plain, Spec
from tasks.query import QueryError, pareto, rank
from tasks.where.columns import of_points
from tests.tasks.test_query import HITS, points_of

CONFIGURATION = ["dataset", "formulation", "schedule", "sampler", "grid", "steps"]


def values_of(values: dict[str, list[float]], **labels: Plain) -> list[Spec]:
    """A row per sampler and seed."""
    return [
        {**labels, "sampler": name, "seed": s, "w1": x}
        for name, numbers in values.items()
        for s, x in enumerate(numbers)
    ]


def a_sweep() -> list[Spec]:
    draw = np.random.default_rng(3)
    axes: list[Iterable[Plain]] = [
        ["uniform", "moons"],
        ["vp", "edm"],
        ["heun", "ddim", "euler"],
        [1, 2, 5, 10, 20],
        range(4),
    ]
    names = ("dataset", "formulation", "sampler", "steps", "seed")
    rows = [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]
    return [
        {**row, "nfe": row["steps"] * (1 + (row["sampler"] == "heun")), "w1": draw.lognormal(), "ks": draw.lognormal()}
        for row in rows
    ]


def test_each_value_of_an_axis_stands_with_its_best_configuration_in_the_order_of_their_means() -> None:
    rows = a_sweep()
    found = rank(points_of(rows, "w1", "ks"), "sampler", "w1", at="nfe <= 10")
    frame = pd.DataFrame(rows).query("nfe <= 10")
    means = (
        frame.groupby(["dataset", "formulation", "sampler", "steps", "nfe"])["w1"].agg(["mean", "sem"]).reset_index()
    )
    best = means.loc[means.groupby(["dataset", "formulation", "sampler"])["mean"].idxmin()]
    best = best.sort_values(["dataset", "formulation", "mean"], ignore_index=True)
    for column in ("dataset", "formulation", "sampler", "steps", "nfe"):
        assert found[column].tolist() == best[column].tolist(), column
    np.testing.assert_allclose(found["w1_mean"], best["mean"], rtol=1e-12)
    np.testing.assert_allclose(found["w1_sem"], best["sem"], rtol=1e-12)
    assert found["rank"].tolist() == [1, 2, 3] * 4
    assert set(found["w1_count"]) == {4}
    result = [
        "dataset",
        "formulation",
        "rank",
        "sampler",
        "schedule",
        "grid",
        "steps",
        "nfe",
        "w1_mean",
        "w1_sem",
        "w1_count",
    ]
    assert list(found) == [*result, "behind", "behind_sem", "tied"]


@pytest.mark.parametrize("shared", [True, False])
def test_a_place_is_tied_exactly_where_a_t_test_at_5_percent_sees_no_difference(shared: bool) -> None:
    draw = np.random.default_rng(5)
    seen = set()
    for trial in range(60):
        first, second = draw.normal(1.0, 0.1, 4), draw.normal(1.15, 0.05, 4)
        rows = values_of({"a": list(first)}) + [
            {"sampler": "b", "seed": s + (0 if shared else 100), "w1": x} for s, x in enumerate(second)
        ]
        found = rank(points_of(rows, "w1"), by=())
        test = scipy.stats.ttest_rel(first, second) if shared else scipy.stats.ttest_ind(first, second, equal_var=False)
        assert found["tied"].tolist() == [test.pvalue > 0.05] * 2, trial
        assert found["behind"][1] == pytest.approx(abs(first.mean() - second.mean()))
        spread = (
            scipy.stats.sem(first - second) if shared else np.hypot(scipy.stats.sem(first), scipy.stats.sem(second))
        )
        assert found["behind_sem"][1] == pytest.approx(spread)
        seen.add(bool(found["tied"][0]))
    assert seen == {True, False}


def test_a_small_steady_difference_is_seen_through_a_large_spread_that_seeds_share() -> None:
    seeds = np.random.default_rng(0).normal(10.0, 3.0, 5)
    rows = values_of({"b": list(seeds + np.array([0.1, 0.11, 0.09, 0.1, 0.1])), "a": list(seeds)})
    found = rank(points_of(rows, "w1"), by=())
    assert found["sampler"].tolist() == ["a", "b"]
    assert found["behind"].tolist() == [0.0, pytest.approx(0.1)]
    assert found["tied"].tolist() == [False, False]


def test_the_first_is_tied_if_any_other_is_and_of_one_seed_nothing_is_said() -> None:
    found = rank(points_of(values_of({"a": [1.0, 1.2, 0.8], "b": [1.1, 0.9, 1.15], "c": [5.0, 5.2, 4.9]}), "w1"), by=())
    assert found["tied"].tolist() == [True, True, False]
    alone = rank(points_of(values_of({"a": [1.0], "b": [2.0]}), "w1"), by=())
    assert alone["tied"].isna().all()
    assert alone["behind"].tolist() == [0.0, 1.0]
    assert np.isnan(alone["behind_sem"]).all()
    assert rank(points_of(values_of({"a": [1.0, 1.0], "b": [1.0, 1.0]}), "w1"), by=())["tied"].tolist() == [True, True]
    assert rank(points_of(values_of({"a": [1.0, 1.0]}), "w1"), by=())["tied"].tolist() == [False]


def test_a_configuration_with_a_failed_point_is_not_ranked_by_its_survivors() -> None:
    rows = [
        *values_of({"heun": [0.1, 0.1]}),
        {"sampler": "heun", "seed": 2, "w1": np.nan, "status": "failed", "nfe": 0},
    ]
    rows += values_of({"heun": [0.5, 0.5, 0.5], "euler": [0.4, 0.4, 0.4]}, steps=20)
    found = rank(points_of(rows, "w1"), by=())
    assert found[["sampler", "steps"]].values.tolist() == [["euler", 20], ["heun", 20]]
    assert pareto(points_of(rows, "w1"), ("w1",))["sampler"].tolist() == ["euler"]


def test_at_holds_for_all_points_of_a_configuration_and_where_for_each() -> None:
    rows = [{"sampler": "rk45", "seed": s, "nfe": n, "w1": 0.1} for s, n in enumerate([18, 22])]
    rows += [{"sampler": "heun", "seed": s, "nfe": 19, "w1": 0.2} for s in range(2)]
    points = points_of(rows, "w1")
    assert rank(points, at="nfe <= 20", by=())["sampler"].tolist() == ["heun"]
    assert rank(points, where="nfe <= 20", by=())["w1_count"].tolist() == [1, 2]
    assert rank(points, by=())["nfe"].tolist() == [20, 19]


def test_of_a_metric_of_which_more_is_better_the_largest_comes_first() -> None:
    rows = [
        {"sampler": name, "seed": s, HITS: x + 0.01 * s, "steps": n}
        for name, x, n in (("a", 0.2, 1), ("b", 0.9, 5), ("c", 0.8, 9))
        for s in range(3)
    ]
    points = points_of(rows, HITS)
    found = rank(points, by=())
    assert found["sampler"].tolist() == ["b", "c", "a"]
    np.testing.assert_allclose(found["behind"], [0, 0.1, 0.7], atol=1e-12)
    assert pareto(points, (HITS, "nfe"))["sampler"].tolist() == ["b", "a"]


def test_equal_means_stand_in_the_order_of_their_cost() -> None:
    rows = values_of({"a": [0.5, 0.5]}, steps=20) + values_of({"b": [0.5, 0.5]}, steps=5)
    assert rank(points_of(rows, "w1"), by=())["sampler"].tolist() == ["b", "a"]


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ({"of": "seed"}, "--best 'seed' is unknown"),
        ({"by": ["smapler"]}, "did you mean 'sampler'"),
        ({"metric": "w2"}, "metric 'w2' is unknown"),
        ({"at": "nfe <"}, "--at 'nfe <': not understood at character 6"),
        ({"where": "nfee < 2"}, "--where 'nfee < 2': no column 'nfee'; did you mean 'nfe'?"),
        ({"by": ["formulation"]}, "w1 of different data sets does not compare (moons, uniform): add dataset to --by"),
    ],
)
def test_a_ranking_that_makes_no_sense_is_refused_with_its_reason(
    requested: dict[str, str] | dict[str, list[str]], expected: str
) -> None:
    with pytest.raises(QueryError) as refusal:
        rank(points_of(a_sweep(), "w1"), **requested)
    assert expected in str(refusal.value)


def test_points_of_differently_trained_networks_are_not_averaged() -> None:
    rows = values_of({"heun": [0.1, 0.2]}) + values_of({"heun": [0.3, 0.4]}, cell_id="trained longer")
    with pytest.raises(
        QueryError,
        match=r"several points share a configuration and a seed \(such as uniform, edm, edm, heun, edm, 10\)",
    ):
        rank(points_of(rows, "w1"))
    assert len(rank(points_of(rows, "w1"), where="cell_id == 'c'")) == 1


def test_without_a_metric_it_is_w1_or_the_only_one() -> None:
    two = points_of([{"ks": 1.0, "energy": 2.0}], "ks", "energy")
    with pytest.raises(QueryError, match="--metric NAME is needed"):
        rank(two)
    assert "ks_mean" in rank(points_of([{"ks": 1.0}], "ks"))
    assert "w1_mean" in rank(points_of([{"ks": 1.0, "w1": 1.0}], "ks", "w1"))


def test_where_nothing_is_left_there_are_columns_without_rows() -> None:
    points = points_of(a_sweep(), "w1")
    assert len(rank(points, at="nfe < 0")) == 0
    assert "tied" in rank(points, at="nfe < 0")
    assert len(pareto(points, where="nfe < 0")) == 0
    assert "w1_mean" in pareto(points, where="nfe < 0")


_small = st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan, np.inf])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(_small, _small, st.integers(1, 4), st.sampled_from("ab")), min_size=1, max_size=12),
    st.integers(1, 3),
)
def test_a_configuration_is_on_the_front_exactly_if_no_other_of_its_group_beats_it(
    found: list[tuple[float, float, int, str]], many: int
) -> None:
    rows: list[Spec] = [
        {"sampler": f"s{i}", "w1": a, "ks": b, "nfe": n, "formulation": f} for i, (a, b, n, f) in enumerate(found)
    ]
    objectives = ["w1", "nfe", "ks"][:many]
    front = pareto(points_of(rows, "w1", "ks"), objectives, by=["formulation"])

    def beats(one: Spec, other: Spec) -> bool:
        costs = [(one[name], other[name]) for name in objectives]
        return (
            one["formulation"] == other["formulation"]
            and all(a <= b for a, b in costs)
            and any(a < b for a, b in costs)
        )

    complete = [row for row in rows if not any(np.isnan(row[name]) for name in objectives)]
    expected = {row["sampler"] for row in complete if not any(beats(other, row) for other in complete)}
    assert sorted(front["sampler"]) == sorted(expected)
    for _, group in front.groupby("formulation"):
        assert group["w1_mean"].is_monotonic_increasing
    assert front["formulation"].is_monotonic_increasing


def test_a_front_has_the_configuration_the_means_of_its_objectives_and_their_spread() -> None:
    points = points_of([{"steps": n, "seed": s, "w1": 1 / n + 0.01 * s} for n in (1, 2, 4) for s in range(3)], "w1")
    front = pareto(points)
    assert list(front) == [*CONFIGURATION, "nfe", "w1_mean", "w1_sem", "w1_count"]
    assert front["steps"].tolist() == [4, 2, 1]
    np.testing.assert_allclose(front["w1_mean"], [0.26, 0.51, 1.01])
    np.testing.assert_allclose(front["w1_sem"], 0.01 / np.sqrt(3))


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [((), "needs objectives"), (("w1", "neff"), "did you mean 'nfe'"), (("w1", "sampler"), "unknown")],
)
def test_a_front_of_what_is_no_objective_is_refused(objectives: tuple[str, ...], expected: str) -> None:
    with pytest.raises(QueryError, match=expected):
        pareto(points_of([{"w1": 1.0}], "w1"), objectives)


def test_a_front_over_several_data_sets_is_refused_unless_they_are_kept_apart() -> None:
    points = points_of(a_sweep(), "w1")
    with pytest.raises(QueryError, match="add dataset to --by"):
        pareto(points)
    assert set(pareto(points, by=["dataset"])["dataset"]) == {"uniform", "moons"}


# --- samplers that go from the data to the noise --------------------------------------------------

FORWARD = "forward-chain on vp-linear"


def rows_of(values: dict[str, list[float]], nfe: int, process: str = "generation", **labels: Plain) -> list[Spec]:
    return [{**row, "nfe": nfe, "process": process} for row in values_of(values, **labels)]


def with_forward(name: str) -> list[Spec]:
    """Forward rows beat all others in every count."""
    return [*rows_of({name: [0.5, 0.6]}, 10), *rows_of({FORWARD: [0.1, 0.1]}, 0, "forward")]


def test_what_goes_from_the_data_to_the_noise_is_left_out_beside_samplers_and_the_answer_says_so() -> None:
    points = points_of(with_forward("heun"), "w1")
    for found in (rank(points), rank(points, "schedule", by=["dataset"]), pareto(points)):
        assert found["sampler"].tolist() == ["heun"]
        assert found.attrs["left_out"] == (FORWARD,)


@pytest.mark.parametrize("process", ["dynamics", "restoration", ""])
def test_what_is_no_generation_is_left_out_beside_what_is(process: str) -> None:
    """Also of samplers that can do both, and where it is not known."""
    rows = [*rows_of({"heun": [0.5, 0.6]}, 10), *rows_of({"own.module:Mover": [0.1, 0.1]}, 5, process)]
    found = rank(points_of(rows, "w1"))
    assert found["sampler"].tolist() == ["heun"]
    assert found.attrs["left_out"] == ("own.module:Mover",)
    assert rank(points_of(rows[2:], "w1"))["sampler"].tolist() == ["own.module:Mover"]


@pytest.mark.parametrize("name", ["own.module:Forward", "forward-chain"])
def test_what_a_sampler_is_called_does_not_decide_what_it_is_compared_with(name: str) -> None:
    found = rank(points_of([*rows_of({"heun": [0.5]}, 1), *rows_of({name: [0.1]}, 1)], "w1"))
    assert found["sampler"].tolist() == [name, "heun"]
    assert found.attrs["left_out"] == ()


def test_guidance_and_the_schedule_that_is_sampled_on_are_axes_of_a_ranking() -> None:
    rows = [
        {"sampler": f"heun | {name} on {on}", "guidance": name, "sampling_schedule": on, "seed": s, "w1": w1 + s / 100}
        for name, on, w1 in (("label", "edm", 0.3), ("label", "flow", 0.1), ("none", "edm", 0.2))
        for s in range(3)
    ]
    points = points_of(rows, "w1")
    by_guidance = rank(points, "guidance", by=())
    assert by_guidance[["guidance", "sampler"]].values.tolist() == [
        ["label", "heun | label on flow"],
        ["none", "heun | none on edm"],
    ]
    by_schedule = rank(points, "sampling_schedule", by=["guidance"])
    assert by_schedule[["guidance", "sampling_schedule", "rank"]].values.tolist() == [
        ["label", "flow", 1],
        ["label", "edm", 2],
        ["none", "edm", 1],
    ]
    assert set(pareto(points, ("w1",), by=["guidance"])["sampler"]) == {"heun | label on flow", "heun | none on edm"}
    with pytest.raises(QueryError, match="--best 'guidance' is unknown"):
        rank(points.drop_vars(["guidance", "sampling_schedule"]), "guidance")


def test_forward_rows_are_ranked_by_themselves_where_nothing_else_is_asked_or_samplers_are_apart() -> None:
    points = points_of([*with_forward("heun"), *rows_of({"forward-sde": [0.3]}, 0, "forward", dataset="moons")], "w1")
    assert pareto(points, where=f"sampler == '{FORWARD}'")["sampler"].tolist() == [FORWARD]
    assert rank(points, where="dataset == 'moons'")["sampler"].tolist() == ["forward-sde"]
    assert set(rank(points)["sampler"]) == {"heun", "forward-sde"}
    assert set(pareto(points, by=["dataset", "sampler"])["sampler"]) == {"heun", "forward-sde", FORWARD}


def test_why_a_front_is_empty_names_a_condition_only_where_one_was_given() -> None:
    rows = [{"sampler": name, "seed": 0, "w1": 1.0} for name in ("euler", "heun")]
    lost = [{**row, "seed": 1, "status": "failed"} for row in rows]
    points = of_points(points_of([*rows, *lost], "w1"))
    assert len(pareto(points, ("w1", "nfe"))) == 0
    for at in (None, "nfe > 0"):
        told = _nothing(points, None, at, ranked=True)
        assert "2 points that are ok were chosen, and no configuration is whole, with all of its seeds ok" in told
        assert ("--at" in told) is (at is not None)
