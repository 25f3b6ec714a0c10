"""The one rule for "cannot be told apart": what it decides, how often it is wrong, and that
everyone decides by it.

Simulations have fixed seeds. A bound is where a rate that is exactly as stated would be in one run
of a thousand.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from tasks.compare import compare
from tasks.query import rank
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.findings import verdicts
from tasks.results import open_results
from tasks.results.models import ModelledAnswers
from tasks.statistics.corrections import corrected
from tasks.statistics.decision import LEVEL, against_first, by_seed, decided, hurdle
from tasks.statistics.intervals import geometric_interval, mean_interval
from tasks.store import Store
from tests.tasks.tiny_store import answer

DOCS = Path(__file__).resolve().parents[2] / "docs" / "comparing.md"
RARELY = 1e-3
NAN = math.nan


def verdict_on(first: Sequence[float], second: Sequence[float], *, nothing_random: bool = False) -> str:
    """Of one pair: apart, tied or unknown."""
    found = decided(
        by_seed(np.array([first], dtype=float), np.array([second], dtype=float)), nothing_random=nothing_random
    )
    ((answer,),) = [[name for name in ("apart", "tied", "unknown") if getattr(found, name)[0]]]
    return answer


# --- what it decides ------------------------------------------------------------------------------


def test_one_seed_decides_nothing_unless_nothing_is_random() -> None:
    assert verdict_on([1.0], [2.0]) == "unknown"
    assert verdict_on([1.0, NAN], [2.0, 3.0]) == "unknown"
    assert verdict_on([1.0], [2.0], nothing_random=True) == "apart"
    assert verdict_on([1.0], [1.0 + 1e-16], nothing_random=True) == "tied"


def test_two_seeds_decide_by_student_s_test_of_one_degree_of_freedom() -> None:
    far = hurdle(2, 1) * math.sqrt(2)  # the differences are far -+ 1, whose standard deviation is sqrt 2
    assert verdict_on([10.0, 20.0], [10 + 1.01 * far - 1, 20 + 1.01 * far + 1]) == "apart"
    assert verdict_on([10.0, 20.0], [10 + 0.99 * far - 1, 20 + 0.99 * far + 1]) == "tied"


def test_what_is_the_same_is_tied_and_a_difference_without_a_spread_is_not_decided() -> None:
    assert verdict_on([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == "tied"
    assert verdict_on([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]) == "unknown"
    assert verdict_on([1.0, 1.0], [2.0, 2.0], nothing_random=True) == "apart"


def test_a_seed_without_a_value_does_not_take_part() -> None:
    contrast = by_seed(np.array([[1.0, 1.1, NAN, 5.0]]), np.array([[1.2, 1.5, 9.0, NAN]]))
    expected = stats.ttest_rel([1.2, 1.5], [1.0, 1.1])
    assert contrast.paired[0]
    assert contrast.p[0] == pytest.approx(expected.pvalue)
    assert contrast.change[0] == pytest.approx(0.3)


def test_with_fewer_than_two_shared_seeds_the_test_is_welch_s() -> None:
    contrast = by_seed(np.array([[1.0, 1.1, 1.3, NAN, NAN]]), np.array([[NAN, NAN, 1.4, 2.0, 1.8]]))
    expected = stats.ttest_ind([1.4, 2.0, 1.8], [1.0, 1.1, 1.3], equal_var=False)
    assert not contrast.paired[0]
    assert contrast.p[0] == pytest.approx(expected.pvalue)


def test_what_is_infinite_is_not_decided() -> None:
    assert verdict_on([1.0, 1.1, 1.2], [math.inf, 5.0, 5.1]) == "unknown"


def test_a_margin_is_taken_off_the_difference() -> None:
    first, second = np.array([[1.0, 1.1, 1.2]]), np.array([[2.0, 2.2, 2.1]])
    expected = stats.ttest_1samp((second - first)[0], 0.5)
    assert by_seed(first, second, margin=np.array([0.5])).p[0] == pytest.approx(expected.pvalue)
    assert by_seed(first, second, margin=np.array([1.5])).p[0] == 1.0


def test_a_ranking_is_a_family_of_its_own_and_only_the_worse_is_told_apart() -> None:
    draw = np.random.default_rng(4)
    values = np.sort(draw.normal(size=(8, 1)), axis=0) + 0.3 * draw.normal(size=(8, 5))
    first = np.array([0, 0, 0, 0, 4, 4, 4, 4])
    found = against_first(values, first)
    for lead in (0, 4):
        p = stats.ttest_rel(values[lead + 1 : lead + 4], values[[lead]], axis=1).pvalue
        np.testing.assert_allclose(found.p[lead + 1 : lead + 4], corrected(p))
    assert found.tied[[0, 4]].all()
    better = against_first(np.array([[5.0, 5.1, 5.2], [1.0, 1.1, 1.21]]), np.array([0, 0]))
    assert better.p[1] < LEVEL
    assert better.tied.all()
    assert not against_first(-values, first, more_is_better=True).apart[[0, 4]].any()
    np.testing.assert_array_equal(against_first(-values, first, more_is_better=True).apart, found.apart)


def test_the_interval_on_a_logarithmic_axis_is_that_of_the_logarithms() -> None:
    values = [0.01, 0.02, 0.08]
    interval, plain = geometric_interval(values), mean_interval(values)
    assert interval is not None
    assert plain is not None
    low, high = interval
    expected = stats.t.interval(0.95, 2, np.log(values).mean(), stats.sem(np.log(values)))
    assert np.log([low, high]) == pytest.approx(expected)
    assert low > 0 > plain[0]
    assert geometric_interval([0.01, 0.02, 0.0]) is None
    assert geometric_interval(values[:2]) is mean_interval(values[:2]) is None


# --- how often it is wrong ------------------------------------------------------------------------

DISTRIBUTIONS = {
    "normal": lambda draw, shape: 10 + draw.normal(size=shape),
    "heavy tails": lambda draw, shape: 10 + draw.standard_t(3, size=shape),
    "skewed": lambda draw, shape: draw.lognormal(sigma=1.0, size=shape),
    "unequal spreads": lambda draw, shape: (
        10 + draw.normal(size=shape) * np.exp(draw.normal(size=shape[:2]))[..., None]
    ),
}
SEEDS = (2, 3, 5, 10)
RANKINGS = 4000


def table_of(title: str) -> dict[str, list[float]]:
    """The rows of the first table below a heading of the docs: its first cell, and the rest as
    numbers (of per cents, too).
    """
    text = DOCS.read_text(encoding="utf-8").split(f"# {title}\n", 1)[1]
    lines = re.findall(r"^\|(.+)\|$", text, flags=re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    end = next((i for i, row in enumerate(rows) if i > 1 and len(row) != len(rows[0])), len(rows))
    return {row[0]: [float(cell.removesuffix("%")) for cell in row[1:]] for row in rows[2:end]}


def ranked(distribution: str, competitors: int, seeds: int) -> tuple[int, int]:
    """Rankings of equals: in which of them the one that is best in truth is told from the first,
    and in which any is.
    """
    draw = np.random.default_rng([competitors, seeds])
    values = DISTRIBUTIONS[distribution](draw, (RANKINGS, competitors, seeds))
    first = np.repeat(values.mean(axis=-1).argmin(axis=1) + competitors * np.arange(RANKINGS), competitors)
    apart = against_first(values.reshape(-1, seeds), first).apart.reshape(RANKINGS, competitors)
    return apart[:, 0].sum(), apart.any(axis=1).sum()


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("competitors", [2, 5, 20])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_of_equals_the_best_in_truth_is_told_from_the_first_no_more_often_than_half_the_level(
    distribution: str, competitors: int, seeds: int
) -> None:
    """Any of them may be called the best; and that some of them is told apart is as often as the
    docs say.
    """
    best, any_of_them = ranked(distribution, competitors, seeds)
    assert best <= stats.binom.isf(RARELY, RANKINGS, LEVEL / 2)
    worst = table_of("False alarms")[f"{competitors}"][SEEDS.index(seeds)] / 100
    assert any_of_them <= stats.binom.isf(RARELY, RANKINGS, worst)


@pytest.mark.parametrize("seeds", [3, 10])
def test_of_two_equals_among_many_that_are_worse_the_best_is_told_from_the_first_no_more_often(seeds: int) -> None:
    draw = np.random.default_rng(seeds)
    values = draw.normal(size=(RANKINGS, 20, seeds))
    values[:, 2:] += draw.uniform(0.5, 500, size=(RANKINGS, 18, 1))
    first = np.repeat(values.mean(axis=-1).argmin(axis=1) + 20 * np.arange(RANKINGS), 20)
    apart = against_first(values.reshape(-1, seeds), first).apart.reshape(RANKINGS, 20)
    assert apart[:, 0].sum() <= stats.binom.isf(RARELY, RANKINGS, LEVEL / 2)
    assert apart[:, 2:].mean() > 0.5


@pytest.mark.parametrize("shared", [True, False], ids=["paired", "Welch"])
@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_family_of_pairs_without_a_difference_contains_a_false_alarm_no_more_often_than_the_level(
    distribution: str, seeds: int, shared: bool
) -> None:
    families, size = 2000, 20
    draw = np.random.default_rng([seeds, shared])
    values = DISTRIBUTIONS[distribution](draw, (2, families * size, seeds))
    nothing = np.full((families * size, 0 if shared else seeds), NAN)
    first, second = np.hstack([values[0], nothing]), np.hstack([nothing, values[1]])
    found = decided(by_seed(first, second), np.repeat(np.arange(families), size))
    assert found.apart.reshape(families, size).any(axis=1).sum() <= stats.binom.isf(RARELY, families, LEVEL)


@pytest.mark.parametrize("seeds", ["2", "3", "5", "10"])
def test_changes_of_the_size_that_the_docs_name_are_found_in_four_cases_of_five(seeds: str) -> None:
    """The power at the sizes of the table, which are given in two digits."""
    draw, n, trials = np.random.default_rng(int(seeds)), int(seeds), 20_000
    noise = draw.normal(size=(trials, n))
    for tests, size in zip((1, 10, 100), table_of("What few seeds can and cannot show")[seeds], strict=True):
        p = by_seed(np.zeros((trials, n)), noise + size).p
        assert (p * tests <= LEVEL).mean() == pytest.approx(0.8, abs=0.045), (tests, size)


# --- and everyone decides by it -------------------------------------------------------------------

SAMPLERS = ("ancestral", "ddim", "dpmpp-2m", "euler", "heun")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("ties") / "results")
    spec = {
        "name": "ties",
        "datasets": ["uniform"],
        "formulations": [{"name": "exact", "schedule": "vp-linear"}],
        "seeds": 4,
        "samplers": list(SAMPLERS),
        "steps": [2, 5, 10, 20],
        "samples": 1000,
        "metrics": ["w1"],
    }
    answer(uri, spec)
    return uri


def ties_of_the_comparison(points: xr.Dataset, ranking: pd.DataFrame) -> set[str]:
    """Who did not move beyond noise, were the first's answers what each of the others had before."""
    places = ranking[["sampler", "steps", "grid"]].itertuples(index=False)
    own = [points.isel(point=[i for i, row in enumerate(rows_of(points)) if row == tuple(place)]) for place in places]
    after = xr.concat(own[1:], "point")
    before = xr.concat([other.assign(w1=own[0]["w1"]) for other in own[1:]], "point")
    groups = compare(before, after, ["w1"]).groups
    rounded = groups["reason"] == "points moved, and no seed's mean did"  # of bits the comparison says more
    return set(groups[groups["verdict"].isin(("within noise", "unchanged")) | rounded]["sampler"])


