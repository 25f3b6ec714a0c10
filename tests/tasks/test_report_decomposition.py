"""Where an error comes from, and the error of the learned score by noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tasks.plain import Spec
from tasks.report import draw_report
from tasks.report.numbers.curves import Panel, tabulate
from tasks.report.numbers.decomposition import Origin, metric_with_parts, origins, reading
from tasks.report.pictures.decomposition import picture as picture_of_parts
from tasks.report.pictures.score import score_errors
from tasks.report.pictures.style import Picture
from tasks.results.models import ModelledAnswers
from tests.tasks.chosen import OfCell, answers_to
from tests.tasks.page_reader import pictures_of, sections_of
from tests.tasks.realistic import realistic

# --- where the error comes from -------------------------------------------------------------------


def split_rows(
    *,
    formulation: str = "edm",
    steps: Sequence[int],
    seeds: int = 3,
    noise: float = 0.0,
    floor: float = 0.01,
    **laws: Sequence[float],
) -> list[Spec]:
    """Rows whose parts are given by step count, with the same relative noise on every part of a
    seed: the exact ones, too.
    """
    rows = []
    for i, n in enumerate(steps):
        for seed in range(seeds):
            factor = 1 + noise * (seed - 1)
            network, discretisation, prior = (laws[part][i] * factor for part in ("network", "discretisation", "prior"))
            exact = math.fsum([discretisation, prior, floor])
            where = {"steps": n, "seed": seed, "w1_floor": floor}
            schedule = {"edm": "edm", "vp": "vp-linear", "exact": "edm"}[formulation]
            rows.append({**where, "formulation": "exact", "schedule": schedule, "w1": exact, "w1_limit": prior + floor})
            if formulation != "exact":
                rows.append({**where, "formulation": formulation, "w1": exact + network})
    return sorted(rows, key=lambda row: row["formulation"] == "exact")


def origin_of(rows: Sequence[Spec]) -> Origin:
    table = tabulate(answers_to(rows))
    assert metric_with_parts(table, "uniform") == "w1"
    (origin,) = origins(table, "uniform", "w1")
    return origin


def values_of(picture: Picture) -> dict[str, list[tuple[float, float, float]]]:
    """The bars of a picture in the units of the metric, with the ends of their intervals."""
    axis = picture.spec["layout"]["yaxis"]
    unit = float(axis["ticktext"][-1]) / math.sinh(axis["tickvals"][-1])
    found = {}
    for trace in picture.spec["data"]:
        if trace["type"] == "bar":
            heights = np.array(trace["y"])
            up, down = (
                np.array(trace.get("error_y", {}).get(end, [0.0] * len(heights))) for end in ("array", "arrayminus")
            )
            ends = (unit * np.sinh(at) for at in (heights, heights - down, heights + up))
            found[trace["name"]] = list(zip(*(one.tolist() for one in ends), strict=True))
    return found


def test_parts_are_drawn_as_they_are_with_their_intervals() -> None:
    laws: Spec = {"network": (0.3, -0.02), "discretisation": (0.6, 0.06), "prior": (0.09, 0.01)}
    bars = values_of(picture_of_parts(origin_of(split_rows(steps=(1, 2), noise=0.1, **laws)), "w1", "edm"))
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's t of two degrees of freedom
    for part, name in (("network", "network"), ("discretisation", "discretisation"), ("prior", "prior")):
        for value, (mean, low, high) in zip(laws[part], bars[name], strict=True):
            assert mean == pytest.approx(value, rel=1e-3)
            assert (low, high) == pytest.approx((value - abs(value) * half, value + abs(value) * half), rel=2e-3)
    assert bars["sampling floor"] == [pytest.approx((0.01, 0.01, 0.01), rel=1e-3)] * 2


def test_a_part_that_chance_made_negative_has_an_interval_that_reaches_across_nothing() -> None:
    rows = split_rows(steps=(1, 2), network=(0.3, -0.001), discretisation=(0.6, 0.06), prior=(0.09, 0.01))
    for row in rows:
        row["w1"] += 0.01 * (row["seed"] - 1) if row["formulation"] == "edm" else 0.0
    picture = picture_of_parts(origin_of(rows), "w1", "edm")
    (_, (mean, low, high)) = values_of(picture)["network"]
    assert low < mean < 0 < high
    assert "%" not in picture.caption + repr(picture.spec["layout"])


def test_the_hover_gives_every_part_with_its_standard_error() -> None:
    rows = split_rows(steps=(2,), network=(0.3,), discretisation=(0.6,), prior=(0.09,), noise=0.1)
    spec = picture_of_parts(origin_of(rows), "w1", "edm").spec
    assert spec["layout"]["hovermode"] == "x unified"
    assert [trace["text"] for trace in spec["data"]] == [
        ["network 0.300 ± 0.017"],
        ["discretisation 0.600 ± 0.035"],
        ["prior 0.0900 ± 0.0052"],
        ["sampling floor 0.0100"],
        ["NFE = 3: w1 1.00 ± 0.057"],
    ]


@pytest.mark.parametrize(
    ("network", "start"),
    [
        ((0.1, 0.1, 0.1, 0.1), 5),  # discretisation is 0.4 / n
        ((0.1, 0.1, 0.0, 0.1), 8),
        ((0.9, 0.9, 0.9, 0.9), 1),
        ((0.0, 0.0, 0.0, 0.0), None),
        ((0.1, 0.1, 0.1, 0.0), None),
    ],
)
def test_the_network_dominates_from_the_step_count_after_which_it_never_stops(
    network: tuple[float, ...], start: int | None
) -> None:
    steps = (1, 2, 5, 8)
    laws: Spec = {"network": network, "discretisation": tuple(0.4 / n for n in steps), "prior": (0.0,) * 4}
    assert origin_of(split_rows(steps=steps, noise=1e-6, **laws)).network_from() == start


def test_what_noise_hides_does_not_dominate() -> None:
    laws: Spec = {"network": (0.101,) * 2, "discretisation": (0.1,) * 2, "prior": (0.0,) * 2}
    rows = split_rows(steps=(1, 2), **laws)
    for row in rows:
        row["w1"] += 0.01 * (row["seed"] - 1) if row["formulation"] == "edm" else 0.0
    assert origin_of(rows).network_from() is None
    laws["network"] = (0.5,) * 2
    assert origin_of(split_rows(steps=(1, 2), noise=1e-6, **laws)).network_from() == 1
    assert origin_of(split_rows(steps=(1, 2), seeds=1, **laws)).network_from() is None  # what is the noise of one?


def test_the_sentence_says_what_dominates_where() -> None:
    edm: Spec = {"network": (0.1, 0.1), "discretisation": (0.9, 0.01), "prior": (0.0, 0.0)}
    vp: Spec = {"network": (0.0, 0.0), "discretisation": (0.9, 0.001), "prior": (0.0, 0.0)}
    rows = split_rows(steps=(1, 10), noise=1e-6, **edm)
    rows += split_rows(formulation="vp", steps=(1, 10), noise=1e-6, **vp)
    table = tabulate(answers_to(rows))
    found = origins(table, "uniform", "w1")
    assert reading(found, Panel("heun"), "w1") == (
        "w1 with heun: at N = 1 the largest part is discretisation for all 2; at N = 10 the largest part is the "
        "network’s error for edm, the sampling floor for vp; the network’s error exceeds discretisation from N ≥ 10 on for edm, "
        "that cannot be told up to N = 10 for vp."
    )


def test_an_exact_denoiser_has_no_network_to_blame() -> None:
    rows = split_rows(formulation="exact", steps=(1, 10), network=(0, 0), discretisation=(0.9, 0.01), prior=(0, 0))
    html = draw_report(answers_to(rows))
    assert "Where the error comes from" in sections_of(html)
    (spec,) = (s for title in pictures_of(html).values() for s in title if s["layout"].get("barmode") == "group")
    assert [trace["name"] for trace in spec["data"][:-1]] == ["discretisation", "prior", "sampling floor"]
    assert "network’s error" not in html


def test_without_an_exact_row_nothing_is_split_and_the_page_says_so() -> None:
    html = draw_report(realistic(exact=False, samplers=("heun",)))
    assert "Where the error comes from" not in sections_of(html)
    assert "errors are not split" in html


def test_many_samplers_of_few_denoisers_stand_side_by_side() -> None:
    rows = []
    for name in ("ddim", "euler", "heun"):
        more = split_rows(formulation="exact", steps=(1, 10), network=(0, 0), discretisation=(1, 0.1), prior=(0, 0))
        rows += [{**row, "sampler": name} for row in more]
    html = draw_report(answers_to(rows))
    assert all(len(pictures_of(html)[name]) == 2 for name in ("ddim", "euler", "heun"))  # quality, and the split
    assert "<option" not in html


# --- the error of the learned score ---------------------------------------------------------------


def with_errors(
    errors: Sequence[Sequence[float]],
    levels: Sequence[Sequence[float]],
    *,
    formulation: str = "edm",
    dataset: str = "uniform",
) -> ModelledAnswers:
    """A model for each seed with such errors of its score at noise-to-signal ratios."""
    rows = [
        {"formulation": formulation, "dataset": dataset, "seed": seed, "sliced-w2": 0.1} for seed in range(len(errors))
    ]
    return answers_to(
        rows,
        lambda cell: OfCell(levels=levels[cell.seed], errors=errors[cell.seed]),
        metrics=["sliced-w2", "score-error"],
    )


def picture_of(answers: ModelledAnswers, dataset: str = "uniform") -> Picture | None:
    return score_errors(answers.score_errors(), tabulate(answers), dataset)


def drawn(answers: ModelledAnswers) -> Spec:
    found = picture_of(answers)
    assert found is not None
    return found.spec


def test_the_curve_is_the_geometric_mean_over_seeds_with_a_band() -> None:
    found = drawn(with_errors([[1, 4], [2, 4], [4, 4]], [[0.1, 10]] * 3))
    band, curve = found["data"]
    assert curve["x"] == [0.1, 10]
    assert curve["y"] == pytest.approx([2, 4], rel=1e-4)
    factor = math.exp(4.302653 * math.log(2) / math.sqrt(3))  # Student's t of two degrees of freedom
    assert band["y"] == pytest.approx([2 * factor, 4, 4, 2 / factor], rel=1e-4)
    assert found["layout"]["xaxis"]["type"] == found["layout"]["yaxis"]["type"] == "log"


def test_from_two_seeds_no_band_is_drawn() -> None:
    found = drawn(with_errors([[1, 4], [2, 4]], [[0.1, 10]] * 2))
    assert len(found["data"]) == 1


def test_exact_rows_other_datasets_and_what_is_no_number_are_left_out() -> None:
    answers = with_errors([[1.0, np.nan], [np.nan, 3.0]], [[0.1, 10], [0.1, 10]])
    (curve,) = drawn(answers)["data"]
    assert (curve["x"], curve["y"]) == ([0.1, 10], [1, 3])
    assert picture_of(answers, "torus") is None
    assert picture_of(with_errors([[1e-30, 1e-30]], [[0.1, 10]], formulation="exact")) is None
    assert picture_of(answers_to([{"formulation": "edm", "w1": 0.1}])) is None


def test_the_metric_of_the_denoiser_has_this_picture_and_no_curves_against_n() -> None:
    rows = [{"formulation": "edm", "steps": n, "w1": 0.1, "score-error": 0.01} for n in (1, 10)]
    html = draw_report(answers_to(rows, lambda _cell: OfCell(levels=[0.1, 10], errors=[0.01, 0.01])))
    assert "Error of the learned score by noise level" in sections_of(html)
    assert not [title for title in sections_of(html) if title.startswith("score-error")]
    bare = draw_report(answers_to([{"formulation": "edm", "w1": 0.1}]))
    assert "Error of the learned score by noise level" not in sections_of(bare)
