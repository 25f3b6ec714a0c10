"""Claims are weighed by stated rules: known answers to chosen numbers, no opinion about the
literature.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from diffusion.schedules import schedules
from tasks.plain import Plain, Spec
from tasks.report import draw_report
from tasks.report.numbers.claims import CLAIMS, claims
from tasks.report.numbers.comparisons import (
    WORTH,
    Difference,
    compare_at_cost,
    compared,
    crossings,
    judged,
    runs,
    spans,
)
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.evidence import FAILS, HOLDS, OPEN, PART
from tasks.report.numbers.sampler_claims import straight
from tests.tasks import own_parts
from tests.tasks.chosen import answers_to, chosen

STEPS = (1, 2, 4, 8, 16, 32, 64)


TREMOR = 1e-8

Law = Callable[[int], float]
"""The error in n steps."""


def tremor(*place: object) -> float:
    """A factor near 1 that nothing else shares: without a spread there is nothing to hold a
    difference against.
    """
    return math.exp(TREMOR * random.Random(repr(place)).gauss(0, 1))  # noqa: S311


def rows_of(
    sampler: str | Spec,
    law: Law,
    *,
    steps: Sequence[int] = STEPS,
    seeds: int = 3,
    noise: float = 0.0,
    still: bool = False,
    **more: Plain,
) -> list[Spec]:
    """One sampler whose error in n steps is ``law(n)``; `noise` is a factor per seed that samplers
    of one seed share.
    """
    return [
        {
            "formulation": "exact",
            "schedule": "edm",
            "sampler": sampler,
            "steps": n,
            "seed": seed,
            "w1": law(n) * math.exp(noise * (seed - 1)) * (1 if still else tremor(sampler, n, seed, more)),
            "w1_floor": 0.003,
            **more,
        }
        for n in steps
        for seed in range(seeds)
    ]


def heun_cost(n: int) -> int:
    return 2 * n - 1


def verdicts(key: str, rows: Sequence[Spec], **study: Plain) -> list[Spec]:
    """The verdicts of one claim, as plain values."""
    (found,) = [claim for claim in claims(answers_to(rows, **study)) if claim["claim"] == key]
    assert found["asked"] == bool(found["verdicts"])
    result: list[Spec] = found["verdicts"]
    return result


def verdict(key: str, rows: Sequence[Spec], **study: Plain) -> Spec:
    (found,) = verdicts(key, rows, **study)
    return found


def power_laws(euler: float = 1.0, heun: float = 20.0) -> list[Spec]:
    """Errors that are straight in log error against log NFE: they cross at NFE = heun / euler."""
    return rows_of("euler", lambda n: euler / n) + rows_of("heun", lambda n: heun / heun_cost(n) ** 2)


# --- comparisons ----------------------------------------------------------------------------------


def comparisons_of(rows: Sequence[Spec], first: str, second: str) -> list[Difference]:
    table = tabulate(answers_to(rows))
    known = {run.sampler: run for run in runs(table, "uniform", "w1")}
    return compare_at_cost(known[first], known[second])


def test_nothing_is_extrapolated() -> None:
    rows = rows_of("euler", lambda n: 1 / n, steps=(4, 8, 16)) + rows_of("heun", lambda n: 1 / n, steps=(2, 6, 40))
    assert [one.at for one in comparisons_of(rows, "heun", "euler")] == [4, 8, 11, 16]  # Heun's cost 3, 11 and 79


def test_between_two_costs_log_error_is_linear_in_log_cost() -> None:
    rows = rows_of("euler", lambda n: 5 * n**-1.7, still=True)
    rows += rows_of("heun", lambda n: 3 * heun_cost(n) ** -0.4, steps=(2, 3, 26), still=True)
    found = {one.at: one for one in comparisons_of(rows, "heun", "euler")}
    assert sorted(found) == [3, 4, 5, 8, 16, 32, 51]
    for nfe, one in found.items():
        assert one.first == pytest.approx(3 * nfe**-0.4, rel=1e-12)
        assert one.second == pytest.approx(5 * nfe**-1.7, rel=1e-12)


def test_nothing_is_interpolated_over_a_step_count_that_failed() -> None:
    rows = rows_of("euler", lambda n: 1 / n) + rows_of("heun", lambda n: 1 / n, steps=(1, 3, 6, 20))
    for row in rows:
        if row["sampler"] == "heun" and row["steps"] == 3:
            row |= {"error": "sampling failed: out of memory", "nfe": -1}
    assert [one.at for one in comparisons_of(rows, "heun", "euler")] == [1, 11, 16, 32, 39]


def test_samples_that_diverged_err_more_than_all_others() -> None:
    rows = rows_of("euler", lambda n: 1 / n) + rows_of("heun", lambda n: 0.5 / heun_cost(n))
    for row in rows:
        if row["sampler"] == "heun" and row["steps"] == 2:
            row |= {"error": "sampling diverged: 3 of 10 samples are not finite"}
    found = {one.at: one.decided for one in comparisons_of(rows, "heun", "euler")}
    assert found[3] == 1
    assert found[1] == found[7] == -1
    result = verdict("second-order", rows)
    assert "without bound" in result["text"]
    assert "diverged" in result["text"]
    json.dumps(result, allow_nan=False)


def test_samplers_whose_cost_does_not_grow_with_their_steps_are_not_compared() -> None:
    adaptive = [{**row, "nfe": 200 - row["steps"]} for row in rows_of("rk45", lambda n: 1 / n)]
    rows = adaptive + rows_of("euler", lambda n: 1 / n)
    table = tabulate(answers_to(rows))
    assert [run.sampler for run in runs(table, "uniform", "w1")] == ["euler"]


def test_noise_that_two_samplers_share_does_not_hide_their_difference() -> None:
    shared = rows_of("euler", lambda n: 1.2 / n, noise=0.5) + rows_of("heun", lambda n: 1 / heun_cost(n), noise=0.5)
    assert {one.decided for one in comparisons_of(shared, "heun", "euler")} == {-1}
    apart = rows_of("euler", lambda n: 1.2 / n, noise=0.5) + rows_of("heun", lambda n: 1 / heun_cost(n), noise=-0.5)
    assert {one.decided for one in comparisons_of(apart, "heun", "euler")} == {0}


def pairs_of(rng: np.random.Generator, seeds: int, noise: float = 0.7) -> NDArray[np.float64]:
    return np.exp(noise * rng.standard_normal((seeds, 2)))


def test_a_verdict_without_a_difference_contains_a_false_alarm_in_one_case_of_twenty() -> None:
    """A dozen places without a difference, noise of a factor of two: 2,000 verdicts on three to
    five seeds.

    Their number is binomial with p below 0.05 (Holm); the bound is six standard deviations away
    (false alarms below 1e-8).
    """
    rng = np.random.default_rng(8)
    trials = 2000
    alarms = sum(
        any(one.decided for one in judged([compared(at, pairs_of(rng, 3 + i % 3)) for at in range(12)]))
        for i in range(trials)
    )
    expected = 0.05 * trials
    assert 0 < alarms < expected + 6 * math.sqrt(expected)


def decision_on(pairs: ArrayLike, *, fixed: bool = False) -> int:
    (found,) = judged([compared(1, np.array(pairs), fixed=fixed)])
    return found.decided


def test_a_difference_that_is_of_no_use_is_not_told() -> None:
    pairs = np.array([[1.0, WORTH - 0.002]] * 5) * np.exp(1e-5 * np.random.default_rng(1).standard_normal((5, 2)))
    assert decision_on(pairs) == 0
    assert decision_on(pairs * [1.0, 1.01]) == -1


def test_one_seed_tells_nothing_unless_nothing_is_random() -> None:
    assert decision_on([[0.05, 0.5]]) == 0
    assert decision_on([[0.05, 0.5]], fixed=True) == -1
    assert decision_on([[0.05, 0.05 * (1 + 1e-16)]], fixed=True) == 0


def test_two_seeds_tell_what_is_far_beyond_their_spread() -> None:
    assert decision_on([[0.05, 0.5], [0.0501, 0.5003]]) == -1
    assert decision_on([[0.05, 0.5], [0.09, 0.5003]]) == 0


def test_differences_without_a_spread_are_not_told() -> None:
    assert decision_on([[0.5, 1.0]] * 3) == 0


def test_the_limit_of_many_steps_changes_how_much_and_never_who() -> None:
    ddim = rows_of("ddim", lambda n: 0.01 + 1 / n)
    multistep = rows_of("dpmpp-2m", lambda n: 0.01 + 0.1 / n)
    plain = comparisons_of(ddim + multistep, "dpmpp-2m", "ddim")
    for row in ddim + multistep:
        row["w1_limit"] = 0.01
    split = comparisons_of(ddim + multistep, "dpmpp-2m", "ddim")
    assert [one.decided for one in plain] == [one.decided for one in split] == [-1] * len(STEPS)
    assert [one.excess for one in split] == pytest.approx([0.1] * len(STEPS))
    assert all(math.isnan(one.excess) for one in plain)
    assert split[-1].times < 4
    assert "10 above the limit of many steps" in verdict("multistep", ddim + multistep)["text"]


def test_a_trained_denoiser_has_no_known_limit() -> None:
    rows = [
        row
        for formulation in ("edm", "exact")
        for rule, law in (("euler", lambda n: 0.1 + 1 / n), ("ddim", lambda n: 0.1 + 0.1 / n))
        for row in rows_of(rule, law, formulation=formulation)
    ]
    for row in rows:
        if row["formulation"] == "exact":
            row["w1_limit"] = 0.01
    known = {(run.rule, run.series.exact): run for run in runs(tabulate(answers_to(rows)), "uniform", "w1")}
    for exact in (True, False):
        found = compare_at_cost(known["ddim", exact], known["euler", exact])
        assert {math.isnan(one.excess) for one in found} == {not exact}


def test_a_place_at_which_nothing_is_told_neither_ends_a_stretch_nor_makes_a_crossing() -> None:
    rows = rows_of("euler", lambda n: {1: 1, 2: 1, 4: 1, 8: 1, 16: 1, 32: 1, 64: 1}[n])
    rows += rows_of("ddim", lambda n: {1: 2, 2: 1.01, 4: 2, 8: 0.5, 16: 0.5, 32: 0.99, 64: 0.5}[n])
    found = comparisons_of(rows, "ddim", "euler")
    assert spans(found, 1) == [(1, 4)]
    assert spans(found, -1) == [(8, 64)]
    assert crossings(found) == pytest.approx([math.sqrt(32)])  # from a factor of 2 at 4 to one of 1/2 at 8


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [5.0, 7.3, 20.0])
def test_the_crossing_is_found_where_it_is(cost: float) -> None:
    found = verdict("second-order", power_laws(heun=cost))
    assert found["verdict"] == PART
    assert found["crossings"] == pytest.approx([cost], rel=1e-5)
    result = {one["nfe"]: one["told"] for one in found["comparisons"]}
    assert {result[nfe] for nfe in result if nfe < 0.9 * cost} == {"more"}
    assert {result[nfe] for nfe in result if nfe > 1.1 * cost} == {"less"}
    assert max(result) == 64  # Heun's 127 evaluations have nothing to be compared with


def test_a_claim_holds_where_nothing_is_told_against_it_and_not_the_other_way_round() -> None:
    assert verdict("second-order", power_laws(heun=0.5))["verdict"] == HOLDS
    assert verdict("second-order", power_laws(heun=1000.0))["verdict"] == FAILS


def test_ties_cannot_be_told() -> None:
    rows = rows_of("euler", lambda n: 1 / n) + rows_of("heun", lambda n: 1 / heun_cost(n))
    found = verdict("second-order", rows)
    assert found["verdict"] == OPEN
    assert found["crossings"] == []
    assert found["text"] == "no difference can be told from 1 to 64 NFE."


def test_missing_rows_are_not_asked() -> None:
    rows = rows_of("euler", lambda n: 1 / n)
    assert verdicts("second-order", rows) == []
    everything = claims(answers_to(rows))
    assert [one["claim"] for one in everything] == [claim.key for claim in CLAIMS]
    assert not any(one["asked"] for one in everything)
    assert verdicts("second-order", rows + rows_of("heun", lambda n: 1 / n, schedule="vp-linear")) == []
    assert verdicts("second-order", rows + rows_of("heun", lambda n: 1 / n, grid="uniform-t")) == []
    assert (
        claims(chosen({"formulations": ["exact"], "samplers": ["heun"], "steps": [2]}, lambda _point: None))[0][
            "verdicts"
        ]
        == []
    )


def test_denoisers_and_schedules_have_verdicts_of_their_own() -> None:
    rows = power_laws(heun=0.5)
    rows += [{**row, "schedule": "flow"} for row in power_laws(heun=1000.0)]
    rows += [{**row, "formulation": "edm"} for row in power_laws()]
    found = {(one["formulation"], one["schedule"]): one["verdict"] for one in verdicts("second-order", rows)}
    assert found == {("exact", "edm"): HOLDS, ("exact", "flow"): FAILS, ("edm", "edm"): PART}


@pytest.mark.parametrize("single", ["heun", "ddim"])
def test_multistep_is_weighed_against_both_kinds_of_single_steps(single: str) -> None:
    cost = heun_cost if single == "heun" else int
    rows = rows_of("dpmpp-2m", lambda n: n**-2.0) + rows_of(single, lambda n: 1 / cost(n))
    found = verdict("multistep", rows)
    assert found["compared"] == f"dpmpp-2m against {single}"
    assert found["verdict"] == HOLDS
    assert found["comparisons"][0]["told"] == "cannot be told"  # both are 1 at one evaluation
    assert found["comparisons"][-1]["ratio"] == pytest.approx(1 / 64)


def variances(posterior: Law, transition: Law) -> list[Spec]:
    transitions = {"name": "ancestral", "variance": "transition"}
    return rows_of("ancestral", posterior, schedule="vp-linear") + rows_of(
        transitions, transition, schedule="vp-linear"
    )


def test_the_choice_of_variance_matters_at_few_steps_only_if_its_effect_fades() -> None:
    fades = verdict("ancestral-variance", variances(lambda n: 1 / n, lambda n: (1 + 3 / n**2) / n))
    assert fades["verdict"] == HOLDS
    assert "posterior errs less from 1 to 4 steps" in fades["text"]
    shrinks = verdict("ancestral-variance", variances(lambda n: 1 / n, lambda n: (1.3 + 3 / n**2) / n))
    assert shrinks["verdict"] == PART
    stays = verdict("ancestral-variance", variances(lambda n: 1 / n, lambda n: 2 / n))
    assert stays["verdict"] == FAILS
    grows = verdict("ancestral-variance", variances(lambda n: 1 / n, lambda n: (1 if n <= 10 else 3) / n))
    assert grows["verdict"] == FAILS
    assert verdict("ancestral-variance", variances(lambda n: 1 / n, lambda n: 1 / n))["verdict"] == OPEN
    few = [row for row in variances(lambda n: 1 / n, lambda n: 2 / n) if row["steps"] <= 10]
    assert verdicts("ancestral-variance", few) == []


def test_a_step_in_t_is_a_step_in_sigma_exactly_where_alpha_and_sigma_are_linear() -> None:
    found = {entry.name: straight(entry.cls()) for entry in schedules if entry.name != "user"}
    assert {name for name, is_straight in found.items() if is_straight} == {"edm", "iddpm", "flow", "ncsn"}


def test_ddim_and_euler_are_called_one_rule_where_they_agree_to_rounding() -> None:
    rows = rows_of("ddim", lambda n: 1 / n, still=True) + rows_of("euler", lambda n: (1 + 1e-9) / n, still=True)
    found = verdict("ddim-is-euler", rows)
    assert found["verdict"] == HOLDS
    assert "1×10⁻⁹" in found["text"]


def test_ddim_and_euler_that_differ_where_they_should_be_one_rule_are_a_failure() -> None:
    rows = rows_of("ddim", lambda n: 1 / n) + rows_of("euler", lambda n: 1.01 / n)
    found = verdict("ddim-is-euler", rows)  # on edm, where time is sigma
    assert found["verdict"] == FAILS
    assert "differ by up to 0.99 %" in found["text"]


def test_elsewhere_ddim_and_euler_are_compared() -> None:
    rows = rows_of("ddim", lambda n: 2 / n**2, schedule="vp-linear") + rows_of(
        "euler", lambda n: 1 / n, schedule="vp-linear"
    )
    found = verdict("ddim-is-euler", rows)
    assert found["verdict"] == PART
    assert "euler errs less at 1" in found["text"]
    assert "ddim errs less from 4 to 64" in found["text"]


def on_schedules(sampler: str, **laws: Law) -> list[Spec]:
    return [row for name, law in laws.items() for row in rows_of(sampler, law, schedule=name.replace("_", "-"))]


def test_one_step_that_leaves_the_mean_is_a_collapse_and_counts_for_nobody() -> None:
    rows = on_schedules(
        "euler",
        flow=lambda n: {1: 0.25, 2: 0.1}.get(n, 0.1 / n),
        edm=lambda n: {1: 0.9, 2: 0.2}.get(n, 0.2 / n),
        vp_linear=lambda n: {1: 0.7, 2: 0.3}.get(n, 0.2 / n),
    )
    found = verdict("straight-paths", rows)  # U[0, 1]: samples that all lie on the mean score exactly 1/4
    assert found["verdict"] == PART
    assert "N = 1: 0.250, a collapse: samples that all lie on the mean score 0.250" in found["text"]
    assert "N = 2: 0.100 (more: edm 0.200, vp-linear 0.300)" in found["text"]
    only_one = [row for row in rows if row["steps"] == 1]
    assert verdict("straight-paths", only_one)["verdict"] == FAILS


def test_straight_paths_hold_if_even_one_step_is_better_and_no_collapse() -> None:
    rows = on_schedules("ddim", flow=lambda n: 0.1 / n, edm=lambda n: 0.4 / n)
    assert verdict("straight-paths", rows)["verdict"] == HOLDS
    rows = on_schedules("ddim", flow=lambda n: 0.4 / n, edm=lambda n: 0.1 / n)
    assert verdict("straight-paths", rows)["verdict"] == FAILS
    assert verdicts("straight-paths", on_schedules("ddim", flow=lambda n: 0.4 / n)) == []


def test_where_the_mean_s_error_is_not_known_equal_errors_of_all_schedules_in_one_step_count_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = on_schedules("euler", **dict.fromkeys(("flow", "edm", "vp_linear"), lambda n: 0.4 if n == 1 else 0.2 / n))
    answers = answers_to([{**row, "dataset": "tests.tasks.own_parts:Wide"} for row in rows])
    monkeypatch.delattr(own_parts, "Wide")  # the study was run where it was installed
    ((found,),) = (claim["verdicts"] for claim in claims(answers) if claim["claim"] == "straight-paths")
    assert found["verdict"] == OPEN
    assert "N = 1: 0.400, like every other schedule" in found["text"]


def test_trained_rows_are_compared_with_trained_rows() -> None:
    rows = on_schedules("euler", flow=lambda n: 0.1 / n, edm=lambda n: 0.4 / n)
    rows += [{**row, "formulation": row["schedule"]} for row in rows]
    found = verdicts("straight-paths", rows)
    assert [one["formulation"] for one in found] == ["exact", "flow"]
    assert [{one["against"] for one in expected["comparisons"]} for expected in found] == [{"edm"}, {"edm"}]


def test_robust_means_that_the_largest_error_at_few_steps_is_the_smallest() -> None:
    rows = on_schedules(
        "heun",
        edm=lambda n: 0.25 if n <= 2 else 0.1,
        iddpm=lambda n: 0.25 if n == 1 else 0.001,
        ve_linear=lambda n: 1e8 if n == 2 else 0.0001,
        vp_linear=lambda n: 5e9 if n == 16 else 0.6,
    )
    found = verdict("edm-robust", rows)
    assert found["verdict"] == HOLDS  # what happens at more than ten steps does not count
    assert "ve-linear 1.00×10⁸ (N = 2)" in found["text"]
    assert "Shared with iddpm." in found["text"]
    assert "bounded by a collapse" in found["text"]
    worse = on_schedules("heun", edm=lambda n: 3 / n, flow=lambda n: 1 / n, ve_linear=lambda n: 9 / n)
    assert verdict("edm-robust", worse)["verdict"] == PART
    assert verdict("edm-robust", [r for r in worse if r["schedule"] != "ve-linear"])["verdict"] == FAILS


def test_accurate_means_at_each_step_count_and_a_collapse_does_not_count() -> None:
    laws = {"edm": lambda n: 0.25 if n == 1 else 0.8 / n**2, "vp_linear": lambda n: 0.9 if n == 1 else 1 / n}
    found = verdict("edm-accurate", on_schedules("euler", **laws))
    assert found["verdict"] == HOLDS
    assert "errs least at N = 2, 4, 8, 16, 32, 64" in found["text"]
    assert "collapsed to the mean at N = 1" in found["text"]
    beaten = on_schedules("euler", **laws, flow=lambda n: 0.8 / n**2 if 1 < n < 64 else 0.25 if n == 1 else 1e-5)
    found = verdict("edm-accurate", beaten)
    assert found["verdict"] == FAILS
    assert "not told apart from the best at N = 2, 4, 8, 16, 32" in found["text"]
    assert "64 (flow, ×20)" in found["text"]


def test_noise_corrects_if_it_costs_at_few_evaluations_and_pays_at_many() -> None:
    heun = rows_of("heun", lambda n: 0.1 + 1 / heun_cost(n))

    def churn(law: Law) -> list[Spec]:
        return rows_of({"name": "churn", "s_churn": 20.0}, lambda n: law(heun_cost(n)))

    # 0.1 + 1/n against 3/n: they cross at n = 20 between the 15 and 31 that were asked
    found = verdict("noise-corrects", heun + churn(lambda nfe: 3 / nfe))
    assert found["compared"] == "churn(s_churn=20.0) against heun"
    assert found["verdict"] == HOLDS
    logs = [math.log(3 / n) - math.log(0.1 + 1 / n) for n in (15, 31)]
    crossing = 15 * (31 / 15) ** (logs[0] / (logs[0] - logs[1]))
    assert found["crossings"] == pytest.approx([crossing], rel=1e-5)
    assert crossing == pytest.approx(20, rel=0.03)

    assert verdict("noise-corrects", heun + churn(lambda nfe: 0.2 + 2 / nfe))["verdict"] == FAILS
    assert verdict("noise-corrects", heun + churn(lambda nfe: 0.05 + 0.5 / nfe))["verdict"] == PART
    late = verdict("noise-corrects", heun + churn(lambda nfe: 0.1 + (2 if nfe < 20 else 1) / nfe))
    assert late["verdict"] == OPEN
    assert late["text"].endswith("Noise pays nowhere up to 127 NFE.")


@pytest.mark.parametrize(
    ("noisy", "without"),
    [("ancestral", "ddim"), ("dpmpp-2m-sde", "dpmpp-2m"), ("euler-maruyama", "euler"), ("euler-maruyama", "heun")],
)
def test_a_stochastic_sampler_is_compared_with_the_rule_that_it_is_without_noise(noisy: str, without: str) -> None:
    on: Spec = {"schedule": "vp-linear"}
    rows = rows_of(noisy, lambda n: 3 / n, **on) + rows_of(without, lambda n: 0.1 + 1 / n, **on)
    assert verdict("noise-corrects", rows)["compared"] == f"{noisy} against {without}"


def test_a_sampler_on_another_schedule_than_the_model_s_is_not_taken_for_the_plain_one() -> None:
    rows = rows_of("euler", lambda n: 1 / n) + rows_of("heun", lambda n: 2 / n, other_schedule="vp-linear")
    assert verdicts("second-order", rows) == []


def test_an_error_that_passes_the_mean_s_on_its_way_down_is_no_collapse() -> None:
    laws = {"edm": lambda n: {1: 0.7, 2: 0.25}.get(n, 0.2 / n), "vp_linear": lambda n: 1.4 / n}
    found = verdict("edm-accurate", on_schedules("euler", **laws))
    assert "collapse" not in found["text"]
    assert "errs least at N = 1, 2, 4" in found["text"]


def test_quantile_starts_have_no_noise_but_that_of_the_sampler_and_of_training() -> None:
    rows = rows_of("euler", lambda n: 0.011 / n, seeds=1) + rows_of("heun", lambda n: 0.010 / heun_cost(n), seeds=1)
    assert verdict("second-order", rows)["verdict"] == OPEN
    assert verdict("second-order", rows, start="quantiles")["verdict"] == HOLDS
    trained = [{**row, "formulation": "edm"} for row in rows]
    assert verdict("second-order", trained, start="quantiles")["verdict"] == OPEN
    on: Spec = {"seeds": 1, "schedule": "vp-linear"}
    rows = rows_of("ancestral", lambda n: 0.011 / n, **on) + rows_of("ddim", lambda n: 0.010 / n, **on)
    assert verdict("noise-corrects", rows, start="quantiles")["verdict"] == OPEN


def test_everything_is_json() -> None:
    made = [*power_laws(), *on_schedules("ddim", flow=lambda n: 0.1 / n, vp_linear=lambda n: 0.4 / n)]
    found = claims(answers_to(made))
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert {"dataset", "metric", "formulation", "schedule", "compared", "verdict", "text"} <= again[0]["verdicts"][
        0
    ].keys()


# --- on the page ----------------------------------------------------------------------------------


def test_the_page_shows_what_was_weighed_and_names_what_was_not_asked() -> None:
    html = draw_report(answers_to(power_laws()))
    assert "◐ holds in part" in html
    assert "they cross at 20 NFE" in html
    assert "Not asked in this study" in html
    assert "takes dpmpp-2m and one of heun, ddim" in html
    for rule in ("Student’s test", "in at most 5% of cases", "more than 5%"):
        assert rule in html


def test_a_page_without_anything_to_weigh_has_no_such_section() -> None:
    html = draw_report(answers_to(rows_of("euler", lambda n: 1 / n)))
    assert 'id="claims"' not in html
    assert "What the numbers say" in html


# --- samplers of other libraries ------------------------------------------------------------------

EULER, HEUN, ROSENBROCK = ({"name": "azula", "sampler": f"{name}Sampler"} for name in ("Euler", "Heun", "REAB"))


@pytest.fixture
def azula() -> None:
    pytest.importorskip("azula", reason="azula is not installed (make install does it)")


@pytest.mark.usefixtures("azula")
def test_the_order_that_a_librarys_sampler_claims_is_held_against_the_one_measured() -> None:
    rows = [row for sampler in (HEUN, ROSENBROCK, "heun") for row in rows_of(sampler, lambda n: 1 / n, steps=(2, 4))]
    rows += [{**row, "dataset": "gaussian"} for row in rows]  # told once, beside the first
    found = verdicts("claimed-order", rows)
    assert [one["compared"].partition("@")[0] for one in found] == ["azula(HeunSampler", "azula(REABSampler"]
    assert [one["verdict"] for one in found] == [HOLDS, FAILS]
    assert "claims order 2; measured 1.0" in found[1]["text"]
    assert "on a normal law and 1.0" in found[1]["text"]


@pytest.mark.usefixtures("azula")
def test_one_rule_in_two_libraries_has_to_give_one_set_of_numbers() -> None:
    def told(factor: float, sampler: Spec = EULER) -> list[str]:
        rows = (
            rows_of("ddim", lambda n: 1 / n) + rows_of(sampler, lambda n: factor / n) + rows_of("heun", lambda n: 1 / n)
        )
        return [one["verdict"] for one in verdicts("same-rule", rows)]

    assert told(1.0) == [HOLDS]
    assert told(1.1) == [FAILS]
    assert told(1.0, {"name": "azula", "sampler": "DDIMSampler", "eta": 0.5}) == []  # no rule of ours
    assert told(1.0, HEUN) == [HOLDS]  # on edm, where sigma / alpha is time
