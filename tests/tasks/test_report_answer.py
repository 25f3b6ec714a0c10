"""The sentences that the page opens with are true: of chosen numbers, where it is known who wins, who
ties, what limits and what failed; and of a real run, against its own rows.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import pytest
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from tasks.plain import Spec
from tasks.plan import Point
from tasks.report import draw_report
from tasks.report.numbers.across import across
from tasks.report.numbers.answer import Answer, answer_of
from tasks.report.numbers.curves import tabulate
from tasks.report.numbers.findings import verdicts
from tasks.report.page.frame import missing_points
from tasks.report.pictures.answer import MOST_NAMED, answer_picture
from tasks.results.models import ModelledAnswers
from tasks.results.stored import coordinate, plan_against, record
from tasks.store import Store
from tasks.study import Study
from tests.tasks.answer_oracle import hold_to_its_rows
from tests.tasks.chosen import GivenAnswer, answers_to, chosen
from tests.tasks.real_page import all_kinds, together
from tests.tasks.realistic import realistic
from tests.tasks.test_report_decomposition import split_rows
from tests.tasks.tiny_store import SPEC
from tests.tasks.tiny_store import answer as answer_by_run

pytestmark = together
NOISE = (0.97, 1.01, 1.04, 0.99)  # by seed, shared by all


def answer(answers: ModelledAnswers) -> Answer:
    table = tabulate(answers)
    name = table.datasets[0]
    found = verdicts(table, name, table.metrics_of(name)[0])
    made = answer_of(table, found, missing_points(answers, table))
    assert made is not None
    return made


def said(answers: ModelledAnswers, about: str) -> str:
    return dict(answer(answers).sentences)[about]


def rows(values: dict[str, Sequence[float]], own: Sequence[float] = NOISE, **more: Any) -> list[dict[str, Any]]:
    """Values of formulations in 2 and 10 steps, with noise by seed."""
    return [
        {"formulation": name, "steps": n, "seed": seed, "w1": value * noise, **more}
        for name, of_name in values.items()
        for n, value in zip((2, 10), of_name, strict=True)
        for seed, noise in enumerate(own)
    ]


# --- who wins -------------------------------------------------------------------------------------


def test_the_winner_is_named_with_how_far_ahead_it_is_and_how_surely() -> None:
    told = rows({"edm": (0.2, 0.01)})
    told += rows(
        {"vp": (0.3, 0.02)}, [noise * shift for noise, shift in zip(NOISE, (1.02, 0.97, 1.01, 1.0), strict=True)]
    )
    text = said(answers_to(told), "Who wins")
    assert text.startswith("On uniform, edm with heun has the lowest w1 at every budget asked: 0.0100 ")
    found = re.search(r"vp with heun, has (\S+) times as much \(95 % interval (\S+) to (\S+)\)", text)
    assert found is not None
    times, low, high = map(float, found.groups())
    assert times == pytest.approx(2, rel=0.01)
    assert 1.85 < low < times < high < 2.15
    assert "; at the largest budget every other one is told apart from it; the nearest, vp with heun, has" in text
    assert "cannot" not in text


def test_another_winner_at_fewer_evaluations_is_named_too() -> None:
    text = said(answers_to(rows({"edm": (0.2, 0.01), "vp": (0.05, 0.02)})), "Who wins")
    assert "edm with heun has the lowest w1 from 19 evaluations on" in text
    assert "Within 3 evaluations it is vp with heun (0.0501)" in text


def test_equals_cannot_be_told_apart_and_nobody_is_said_to_be_ahead() -> None:
    text = said(answers_to(rows({"edm": (0.2, 0.01)}) + rows({"vp": (0.2, 0.0101)}, NOISE[::-1])), "Who wins")
    assert "it cannot be told apart from vp with heun" in text
    assert "times as much" not in text


def test_one_seed_decides_nothing() -> None:
    text = said(answers_to(rows({"edm": (0.2, 0.01), "vp": (0.2, 0.5)}, (1.0,))), "Who wins")
    assert "whether it is ahead of vp with heun cannot be decided by so few seeds" in text


def test_of_a_metric_that_is_better_the_higher_the_highest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_ALLOW_PLUGINS", "tests.tasks.own_parts")
    told = [
        {
            "formulation": name,
            "steps": 10,
            "seed": seed,
            "tests.tasks.own_parts:Praised": value + 0.01 * seed,
        }
        for name, value in (("edm", 0.9), ("vp", 0.5))
        for seed in range(3)
    ]
    text = said(answers_to(told), "Who wins")
    assert re.match("On uniform, edm with heun has the highest .*: 0.910", text)


def test_a_mean_over_those_that_did_not_fail_does_not_win() -> None:
    told = rows({"edm": (0.2, 0.01), "vp": (0.3, 0.02)})
    told[-5] = {key: value for key, value in told[-5].items() if key != "w1"} | {
        "error": "Diverged at step 3",
        "nfe": 4,
    }
    told = [row for row in told if row["formulation"] == "vp" or row["steps"] == 2]
    answers = answers_to(told)
    failed = said(answers, "What failed")
    assert "1 failed (Diverged at step 3)" in failed
    assert f"Of {len(told) + missing_points(answers, tabulate(answers))} points" in failed


def test_what_is_not_computed_yet_is_counted() -> None:
    spec = {"formulations": ["edm"], "samplers": ["heun"], "steps": [2, 10], "seeds": 2}

    def tell(point: Point) -> GivenAnswer | None:
        return None if point.steps == 10 or point.cell.training is None else GivenAnswer({"w1": 0.1})

    answers = chosen(spec, tell)
    assert missing_points(answers, tabulate(answers)) == 6  # the exact denoiser was asked, too
    assert "6 are not computed yet" in said(answers, "What failed")
    everything = chosen(spec, lambda _point: GivenAnswer({"w1": 0.1}))
    assert said(everything, "What failed") == "Nothing failed: all 8 points have an answer."


def one_after_the_other() -> ModelledAnswers:
    """Six curves that lead at a budget each, of one seed; the last one leads in between as well."""
    curves = [(formulation, sampler) for sampler in ("ddim", "euler") for formulation in ("edm", "vp", "iddpm")]
    leaders = [curves[i] for i in (0, 1, 5, 2, 3, 4, 5)]
    return answers_to(
        {"formulation": formulation, "sampler": sampler, "steps": n, "w1": 1 / n}
        for n, (formulation, sampler) in enumerate(leaders, start=1)
    )


def test_leaders_of_smaller_budgets_are_others_and_one_seed_does_not_decide_for_them() -> None:
    text = said(one_after_the_other(), "Who wins")
    assert text.startswith("On uniform, iddpm with euler has the lowest w1 from 7 evaluations on: 0.143 ")
    assert text.endswith(
        "Within 1 evaluation it is edm with ddim (1.00); within 6 it is vp with euler (0.167, not decided against others); "
        "between them others lead: vp with ddim, iddpm with ddim and 1 more."
    )


def test_of_many_budgets_some_are_looked_at_and_the_sentences_say_so() -> None:
    told = [
        {"formulation": name, "sampler": "ddim", "steps": n, "w1": value / n}
        for name, value in (("edm", 1.0), ("vp", 2.0))
        for n in range(1, 21)
    ]
    answers = answers_to(told)
    found = verdicts(tabulate(answers), "uniform", "w1")
    text = said(answers, "Who wins")
    assert "the lowest w1 at every budget looked at: 0.0500 in 20 evaluations; at the largest budget whether" in text
    assert text.endswith(f" {len(found.best)} of the 20 budgets were looked at.")


def test_where_nothing_makes_samples_from_noise_nothing_is_ranked() -> None:
    text = said(answers_to([{"sampler": "forward-chain", "schedule": "vp-constant", "w1": 0.1}]), "Who wins")
    assert text == "On uniform nothing is ranked: nothing there makes samples from noise."
    half: list[Spec] = [{"w1": 0.1, "seed": 0}, {"error": "Diverged at step 3", "seed": 1}]
    assert (
        said(answers_to(half), "Who wins")
        == "On uniform nothing can be ranked yet: no point has an answer that every seed gave."
    )


# --- what limits it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("laws", "limit"),
    [
        ({"network": 0.3, "discretisation": 0.02, "prior": 0.001}, "most is the network (0.300 of 0.331"),
        ({"network": 0.01, "discretisation": 0.2, "prior": 0.001}, "most is the number of steps (0.200 of 0.221"),
        ({"network": 0.001, "discretisation": 0.002, "prior": 0.09}, "most is the prior (0.0900 of 0.103"),
        (
            {"network": 0.0001, "discretisation": 0.0002, "prior": 0.0003},
            "most is the number of samples (0.0100 of 0.0106",
        ),
    ],
)
def test_the_largest_part_of_the_winner_s_error_limits_it(laws: Spec, limit: str) -> None:
    of_each: Spec = {part: (value,) for part, value in laws.items()}
    text = said(answers_to(split_rows(steps=(10,), noise=0.01, **of_each)), "What limits it")
    assert text.startswith(f"What limits edm with heun in 10 steps {limit}")


def test_parts_that_the_seeds_do_not_tell_apart_limit_together_and_nothing_is_said_of_noise() -> None:
    told = split_rows(steps=(10,), network=(0.1,), discretisation=(0.101,), prior=(0.0,))
    for row in told:
        row["w1"] += 0.02 * (row["seed"] - 1) if row["formulation"] == "edm" else 0.0
    text = said(answers_to(told), "What limits it")
    assert "the number of steps or the network, which the seeds do not tell apart" in text
    assert "that the prior limits it at all cannot be told" in text


def test_without_the_exact_denoiser_the_page_does_not_guess() -> None:
    text = said(realistic(exact=False, samplers=("heun",), steps=(1, 10), formulations=("edm",)), "What limits it")
    assert (
        text
        == "What limits edm with heun cannot be told: that takes the exact denoiser’s answers (the formulation “exact”)."
    )


# --- the opening picture --------------------------------------------------------------------------


def test_the_opening_picture_names_the_winners_and_draws_the_others_as_one_trace_a_series() -> None:
    answers = realistic(samplers=("heun", "ddim", "euler"), steps=(1, 5, 10, 50))
    table = tabulate(answers)
    found = verdicts(table, "uniform", "w1")
    picture = answer_picture(table, found.best, "w1")
    assert picture is not None
    names = [trace["text"][0] for trace in picture.spec["data"] if trace.get("mode") == "text"]
    winners = dict.fromkeys(one.curve for one in reversed(found.best))
    assert names == [f"<b>{one.series.label}, {one.panel.title}</b>" for one in winners][:MOST_NAMED]
    thin = [trace for trace in picture.spec["data"] if trace.get("line", {}).get("width") == 1]
    assert len(thin) <= len([series for series in table.series if not series.exact])
    dashed = [trace for trace in picture.spec["data"] if trace.get("line", {}).get("dash") == "dash"]
    assert len(dashed) == len(names)
    assert [t["text"][1] for t in picture.spec["data"] if t["name"] == "sampling floor"] == ["floor"]


def test_names_in_the_opening_picture_lie_on_no_line() -> None:
    """Neither on the curves that are named, nor on a dashed one, nor on the floor: boxes of names of
    a picture of 300 by 300 pixels, against every piece of these lines.
    """
    for answers in (
        realistic(samplers=("heun", "ddim", "euler"), steps=(1, 5, 10, 50)),
        realistic(samplers=("heun", "ddim")),
        one_after_the_other(),
    ):
        table = tabulate(answers)
        picture = answer_picture(table, verdicts(table, "uniform", "w1").best, "w1")
        assert picture is not None
        (left, right), (low, high) = (picture.spec["layout"][name]["range"] for name in ("xaxis", "yaxis"))
        assert picture.spec["layout"]["yaxis"]["type"] == "log"

        def place(x: float, y: float, box: Sequence[float] = (left, right, low, high)) -> tuple[float, float]:
            across, up = (math.log10(x) - box[0]) / (box[1] - box[0]), (math.log10(y) - box[2]) / (box[3] - box[2])
            return 300 * across, 300 * up

        lines = [
            [place(x, y) for x, y in zip(trace["x"], trace["y"], strict=True) if x and y]
            for trace in picture.spec["data"]
            if "lines" in trace["mode"] and trace.get("line", {}).get("width") != 1
        ]
        names = [trace for trace in picture.spec["data"] if trace["mode"] == "text"]
        assert len(lines) >= len(names) > 0
        for name in names:
            x, y = place(name["x"][0], name["y"][0])
            wide = 6.4 * len(name["text"][0].removeprefix("<b>").removesuffix("</b>"))
            start = x - {"right": 0.0, "center": wide / 2, "left": wide}[name["textposition"].removeprefix("middle ")]
            box = Bbox.from_extents(start, y - 5, start + wide, y + 5)
            assert [line for line in lines if Path(line).intersects_bbox(box, filled=False)] == []


def caption(answers: ModelledAnswers) -> str:
    table = tabulate(answers)
    picture = answer_picture(table, verdicts(table, "uniform", "w1").best, "w1")
    assert picture is not None
    return picture.caption


def test_the_caption_counts_the_leaders_and_explains_what_is_drawn() -> None:
    band = "with the 95 % band over seeds (from three seeds on)"
    many = caption(one_after_the_other())
    assert many.endswith(f"Thick: 4 of the 6 curves that lead at some budget, {band}; thin: 2 others.")
    one = caption(answers_to([{"formulation": "edm", "w1": 0.1, "w1_floor": 0.01}]))
    assert one.endswith(f"Thick: the curve that leads, {band}; dotted: the sampling floor.")


# --- across data sets -----------------------------------------------------------------------------


def test_wins_and_mean_ranks_across_data_sets_are_paired_by_seed() -> None:
    told: list[dict[str, Any]] = []
    for dataset, order in (
        ("uniform", (1.0, 2.0, 3.0)),
        ("four_points", (1.0, 3.0, 2.0)),
        ("gaussian", (2.0, 1.0, 3.0)),
    ):
        told += rows(
            {name: (0.1 * value,) * 2 for name, value in zip(("edm", "vp", "iddpm"), order, strict=True)},
            dataset=dataset,
        )
    *_, found = across(tabulate(answers_to(told)))
    assert (found.budget, len(found.datasets), found.seeds) == (19, 3, 4)
    assert [(one.series.label, one.wins) for one in found.standings] == [("edm", 2), ("vp", 1), ("iddpm", 0)]
    assert [one.rank for one in found.standings] == pytest.approx([4 / 3, 2, 8 / 3])
    assert all(one.interval == pytest.approx((one.rank, one.rank)) for one in found.standings)  # all seeds agree
    assert "edm with heun has the best mean rank of 3, 1.33" in found.sentence()


def test_one_data_set_is_no_ranking_across() -> None:
    assert across(tabulate(answers_to(rows({"edm": (0.2, 0.01), "vp": (0.3, 0.02)})))) == []


# --- a real run -----------------------------------------------------------------------------------


_SECOND: dict[str, Any] = {"seeds": 3, "samplers": ["heun", "euler", "ancestral"], "steps": [2, 6]}
_THIRD: dict[str, Any] = {"datasets": ["gaussian_mixture"], "formulations": ["vp", "edm"], "steps": [3, 5], "seeds": 4}


@pytest.mark.parametrize("more", [None, _SECOND, _THIRD], ids=["all kinds", "uniform", "mixture"])
def test_the_answer_of_a_real_run_is_what_its_rows_say(more: dict[str, Any] | None, tmp_path: pathlib.Path) -> None:
    if more is None:
        answers = all_kinds()
    else:
        answer_by_run(str(tmp_path / "store"), {**SPEC, **more, "keep": {}})
        answers = ModelledAnswers(Store.open(str(tmp_path / "store")), "tiny")
    said_of_it = hold_to_its_rows(answers)
    assert said_of_it["What failed"].startswith("Nothing failed")


def test_the_answer_of_a_run_that_failed_in_part_is_what_its_rows_say(tmp_path: pathlib.Path) -> None:
    uri = str(tmp_path / "store")
    good = {"formulations": ["edm", "vp"], "samplers": ["heun", "euler"], "steps": [2, 6]}
    wild = {"formulations": ["flow"], "training": {**SPEC["training"], "learning_rate": 1e6, "steps": 40}}
    mixed = {key: value for key, value in SPEC.items() if key not in ("formulations", "training")}
    answer_by_run(uri, {**mixed, "seeds": 4, "keep": {}, "grids": [{**good, "training": SPEC["training"]}, wild]})
    answers = ModelledAnswers(Store.open(uri), "tiny")
    text = hold_to_its_rows(answers)["What failed"]
    assert re.match(r"Of \d+ points, 16 failed \(training diverged", text)


def test_the_answer_of_a_run_of_which_cells_are_missing_is_what_its_rows_say(tmp_path: pathlib.Path) -> None:
    uri = str(tmp_path / "store")
    spec = {**SPEC, "formulations": ["edm", "vp"], "seeds": 3, "steps": [2, 6], "keep": {}}
    answer_by_run(uri, spec)
    grown = {**spec, "formulations": ["edm", "vp", "flow"], "seeds": 5, "steps": [2, 6, 9]}
    with coordinate(Store.open(uri)) as coordinator:  # asked for, and its run ended before it began
        record(coordinator, plan_against(Store.open(uri), Study.from_spec(grown)), {"study": "tiny"})
    # some of it was computed after all: more seeds of one formulation alone
    answer_by_run(uri, {**spec, "name": "more", "formulations": ["vp"], "seeds": 5})
    answers = ModelledAnswers(Store.open(uri), "tiny")
    seeds = answers.points.to_dataframe().groupby("formulation")["seed"].nunique().to_dict()
    assert (seeds["edm"], seeds["vp"]) == (3, 5)
    assert "are not computed yet" in hold_to_its_rows(answers)["What failed"]


def test_what_asks_no_network_has_no_place_along_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler of somebody's own that never asks: alone there is no picture, and a page all the same."""
    alone = [{"formulation": "edm", "steps": 2, "seed": seed, "w1": 0.2, "nfe": 0} for seed in range(2)]
    for told, drawn in ((alone, False), ([*alone, *rows({"vp": (0.1, 0.05)})], True)):
        table = tabulate(answers_to(told))
        name = table.datasets[0]
        found = verdicts(table, name, "w1")
        assert (answer_picture(table, found.best, "w1") is not None) == drawn
    monkeypatch.setattr("tasks.report.page.draw.packed_plotly", str)
    assert 'class="opening alone"' in draw_report(answers_to(alone))
