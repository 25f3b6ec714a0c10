"""The parts of an error add up to it, and are differences of answers to the same question."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.columns import PARTS, MetricColumns
from tasks.plain import Plain, Spec
from tasks.results.error_decomposition import split

QUESTION: Spec = {
    "dataset": "uniform",
    "schedule": "edm",
    "sampler": "heun",
    "grid": "edm",
    "steps": 10,
    "seed": 0,
    "samples": 100,
    "start": "random",
}


def row(
    formulation: str, w1: float, limit: float = np.nan, *, status: str = "ok", floor: float = 0.25, **question: Plain
) -> Spec:
    return {
        **QUESTION,
        "formulation": formulation,
        "status": status,
        "w1": w1,
        "w1_limit": limit,
        "w1_floor": floor,
        **question,
    }


def parts_of(*rows: Spec, metrics: tuple[str, ...] = ("w1",)) -> dict[str, np.ndarray]:
    return split({name: np.array([r[name] for r in rows]) for name in rows[0]}, metrics)


def test_the_parts_are_the_differences_and_add_up_to_the_metric() -> None:
    found = parts_of(row("edm", 4.0), row("exact", 1.5, 0.5))
    assert found["w1_network"].tolist() == [2.5, 0.0]
    assert found["w1_discretisation"].tolist() == [1.0, 1.0]
    assert found["w1_prior"].tolist() == [0.25, 0.25]
    assert found["w1_limit"].tolist() == [0.5, 0.5]
    assert set(found) <= set(MetricColumns("w1").beside)


@pytest.mark.parametrize("name", QUESTION)
def test_only_the_same_question_to_the_exact_denoiser_is_compared_with(name: str) -> None:
    other: Plain = {"dataset": "torus", "start": "quantiles"}.get(
        name, "other" if isinstance(QUESTION[name], str) else 77
    )
    found = parts_of(row("edm", 4.0), row("exact", 1.5, 0.5, **{name: other}))
    assert np.isnan(found["w1_network"][0])
    assert np.isnan(found["w1_discretisation"][0])
    assert found["w1_network"][1] == 0


def test_a_row_without_an_answer_has_no_parts_and_gives_none() -> None:
    found = parts_of(row("edm", np.nan, status="failed"), row("exact", 1.5, 0.5))
    assert all(np.isnan(found[f"w1_{part}"][0]) for part in PARTS)
    found = parts_of(row("edm", 4.0), row("exact", 1.5, 0.5, status="failed"))
    assert all(np.isnan(found[f"w1_{part}"][0]) for part in PARTS)


def test_where_there_is_no_limit_nothing_is_split() -> None:
    rows = [{name: value for name, value in r.items() if name != "w1_limit"} for r in (row("edm", 4.0),)]
    assert parts_of(*rows) == {}
    assert parts_of(row("edm", 4.0), metrics=()) == {}


def test_an_empty_table_has_empty_parts() -> None:
    texts = ("dataset", "schedule", "sampler", "grid", "start", "formulation", "status")
    table = {name: np.array([], dtype=str if name in texts else float) for name in row("edm", 1.0)}
    assert {name: len(values) for name, values in split(table, ("w1",)).items()} == {
        f"w1_{part}": 0 for part in (*PARTS, "limit")
    }


NUMBERS = st.floats(1e-3, 1e3)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(1, 3), st.integers(0, 2), st.sampled_from(["heun", "euler"])),
        st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.booleans()),
        min_size=1,
    ),
    st.randoms(use_true_random=False),
)
def test_rows_are_paired_whatever_their_order(
    answers: dict[tuple[int, int, str], tuple[float, float, float, float, bool]], random: Random
) -> None:
    rows = []
    for (steps, seed, sampler), (own, exact, limit, floor, has_exact) in answers.items():
        question: Spec = {"steps": steps, "seed": seed, "sampler": sampler, "floor": floor}
        rows.append(row("edm", own, **question))
        if has_exact:
            rows.append(row("exact", exact, limit, **question))
    random.shuffle(rows)
    found = parts_of(*rows)
    total = sum(found[f"w1_{part}"] for part in PARTS) + np.array([r["w1_floor"] for r in rows])
    for i, r in enumerate(rows):
        own, exact, limit, floor, has_exact = answers[r["steps"], r["seed"], r["sampler"]]
        if not has_exact:
            assert np.isnan(total[i])
            continue
        assert total[i] == pytest.approx(r["w1"], rel=1e-9, abs=1e-9)
        assert found["w1_network"][i] == (0 if r["formulation"] == "exact" else own - exact)
        assert found["w1_discretisation"][i] == exact - limit
        assert found["w1_prior"][i] == limit - floor
