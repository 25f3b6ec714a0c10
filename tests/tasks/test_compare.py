"""Two snapshots side by side: what is compared with what, what is told, and that nothing is silent."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tasks.columns import COORDINATES, metrics_among
from tasks.compare import compare, document, moves, summary, table
from tasks.compare.changes import Comparison
from tasks.plain import Plain, Spec
from tasks.query import QueryError
from tasks.results import open_results
from tasks.store import Rows, Store
from tests.tasks.metric_kit import saying

LABELS = {
    "dataset": "uniform",
    "formulation": "edm",
    "schedule": "edm",
    "sampler": "heun",
    "grid": "edm",
    "steps": 10,
}


def row(seed: int = 0, w1: float = 1.0, *, version: int = 1, **more: Plain) -> Spec:
    """A point whose id, like a real one, is made of its labels, its seed and a version."""
    labels = {name: more.pop(name, default) for name, default in LABELS.items()}
    cell = "/".join(str(x) for x in (version, labels["dataset"], labels["formulation"], labels["schedule"], seed))
    name = "/".join(str(x) for x in (cell, labels["sampler"], labels["grid"], labels["steps"]))
    beside = {"nfe": 19, "cell_id": cell, "point_id": name, "status": "ok", "error": "", "w1_floor": 0.001}
    return {**labels, "seed": seed, **beside, "w1": w1, **more}


def failed(seed: int = 0, why: str = "samples diverged", status: str = "failed", **more: Plain) -> Spec:
    return row(seed, np.nan, status=status, error=why, **more)


def points(rows: Iterable[Spec]) -> xr.Dataset:
    names = list(dict.fromkeys(name for r in rows for name in r)) or list(row())
    columns = {name: ("point", np.array([r.get(name, np.nan) for r in rows])) for name in names}
    coordinates = {name: columns.pop(name) for name in (*COORDINATES, "error")}
    return saying(xr.Dataset(columns, coords=coordinates), metrics_among(columns))


def group(values: Iterable[float], **more: Plain) -> list[Spec]:
    """One group of points with these values of w1, by seed."""
    return [row(seed, value, **more) for seed, value in enumerate(values)]


def only(comparison: Comparison) -> pd.Series[Plain]:
    assert len(comparison.groups) == 1
    return comparison.groups.iloc[0]


def shown(comparison: Comparison, width: int = 120) -> str:
    file = io.StringIO()
    Console(width=width, file=file).print(table(comparison, width))
    return file.getvalue()


# what is compared with what


def test_points_whose_id_changed_are_found_by_their_labels_and_seed() -> None:
    found = compare(points(group([1.0, 1.1, 1.3])), points(group([2.0, 2.1, 2.2], version=2)))
    assert only(found)["change"] == pytest.approx(2.1 - 3.4 / 3)
    assert only(found)["new_ids"] == 3
    assert len(found.points.renamed) == 3
    assert found.points.renamed["point_id_before"].tolist() == [r["point_id"] for r in group([0] * 3)]
    assert len(found.points.appeared) == len(found.points.vanished) == 0


def test_cells_that_were_trained_again_under_the_same_labels_are_told_with_both_ids() -> None:
    before = points(group([1.0, 1.1]) + group([1.0, 1.2], steps=20))
    after = points(group([1.0, 1.1], version=2) + group([1.0, 1.2], steps=20, version=2))
    cells = compare(before, after).cells
    assert cells.before == cells.after == 2
    assert cells.renamed["cell_id_before"].tolist() == ["1/uniform/edm/edm/0", "1/uniform/edm/edm/1"]
    assert cells.renamed["cell_id_after"].tolist() == ["2/uniform/edm/edm/0", "2/uniform/edm/edm/1"]


def test_cells_that_appear_vanish_or_fail_are_told() -> None:
    before = points(group([1.0, 1.1]) + group([1.0], formulation="vp"))
    after = points([row(0, 1.0), failed(1), *group([1.0], formulation="flow")])
    cells = compare(before, after).cells
    assert cells.appeared["formulation"].tolist() == ["flow"]
    assert cells.vanished["formulation"].tolist() == ["vp"]
    assert cells.status[["seed", "status_before", "status_after"]].to_numpy().tolist() == [[1, "ok", "failed"]]


def test_a_label_spelled_otherwise_under_the_same_id_is_the_same_point() -> None:
    before = points(group([1.0, 1.1, 1.2]))
    after = before.assign_coords(formulation=("point", np.array(["edm(sigma_data=0.5)"] * 3)))
    found = compare(before, after)
    assert only(found)["verdict"] == "unchanged"
    assert only(found)["formulation"] == "edm(sigma_data=0.5)"


def test_points_that_labels_do_not_tell_apart_are_matched_by_id_or_not_at_all() -> None:
    few, many = group([1.0, 1.1]), [{**r, "point_id": "many " + r["point_id"]} for r in group([0.5, 0.6])]
    found = compare(points(few + many), points(many + few))
    assert only(found)["verdict"] == "unchanged"
    assert found.ambiguous == 0
    again = [{**r, "point_id": "new " + r["point_id"], "w1": 9.0} for r in few + many]
    found = compare(points(few + many), points(again))
    assert len(found.groups) == 0
    assert found.ambiguous == 8
    assert found.beside == 0
    assert len(found.points.appeared) == len(found.points.vanished) == 4
    assert "8 points share their labels and seed" in shown(found)


def test_an_old_point_that_stays_beside_its_successor_is_no_change() -> None:
    old = group([1.0, 1.1, 1.2])
    found = compare(points(old), points(old + group([5.0, 5.1, 5.2], version=2)))
    assert only(found)["verdict"] == "unchanged"
    assert len(found.points.appeared) == found.beside == 3
    assert "3 points appeared beside an older one with the same labels and seed" in shown(found)
    assert compare(points(old), points([*old, *group([5.0], steps=2)])).beside == 0


def test_a_mean_does_not_move_because_a_point_was_added_to_its_group() -> None:
    before = group([1.0, 1.1, 1.2])
    after = before + group([5.0, 5.1, 5.2], steps=2) + [row(3, 7.0)]
    found = compare(points(before), points(after), by=["dataset"])
    assert only(found)["verdict"] == "unchanged"
    assert only(found)["after"] == pytest.approx(1.1)
    assert len(found.points.appeared) == 4


def test_other_seeds_are_compared_over_the_places_that_both_sides_know() -> None:
    before = [*group([1.0, 1.1, 1.2]), *group([2.0, 2.2, 2.1], steps=20)]
    after = [{**r, "seed": r["seed"] + 3, "point_id": "b" + r["point_id"]} for r in before]
    added = [{**r, "steps": 50, "w1": 9.0, "point_id": "c" + r["point_id"]} for r in after[:3]]
    failures = [failed(s, steps=50) for s in range(3)]
    found = compare(points(before + failures), points(after + added), by=["dataset"])
    assert only(found)["test"] == "Welch"
    assert only(found)["places"] == 2
    assert only(found)["change"] == 0
    assert only(found)["p"] == 1
    ragged = compare(points(before), points(after[:-1]), by=["dataset"])
    assert only(ragged)["verdict"] == "not testable"
    assert only(ragged)["reason"] == "other seeds, which do not all have a value at every place"


def test_what_a_failed_point_left_behind_is_not_a_value() -> None:
    before = group([1.0, 1.1, 1.2])
    found = compare(points(before), points([*before[:2], {**before[2], "w1": 50.0, "status": "failed"}]))
    assert only(found)["verdict"] == "unchanged"
    assert only(found)["seeds_after"] == 2


def test_without_labels_to_group_by_all_points_are_one_group() -> None:
    before = points(group([1.0, 1.1, 1.3]) + group([2.0, 2.1, 2.0], steps=20))
    found = compare(before, points(group([1.0, 1.1, 1.3]) + group([2.2, 2.4, 2.1], steps=20)), by=())
    assert only(found)["change"] == pytest.approx(0.1)
    assert only(found)["places"] == 2
    assert only(found)["seeds_before"] == 3


# what is told


def test_identical_values_are_unchanged_and_no_test_is_made_of_them() -> None:
    still = [r for steps in range(1, 50) for r in group([1.0, 2.0, 3.0], steps=steps)]
    before = points(still + group([1.0, 1.1, 1.2], steps=99))
    found = compare(before, points(still + group([2.01, 2.12, 2.2], steps=99)))
    assert found.tests == 1
    assert found.count("unchanged") == 49
    assert found.groups["verdict"].iloc[0] == "worse"
    assert found.groups["p_corrected"].iloc[0] == found.groups["p"].iloc[0]


def test_a_change_of_one_seed_is_not_testable_and_listed_with_its_size() -> None:
    found = compare(points([row(0, 1.0)]), points([row(0, 1.5)]))
    result = only(found)
    assert result["verdict"] == "not testable"
    assert result["reason"] == "one seed"
    assert result["change"] == 0.5
    assert np.isnan(result[["p", "p_corrected", "error", "spreads"]].astype(float)).all()
    assert "1 changed and cannot be tested" in summary(found)
    assert "+0.5" in shown(found)


def test_a_change_without_any_spread_is_not_called_significant_and_not_silent() -> None:
    x = np.array([1.1, 1.7, 2.3])
    y = x + 0.6
    assert np.std(y - x) > 0  # by rounding, which is no spread
    found = compare(points(group(x)), points(group(y)))
    assert only(found)["verdict"] == "not testable"
    assert only(found)["reason"].startswith("every seed moved by the same amount")
    assert only(found)["change"] == pytest.approx(0.6)
    assert only(found)["spreads"] == pytest.approx(1.0)
    constant = compare(points(group([0.5] * 3)), points(group([0.25] * 3)))
    assert only(constant)["verdict"] == "not testable"
    assert only(constant)["change"] == -0.25
    assert np.isnan(only(constant)["spreads"])


def test_points_that_cancel_out_in_every_seed_are_not_called_unchanged() -> None:
    before = points(group([1.0, 2.0], steps=1) + group([2.0, 3.0], steps=2))
    after = points(group([2.0, 3.0], steps=1) + group([1.0, 2.0], steps=2))
    found = compare(before, after, by=["dataset"])
    assert only(found)["verdict"] == "not testable"
    assert only(found)["change"] == 0
    assert len(found.values) == 4


def test_points_that_appeared_vanished_or_changed_status_are_listed_with_their_reason() -> None:
    before = points([*group([1.0, 1.1, 1.2]), failed(0, steps=2), row(0, steps=3), row(0, steps=5)])
    after = points(
        [
            *group([1.0, 1.1]),
            failed(2, "diverged: |x| = 1e9\nat step 3"),
            row(0, 2.0, steps=2),
            row(0, steps=4),
            failed(0, "no", "skipped", steps=5),
        ]
    )
    found = compare(before, after).points
    assert found.appeared[["steps", "status"]].to_numpy().tolist() == [[4, "ok"]]
    assert found.vanished[["steps", "status"]].to_numpy().tolist() == [[3, "ok"]]
    result = found.status[["steps", "status_before", "status_after", "error_after"]].to_numpy().tolist()
    assert result == [
        [2, "failed", "ok", ""],
        [5, "ok", "skipped", "no"],
        [10, "ok", "failed", "diverged: |x| = 1e9\nat step 3"],
    ]
    sentence = summary(compare(before, after))
    assert "1 point appeared; 1 point vanished" in sentence
    assert "1 failed that was ok" in sentence
    assert "1 ok that was failed" in sentence
    assert "ok -> failed (diverged: |x| = 1e9)" in shown(compare(before, after))


def test_a_group_that_lost_all_its_values_keeps_its_row() -> None:
    found = compare(points(group([1.0, 1.1])), points([failed(0), failed(1)]))
    assert only(found)["verdict"] == "not testable"
    assert only(found)["reason"] == "no value after"
    assert only(found)["before"] == pytest.approx(1.05)
    back = compare(points([failed(0), failed(1)]), points(group([1.0, 1.1])))
    assert only(back)["reason"] == "no value before"


def test_values_that_moved_are_listed_point_by_point_and_those_of_an_old_id_pointed_out() -> None:
    before = points(group([1.0, 1.1, np.nan]))
    after = points([row(0, 1.0), row(1, 1.3), row(2, 4.0)])
    found = compare(before, after)
    assert found.values[["seed", "before", "after"]].to_numpy().tolist()[0] == [1, 1.1, 1.3]
    assert found.values["seed"].tolist() == [1, 2]
    more = [*group([1.0, 1.0], steps=9), *group([1.0, 1.0])], [*group([2.0, 2.0], steps=9), *group([2.0, 2.0])]
    assert compare(points(more[0]), points(more[1])).values["steps"].tolist() == [9, 9, 10, 10]
    assert found.values["same_id"].all()
    assert "1 value changed under the same id" in shown(found)


def test_a_metric_of_one_side_is_named_and_not_compared() -> None:
    before = points([row(0, 1.0, ks=0.1, ks_floor=0.01), row(1, 1.0, ks=0.2, ks_floor=0.01)])
    found = compare(before, points(group([1.0, 1.0])))
    assert found.metrics == ("w1",)
    assert found.only_before == ("ks",)
    assert "known only before: ks" in shown(found)
    assert compare(before, points(group([1.0, 1.0])), metrics=["ks"]).only_before == ("ks",)


def test_a_change_below_two_floors_is_marked() -> None:
    before = group([0.0015, 0.0016, 0.0017]) + group([0.015, 0.016, 0.017], steps=20)
    after = group([0.0012, 0.0015, 0.0011]) + group([0.0012, 0.0015, 0.0011], steps=20)
    found = compare(points(before), points(after)).groups.set_index("steps")["near_floor"]
    assert found.to_dict() == {10: True, 20: False}


def test_another_sampling_floor_is_pointed_out() -> None:
    after = group([1.0, 1.2, 1.3], version=2, w1_floor=0.01)
    found = compare(points(group([1.0, 1.1, 1.2])), points(after))
    assert only(found)[["floor_before", "floor_after"]].tolist() == pytest.approx([0.001, 0.01])
    assert "1 row compares different sampling floors" in shown(found)
    assert "sampling floors" not in shown(compare(points(after), points(after)))


def test_the_summary_is_one_sentence_of_counts() -> None:
    before = [r for n in range(1, 9) for r in group([1.0, 1.1, 1.2, 1.3], steps=n)]
    after = [r for n in range(4, 9) for r in group([1.0, 1.1, 1.2, 1.3], steps=n)]
    after += group([3.01, 3.1, 3.2, 3.3], steps=1) + group([0.101, 0.2, 0.3, 0.4], steps=2)
    after += group([1.3, 1.1, 1.2, 1.0], steps=3) + group([1.0], steps=100)
    assert summary(compare(points(before), points(after))) == (
        "2 of 8 groups moved (1 worse, 1 better) at a family-wise level of 5 %; 1 point appeared"
    )
    same = compare(points(before), points(before))
    assert summary(same) == "0 of 8 groups moved, all are the same to the last bit"
    rate = compare(points(before), points(after), correction="benjamini-hochberg", level=0.1)
    assert "at a false discovery rate of 10 %" in summary(rate)


def test_nothing_in_common_is_said_so() -> None:
    found = compare(points(group([1.0, 1.1])), points(group([1.0, 1.1], dataset="torus")))
    assert summary(found).startswith("nothing to compare")
    assert len(found.points.appeared) == len(found.points.vanished) == 2
    assert len(found.groups) == 0
    assert "2 points appeared" in shown(found)


def test_what_moved_comes_first_then_what_cannot_be_tested_then_the_noise_then_the_rest() -> None:
    before, after = [], []
    for steps, x, y in (
        (1, [1.0, 1.1, 1.2], [1.0, 1.1, 1.2]),
        (2, [1.0, 1.1, 1.2], [1.2, 1.0, 1.2]),
        (3, [1.0], [1.1]),
        (4, [1.0, 1.1, 1.2], [2.0, 2.11, 2.21]),
        (5, [1.0, 1.1, 1.2], [3.0, 3.101, 3.2]),
        (6, [1.0], [1.9]),
    ):
        before += group(x, steps=steps)
        after += group(y, steps=steps)
    found = compare(points(before), points(after)).groups
    assert found["steps"].tolist() == [5, 4, 6, 3, 2, 1]
    assert found["verdict"].tolist() == ["worse", "worse", *["not testable"] * 2, "within noise", "unchanged"]


# promises about order and form


def _world(seed: int = 7) -> tuple[list[Spec], list[Spec]]:
    """Two sides with a bit of everything."""
    draw = np.random.default_rng(seed)
    before, after = [], []
    for steps in range(1, 13):
        for sampler in ("ddim", "heun"):
            for s in range(4):
                x = draw.lognormal(sigma=2.0 if steps > 9 else 0.1)
                version = 2 if steps % 3 == 0 else 1
                before.append(row(s, x, steps=steps, sampler=sampler, ks=x / 2, ks_floor=0.1))
                y = x if steps == 5 else x * draw.lognormal(0.5 if steps == 2 else 0, 0.05)
                after.append(row(s, y, steps=steps, sampler=sampler, version=version, ks=y / 3, ks_floor=0.1))
    for s in (4, 5, 6):
        before.append(row(s, draw.normal() + 5, steps=99))
        after.append(row(s + 3, draw.normal() + 5, steps=99))
    after[5] = failed(1, steps=1, sampler="heun")
    after += [{**row(0, 1.0, steps=100), "point_id": f"twin {k}"} for k in range(5)]
    return before[:-1], after[4:]


def test_the_order_of_points_and_variables_changes_nothing() -> None:
    before, after = _world()
    found = json.dumps(document(compare(points(before), points(after))))
    draw = np.random.default_rng(0)
    first, second = (points([rows[i] for i in draw.permutation(len(rows))]) for rows in (before, after))
    first = first[sorted(map(str, first.data_vars), reverse=True)]
    assert json.dumps(document(compare(first, second))) == found


@pytest.mark.parametrize("by", [("dataset", "steps"), tuple(LABELS), ("sampler",)])
def test_swapping_the_sides_flips_signs_and_verdicts_and_nothing_else(by: tuple[str, ...]) -> None:
    before, after = _world()
    there = compare(points(before), points(after), by=by)
    back = compare(points(after), points(before), by=by)
    assert there.count("worse") + there.count("better") > 0
    expected = there.groups.rename(
        columns={
            **{f"{name}_before": f"{name}_after" for name in ("seeds", "floor")},
            **{f"{name}_after": f"{name}_before" for name in ("seeds", "floor")},
            "before": "after",
            "after": "before",
        }
    )[list(there.groups.columns)]
    expected["verdict"] = expected["verdict"].replace({"worse": "better", "better": "worse"})
    expected["reason"] = expected["reason"].replace({"no value after": "no value before"})
    for name in ("change", "spreads"):
        expected[name] = 0.0 - expected[name]
    exact = [name for name in expected.columns if name != "factor"]
    pd.testing.assert_frame_equal(back.groups[exact], expected[exact], check_exact=True)
    np.testing.assert_allclose(
        back.groups["factor"] * there.groups["factor"], np.where(expected["factor"] > 0, 1, np.nan)
    )
    for name in ("points", "cells"):
        one, other = getattr(there, name), getattr(back, name)
        pd.testing.assert_frame_equal(one.appeared, other.vanished)
        pd.testing.assert_frame_equal(one.vanished, other.appeared)


def test_the_document_is_plain_json_and_the_table_fits_its_width() -> None:
    before, after = _world()
    found = compare(points(before), points(after))
    parsed = json.loads(json.dumps(document(found), allow_nan=False))
    assert parsed["summary"] == summary(found)
    assert len(parsed["groups"]) == len(found.groups) == sum(parsed["verdicts"].values())
    assert parsed["verdicts"]["worse"] == found.count("worse") > 0
    assert len(parsed["points"]["status"]) == 1
    assert len(parsed["points"]["values"]) == len(found.values)
    for width in (80, 120, 200):
        assert max(len(line) for line in shown(found, width).splitlines()) <= width


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ({"metrics": ["w2"]}, "metric 'w2' is unknown; did you mean 'w1'"),
        ({"by": ["sampelr"]}, "did you mean 'sampler'"),
        ({"by": ["seed"]}, "--by 'seed' is unknown"),
        ({"level": 5}, "found 5, expected a number between 0 and 1"),
        ({"level": float("nan")}, "expected a number between 0 and 1"),
        ({"correction": "bonferroni"}, "there are: holm, benjamini-hochberg"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_what_would(
    requested: dict[str, list[str]] | dict[str, int] | dict[str, float] | dict[str, str], message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        compare(points(group([1.0])), points(group([1.0])), **requested)


def test_a_dataset_that_is_not_one_of_points_is_refused() -> None:
    with pytest.raises(QueryError, match="the dataset after has no dataset, formulation"):
        compare(points(group([1.0])), xr.Dataset({"w1": ("x", [1.0])}))


_value = st.one_of(
    st.sampled_from([0.0, 1.0, 1.5, -1.0, np.nan, np.inf, 5e-324, 1e308, -1e308]), st.floats(width=32), st.floats()
)
_row = st.builds(
    lambda seed, w1, version, steps, sampler, state, more: (
        row(seed, w1, version=version, steps=steps, sampler=sampler, **more)
        if state == "ok"
        else failed(seed, "", state, version=version, steps=steps, sampler=sampler)
    ),
    st.integers(0, 4),
    _value,
    st.integers(1, 2),
    st.sampled_from([1, 2, 10]),
    st.sampled_from(["heun", "ddim(eta=0.5)"]),
    st.sampled_from(["ok", "ok", "ok", "failed", "skipped"]),
    st.one_of(st.just({}), st.fixed_dictionaries({"ks": _value, "ks_floor": _value})),
)
_rows = st.lists(_row, max_size=25, unique_by=lambda r: r["point_id"])


@settings(max_examples=100, deadline=None)
@given(
    _rows, _rows, st.lists(st.sampled_from(list(LABELS)), max_size=3), st.sampled_from(["holm", "benjamini-hochberg"])
)
def test_no_points_however_ragged_raise_or_lose_a_change(
    before: list[Spec], after: list[Spec], by: list[str], correction: str
) -> None:
    found = compare(points(before), points(after), by=by, correction=correction)
    json.dumps(document(found), allow_nan=False)
    assert shown(found)
    assert summary(found)
    listed, there = found.points, {r["point_id"] for r in before}
    assert len(listed.appeared) - len(listed.vanished) == len(after) - len(before)
    assert {r["point_id"] for r in after} - there >= set(listed.appeared["point_id"])
    tested = found.groups["verdict"].isin(["worse", "better", "within noise"])
    assert (tested == found.groups["p"].notna()).all()
    assert (found.groups.loc[found.groups["verdict"] == "unchanged", "change"] == 0).all()
    moved = found.values["change"].notna() & (found.values["change"] != 0)
    assert not moved.any() or (found.groups["verdict"] != "unchanged").any()


# through a real store


def stored(r: Spec) -> Spec:
    ids = {name: hashlib.sha256(r[name].encode()).hexdigest()[:20] for name in ("point_id", "cell_id")}
    return {
        **r,
        **ids,
        "spec": "{}",
        "start": "random",
        "dim": 1,
        "samples": 100,
        "sample_row": -1,
        "trajectory_row": -1,
    }


def test_two_snapshots_of_a_store_are_compared(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    store = Store.create(uri)
    first = [*group([1.0, 1.1, 1.2]), *group([0.5, 0.6, 0.7], steps=20), failed(0, steps=5), row(0, steps=2)]
    later = [*group([2.0, 2.11, 2.2]), row(0, 3.0, steps=5), failed(0, steps=2), *group([0.1], sampler="ddim")]
    with store.coordinate() as coordinator:
        march = coordinator.commit(Rows(points=[stored(r) for r in first]), "in March", {"torch": "2.12"})
        coordinator.commit(Rows(points=[stored(r) for r in later]), "since", {"torch": "2.13"})
    found = compare(open_results(uri, as_of=march), open_results(uri))
    assert summary(found) == (
        "1 of 4 groups moved (1 worse) at a family-wise level of 5 %; 1 point appeared; "
        "1 failed that was ok; 1 ok that was failed"
    )
    result = found.groups.set_index("steps")
    assert result["verdict"].to_dict() == {
        10: "worse",
        5: "not testable",
        2: "not testable",
        20: "unchanged",
    }
    assert found.provenance[0]["snapshot"] == march
    assert "torch 2.12 -> 2.13" in shown(found)
    same = compare(open_results(uri, as_of=march), open_results(uri, as_of=march))
    assert same.count("unchanged") == len(same.groups) == 3


# what a message says


def test_a_message_names_what_is_sure_first_and_counts_what_has_no_room() -> None:
    before = [*group([1.0, 1.1, 0.9], steps=2), *group([0.5], steps=5), *group([1.0, 2.0, 3.0], steps=10)]
    after = [*group([9.1, 9.9, 8.9], steps=2), *group([0.7], steps=5), *group([1.1, 1.9, 3.0], steps=10)]
    found = moves(compare(points(before), points(after)))
    assert [row["at"]["steps"] for row in found["moved"]] == [2, 5]  # the third is within the noise
    sure, unsure = found["moved"]
    assert (sure["metric"], sure["verdict"], sure["old"], sure["seeds_after"]) == (
        "w1",
        "worse",
        pytest.approx(0.9967, abs=1e-4),
        3,
    )
    assert sure["p_corrected"] < 0.05
    assert (unsure["verdict"], unsure["p_corrected"], unsure["reason"]) == ("not testable", None, "one seed")
    assert (found["worse"], found["better"], found["untested"], found["more"]) == (1, 0, 1, 0)
    assert "w1 of uniform edm edm heun edm 5: 0.5 -> 0.7 (not testable: one seed)" in found["text"]
    assert json.loads(json.dumps(found)) == found
    short = moves(compare(points(before), points(after)), most=1)
    assert (len(short["moved"]), short["more"]) == (1, 1)
    assert short["text"].endswith("and 1 more")


def test_nothing_is_said_to_have_moved_because_points_came_went_or_failed() -> None:
    before = [*group([1.0, 1.1], steps=2), *group([0.5], steps=5), row(0, 3.0, steps=7)]
    after = [*group([1.0, 1.1, 7.0], steps=2), *group([0.5, 9.0], steps=5), failed(0, steps=7), row(0, 4.0, steps=9)]
    assert moves(compare(points(before), points(after)))["moved"] == []
