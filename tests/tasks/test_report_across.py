"""Wins and mean ranks across data sets, of values whose ranks are known: intervals, ties, pairs by
seed, metrics of which more is better, and the picture of them, against closed numbers and scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats

from tasks.report import draw_report
from tasks.report.numbers.across import Across, across
from tasks.report.numbers.curves import tabulate
from tasks.report.pictures.ranks import MOST, ranks
from tests.tasks.chosen import answers_to
from tests.tasks.page_reader import Page
from tests.tasks.real_page import together

pytestmark = together

Planted = Mapping[str, Mapping[str, Sequence[float] | np.ndarray]]
"""Values by data set, formulation and seed."""
PLACES: Planted = {
    "uniform": {"edm": (1, 1, 1, 2), "vp": (2, 2, 3, 1), "iddpm": (3, 3, 2, 3)},
    "four_points": {"edm": (1, 2, 1, 1), "vp": (2, 1, 2, 2), "iddpm": (3, 3, 3, 3)},
}
"""What the curves are by rank; all that is seen of a value is its place among those of its seed."""


def rows(planted: Planted, metric: str = "w1") -> list[dict[str, Any]]:
    return [
        {"dataset": dataset, "formulation": name, "seed": seed, "steps": 10, metric: value}
        for dataset, own in planted.items()
        for name, values in own.items()
        for seed, value in enumerate(values)
    ]


def ranked(told: Sequence[Mapping[str, Any]]) -> Across:
    *_, found = across(tabulate(answers_to(told)))
    return found


def by_seed(planted: Planted) -> dict[str, np.ndarray]:
    """Mean ranks over the data sets ``[seed]``, by scipy's ranks."""
    names = list(next(iter(planted.values())))
    tables = [scipy.stats.rankdata([own[name] for name in names], axis=0) for own in planted.values()]
    return dict(zip(names, np.mean(tables, axis=0), strict=True))


def test_the_interval_of_a_mean_rank_is_students_and_ends_where_ranks_end() -> None:
    found = {one.series.label: one for one in ranked(rows(PLACES)).standings}
    # over the two data sets, by seed: edm 1 1.5 1 1.5, vp 2 1.5 2.5 1.5, iddpm 3 3 2.5 3
    assert {name: one.rank for name, one in found.items()} == {"edm": 1.25, "vp": 1.875, "iddpm": 2.875}
    half = 3.182446305284263  # Student's quantile for 3 degrees of freedom at 97.5 %
    assert found["vp"].interval == pytest.approx(
        (1.875 - half * np.sqrt(0.6875 / 3) / 2, 1.875 + half * np.sqrt(0.6875 / 3) / 2)
    )
    assert found["edm"].interval == pytest.approx((1.0, 1.25 + half * np.sqrt(1 / 12) / 2))  # no rank is below 1
    assert found["iddpm"].interval == pytest.approx((2.875 - half * 0.25 / 2, 3.0))  # and none beyond 3
    for name, values in by_seed(PLACES).items():
        low, high = scipy.stats.t.interval(0.95, 3, values.mean(), scipy.stats.sem(values))
        assert found[name].interval == pytest.approx((max(low, 1), min(high, 3)))


def test_who_is_told_apart_from_the_first_is_decided_by_pairs_corrected_for_their_number() -> None:
    found = ranked(rows(PLACES))
    assert [(one.series.label, one.verdict) for one in found.standings] == [
        ("edm", "first"),
        ("vp", "tied"),
        ("iddpm", "behind"),
    ]
    first, *others = by_seed(PLACES).values()
    p = [scipy.stats.ttest_rel(other, first).pvalue for other in others]
    assert p[0] > 0.05 >= 2 * p[1]  # Holm: the smaller of two at half the level
    assert found.sentence() == (
        "Within 19 evaluations, over 2 data sets and 4 seeds, edm with heun has the best mean rank of 3, 1.25 (95 % "
        "interval 1.00 to 1.71), and the best mean on 2 of 2; it cannot be told apart from vp with heun."
    )


def test_seeds_are_paired_also_where_they_differ_more_than_the_curves() -> None:
    """A shared factor by seed cancels; with the same values given to other seeds nothing is told apart."""
    noise = np.array([1.0, 5.0, 25.0, 125.0, 625.0, 3125.0])
    edm, vp = noise, 1.3 * noise
    once = vp.copy()
    once[0] = 0.9  # ahead for one seed on one data set: ranks have a spread
    paired = ranked(rows({"uniform": {"edm": edm, "vp": vp}, "four_points": {"edm": edm, "vp": once}}))
    assert [(one.series.label, one.verdict) for one in paired.standings] == [("edm", "first"), ("vp", "behind")]
    assert paired.standings[0].rank == pytest.approx(1 + 1 / 12)
    mixed = ranked(rows({"uniform": {"edm": edm, "vp": vp[::-1]}, "four_points": {"edm": edm, "vp": once[::-1]}}))
    assert [one.verdict for one in mixed.standings] == ["first", "tied"]
    assert [one.rank for one in mixed.standings] == [1.5, 1.5]


def test_values_that_are_equal_but_for_rounding_share_their_rank_and_the_first_has_the_win() -> None:
    for last_digit in (-1, 1):
        near = 1 + last_digit * 1e-12
        places: Planted = {
            name: {"edm": (1, 2, 1), "vp": (near, 2 * near, near)} for name in ("uniform", "four_points")
        }
        first, second = ranked(rows(places)).standings
        assert (first.series.label, first.rank, first.wins, second.rank, second.wins) == ("edm", 1.5, 2, 1.5, 0)