def rows_of(points: xr.Dataset) -> list[tuple[str, int, str]]:
    return list(zip(*(points[name].values.tolist() for name in ("sampler", "steps", "grid")), strict=True))


def test_the_page_the_ranking_and_the_comparison_name_the_same_ties(store: str) -> None:
    points = open_results(store, "ties")
    best = verdicts(tabulate(ModelledAnswers(Store.open(store), "ties")), "uniform", "w1").best
    seen = set()
    for one in best:
        ranking = rank(points, "sampler", "w1", at=f"nfe <= {one.budget}")
        ties = set(ranking["sampler"][1:][ranking["tied"][1:].to_numpy(dtype=bool)])
        assert {name.removeprefix("exact on vp-linear with ") for name in one.ties} == ties
        assert one.curve.panel.sampler == ranking["sampler"][0]
        assert not one.undecided
        if len(ranking) > 1:
            assert ties_of_the_comparison(points, ranking) == ties
        seen.add((bool(ties), len(ties) < len(ranking) - 1))
    assert (True, True) in seen  # a budget at which some tie and others do not


def test_the_command_says_what_the_page_says(store: str) -> None:
    best = verdicts(tabulate(ModelledAnswers(Store.open(store), "ties")), "uniform", "w1").best[-1]
    command = [sys.executable, "-m", "flows", "query", "--store", store, "--study", "ties", "--best", "sampler"]
    command += ["--metric", "w1", "--at", f"nfe <= {best.budget}", "--format", "json"]
    records = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ties = {f"exact on vp-linear with {record['sampler']}" for record in records if record["tied"]}
    assert ties - {best.who} == set(best.ties)