def test_equal_values_share_their_rank() -> None:
    places: Planted = {
        "uniform": {"edm": (1, 1, 1), "vp": (1, 1, 2), "iddpm": (1, 3, 3)},
        "four_points": {"edm": (1, 1, 1), "vp": (2, 2, 2), "iddpm": (2, 3, 3)},
    }
    found = {one.series.label: one.rank for one in ranked(rows(places)).standings}
    assert found == pytest.approx({name: values.mean() for name, values in by_seed(places).items()})
    assert found["edm"] == pytest.approx(((2 + 1) / 2 + (1.5 + 1) / 2 + (1 + 1) / 2) / 3)


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_seeds_that_all_agree_decide_nothing_and_it_is_said(seeds: int) -> None:
    same: Planted = {name: {"edm": (1,) * seeds, "vp": (2,) * seeds} for name in ("uniform", "four_points")}
    found = ranked(rows(same))
    assert [one.verdict for one in found.standings] == ["first", "undecided"]
    assert [one.interval for one in found.standings] == [
        (1.0, 1.0) if seeds > 2 else None,
        (2.0, 2.0) if seeds > 2 else None,
    ]
    assert "whether it is ahead of vp with heun cannot be decided by so few seeds" in found.sentence()
    assert ("95 % interval" in found.sentence()) == (seeds > 2)


def test_of_a_metric_of_which_more_is_better_the_highest_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", "tests.tasks.own_parts")
    found = ranked(rows(PLACES, "tests.tasks.own_parts:Praised"))
    assert [(one.series.label, one.rank, one.wins) for one in found.standings] == [
        ("iddpm", 4 - 2.875, 2),
        ("vp", 4 - 1.875, 0),
        ("edm", 4 - 1.25, 0),
    ]
    ranks_of = by_seed(PLACES)  # differences are the same with their signs turned
    p = [scipy.stats.ttest_rel(ranks_of[name], ranks_of["iddpm"]).pvalue for name in ("vp", "edm")]
    assert p[0] > 0.05 >= 2 * p[1]
    assert [one.verdict for one in found.standings] == ["first", "tied", "behind"]


def test_a_data_set_without_two_of_the_curves_is_left_out_and_named() -> None:
    other: Planted = {"gaussian": {"edm": (1, 1, 1, 1), "ve": (2, 2, 2, 2)}}
    found = ranked([*rows(PLACES), *rows(other)])
    assert (found.datasets, found.left_out) == (("uniform", "four_points"), ("gaussian",))
    assert {one.series.label for one in found.standings} == {"edm", "vp", "iddpm"}
    assert [one.rank for one in found.standings] == [1.25, 1.875, 2.875]  # it changes nothing


def test_only_seeds_that_all_have_take_part() -> None:
    told = [row for row in rows(PLACES) if (row["formulation"], row["seed"]) != ("vp", 3)]
    found = ranked(told)
    assert found.seeds == 3
    three = {name: values[:3].mean() for name, values in by_seed(PLACES).items()}
    assert {one.series.label: one.rank for one in found.standings} == pytest.approx(three)


def test_the_picture_has_each_mean_rank_with_its_interval_the_best_at_the_top() -> None:
    found = ranked(rows(PLACES))
    picture = ranks(found)
    data, sheet = picture.spec["data"], picture.spec["layout"]
    assert [one["y"] for one in data] == [["edm, heun"], ["vp, heun"], ["iddpm, heun"]]
    assert (sheet["yaxis"]["autorange"], sheet["yaxis"]["categoryarray"]) == ("reversed", [one["y"][0] for one in data])
    ends: list[float] = []
    for one, drawn in zip(found.standings, data, strict=True):
        (x,), bar = drawn["x"], drawn["error_x"]
        assert x == one.rank
        assert one.interval is not None
        assert (x - bar["arrayminus"][0], x + bar["array"][0]) == pytest.approx(one.interval, rel=1e-5)
        assert not bar["symmetric"]
        assert f"best mean on {one.wins} of 2" in drawn["hovertemplate"]
        ends += one.interval
    low, high = sheet["xaxis"]["range"]
    assert low < min(ends)
    assert max(ends) < high  # no bar leaves the picture
    assert "1 is best" in str(sheet["xaxis"]["title"])
    assert (picture.title, picture.caption) == ("Within 19 evaluations", found.sentence())

    one_seed: Planted = {name: {k: v[:1] for k, v in own.items()} for name, own in PLACES.items()}
    assert all("error_x" not in drawn for drawn in ranks(ranked(rows(one_seed))).spec["data"])  # no interval, no bar


def test_of_many_curves_the_first_are_drawn_and_the_others_counted() -> None:
    samplers = ("heun", "euler", "ddim", "ancestral", "dpmpp-2m", "euler-maruyama")
    told = [
        {**row, "sampler": sampler, "w1": row["w1"] + place}
        for place, sampler in enumerate(samplers)
        for row in rows(PLACES)
    ]
    found = ranked(told)
    assert len(found.standings) == 18
    picture = ranks(found)
    assert len(picture.spec["data"]) == MOST == 16
    assert picture.caption.endswith("The first 16 of 18.")


def test_the_page_names_the_data_sets_that_are_left_out() -> None:
    other: Planted = {"gaussian": {"edm": (1, 1, 1, 1), "ve": (2, 2, 2, 2)}}
    page = Page(draw_report(answers_to([*rows(PLACES), *rows(other)])))
    assert "Without gaussian, which has too few curves in common with the others." in page.text
    assert "too few curves" not in Page(draw_report(answers_to(rows(PLACES)))).text
