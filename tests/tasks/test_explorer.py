"""What the explorer shows are the numbers of `diffatlas query`: the copied command prints them, and
so does the copied Python.
"""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from flows.command_line import app
from tasks.explorer.columns import choices
from tasks.explorer.comparing import compare_rows, moved
from tasks.explorer.copies import condition
from tasks.explorer.details import point, points_behind
from tasks.explorer.look import BANDS, CENTRES, Look, read
from tasks.explorer.now import now
from tasks.explorer.opened import OpenedStore
from tasks.explorer.parts import labels_in, remarks, table
from tasks.explorer.views import view
from tasks.plain import Spec
from tasks.query import QueryError, pareto, pooled, query
from tasks.query.records import chosen
from tasks.results.live import Live, tell
from tasks.results.status import status_of
from tasks.results.stored import coordinate
from tasks.statistics.decision import by_seed, decided
from tasks.store import NotStored, Store, WrongReference
from tasks.texts import Texts, decoded
from tasks.where.columns import PointColumns, of_frame, of_points
from tests.tasks.tiny_store import SPEC, answer

BASE = "formulation == 'exact' and schedule == 'edm' and sampler == 'heun'"
QUESTIONS = {
    "curves": Look(),
    "curves of one sampler": Look(where="sampler == 'heun' or steps < 2", by=("formulation", "sampler")),
    "every seed": Look(each=True),
    "every statistic": Look(statistic="median", band="ci95", metric="ks"),
    "no band, by a column of texts": Look(x="sampler", band="none", by=("formulation",)),
    "beside a baseline": Look(baseline=BASE, by=("formulation", "schedule", "sampler")),
    "a heat map": Look(view="heat", y="sampler"),
    "cost and quality": Look(view="scatter", x="nfe"),
    "two metrics": Look(view="scatter", x="ks"),
    "every point": Look(view="scatter", x="sample_seconds", each=True),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> OpenedStore:
    uri = str(tmp_path_factory.mktemp("explorer") / "store")
    answer(uri, SPEC | {"formulations": ["edm", "vp"]})
    return OpenedStore(uri)


def printed(command: str, capsys: pytest.CaptureFixture[str]) -> list[Spec]:
    """The records that a copied command prints."""
    capsys.readouterr()
    words = shlex.split(command)
    assert words[:2] == ["diffatlas", "query"]
    assert not app([*words[1:], "--format", "json"], standalone_mode=False)
    found: list[Spec] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_copied_command_prints_the_numbers_of_its_view(
    name: str, store: OpenedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    question = QUESTIONS[name]
    shown = view(store.points(), question)
    records = printed(shown["asked"][0]["command"], capsys)
    records = [record for record in records if record.get("status", "ok") == "ok"]
    columns = shown["table"]["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in shown["table"]["rows"]]
    assert len(rows) == len(records) == shown["table"]["total"] > 0
    for row, record in zip(rows, records, strict=True):
        assert {key: row[key] for key in row if key not in ("baseline", "ratio")}.items() <= record.items()
    drawn = sorted(value for value in values_of(shown) if value is not None)
    wanted = "ratio" if question.baseline else "w1" if question.each and question.view == "scatter" else None
    column = wanted or f"{shown['metric']}_{question.statistic}"
    assert drawn == sorted(row[column] for row in rows if row[column] is not None)


def values_of(shown: Spec) -> list[float | None]:
    """What is drawn."""
    if shown["view"] == "heat":
        return [cell["value"] for row in shown["cells"] for cell in row if cell]
    return [value for series in shown["series"] for value in series["y"]]


@pytest.mark.parametrize("name", QUESTIONS)
def test_copied_python_gives_the_numbers_of_its_view(name: str, store: OpenedStore) -> None:
    shown = view(store.points(), QUESTIONS[name])
    names: dict[str, Any] = {}
    exec(shown["asked"][0]["python"], names)  # noqa: S102 - what a reader would run
    frame = names["frame"]
    frame = frame[frame["status"] == "ok"] if "status" in frame else frame
    for at, column in enumerate(shown["table"]["columns"]):
        if column in frame:
            given = [row[at] for row in shown["table"]["rows"]]
            assert [v for v in frame[column].tolist() if v == v] == [v for v in given if v is not None]


def test_a_ratio_is_the_value_over_that_of_the_baseline_at_the_same_place(
    store: OpenedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = view(store.points(), QUESTIONS["beside a baseline"])
    base = {row["steps"]: row["w1_mean"] for row in printed(shown["asked"][1]["command"], capsys)}
    columns = shown["table"]["columns"]
    for values in shown["table"]["rows"]:
        row = dict(zip(columns, values, strict=True))
        assert row["ratio"] == row["w1_mean"] / base[row["steps"]]
    (own,) = [series for series in shown["series"] if series["condition"] == BASE]
    assert own["y"] == [1.0] * 2


def test_without_its_baseline_a_picture_says_so_and_calls_nothing_a_ratio(store: OpenedStore) -> None:
    pinned = replace(QUESTIONS["beside a baseline"], where="formulation == 'vp'")
    shown, alone = view(store.points(), pinned), view(store.points(), replace(pinned, baseline=""))
    assert shown["notes"] == [*alone["notes"], f"the baseline ({BASE}) has no point among these: no ratios are drawn"]
    assert {**shown, "notes": []} == {**alone, "notes": []}
    assert (shown["ratio"], shown["y"]["name"]) == (False, "w1, mean")
    assert view(store.points(), QUESTIONS["beside a baseline"])["ratio"] is True


def test_a_band_is_of_a_mean_alone_and_of_a_ratio_without_the_error_of_the_baseline(store: OpenedStore) -> None:
    beside = QUESTIONS["beside a baseline"]
    note = "the band of a ratio leaves out the baseline's own error"
    for statistic in CENTRES:
        shown = view(store.points(), replace(beside, statistic=statistic))
        assert {series["band"] is not None for series in shown["series"]} == {statistic == "mean"}
        assert ("w1_sem" in shown["table"]["columns"]) == (note in shown["notes"]) == (statistic == "mean")
    assert note not in view(store.points(), replace(beside, band="none"))["notes"]
    assert note not in view(store.points(), replace(beside, baseline=""))["notes"]


def test_markers_that_are_not_drawn_are_counted_and_every_series_has_some() -> None:
    shown = view(many_points(10_000), Look(view="scatter", x="nfe", each=True, by=("formulation", "dataset")))
    lengths = [len(series["x"]) for series in shown["series"]]
    assert (min(lengths), sum(lengths)) == (1333, 4000)
    assert "4,000 of 10,000 markers are drawn: narrow them by a filter" in shown["notes"]
    few = view(many_points(10_000), Look(view="scatter", x="nfe", each=True, by=("formulation",), where="seed < 2"))
    assert sum(len(series["x"]) for series in few["series"]) == 1000
    assert not [note for note in few["notes"] if "markers" in note]


def test_what_a_short_series_leaves_of_the_markers_the_longer_ones_have() -> None:
    where = "formulation != 'edm' or steps == 1"
    shown = view(many_points(10_000), Look(view="scatter", x="nfe", each=True, by=("formulation",), where=where))
    lengths = {series["label"]: len(series["x"]) for series in shown["series"]}
    assert lengths == {"edm": 200, "exact": 1900, "iddpm": 1900}
    exact = next(series for series in shown["series"] if series["label"] == "exact")
    assert {float(x) for x in exact["x"]} == {2.0 * steps for steps in range(1, 101, 5)}  # of all its length


@pytest.mark.parametrize(("count", "words"), [(1, "1 point failed and has no value"), (2, "2 points failed and have")])
def test_failed_points_are_counted_in_words_that_agree(count: int, words: str) -> None:
    points = xr.Dataset(coords={"status": ("point", ["failed"] * count + ["ok"])})
    assert remarks(of_points(points), "", ())[0].startswith(words)


@pytest.mark.parametrize(("sampled", "only", "shown"), [("edm", True, False), ("vp", True, True), ("edm", False, True)])
def test_a_column_that_repeats_the_schedule_is_shown_where_it_says_something(
    sampled: str, only: bool, shown: bool
) -> None:
    frame = pd.DataFrame({"schedule": ["edm", "vp"], "sampling_schedule": [sampled, "vp"], "w1_mean": [0.1, 0.2]})
    labels = labels_in(frame, ["schedule", "sampling_schedule"])
    found = table(frame, labels, {}, only=only)
    assert ("sampling_schedule" in found["columns"]) == ("sampling_schedule" in found["labels"]) == shown
    assert all("sampling_schedule" in condition for condition in found["conditions"])  # which a click asks for
    assert len(found["rows"][0]) == len(found["columns"])


def test_the_front_is_that_of_query(store: OpenedStore, capsys: pytest.CaptureFixture[str]) -> None:
    shown = view(store.points(), QUESTIONS["cost and quality"])
    records = printed(shown["asked"][1]["command"], capsys)
    (front,) = shown["fronts"]
    assert list(zip(front["x"], front["y"], strict=True)) == [(row["nfe"], row["w1_mean"]) for row in records]


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_condition_of_a_marker_is_satisfied_by_its_points_alone(name: str, store: OpenedStore) -> None:
    points = store.points()
    shown = view(points, QUESTIONS[name])
    for text, row in zip(shown["table"]["conditions"], shown["table"]["rows"], strict=True):
        found = chosen(points, text)
        record = dict(zip(shown["table"]["columns"], row, strict=True))
        count = record.get(f"{shown['metric']}_count", 1)
        assert found.size == count
        for label in shown["table"]["labels"]:
            assert set(found[label].tolist()) == {record[label]}


@pytest.mark.parametrize("value", ["it's", 'a "b" \\ c', "", 7, 0.1, -1e-300, math.inf, -math.inf, math.nan])
def test_a_condition_says_any_value_in_the_language(value: Any) -> None:
    from tasks.where.conditions import satisfied

    others = ["x"] if isinstance(value, str) else [1.5]
    columns = of_frame(pd.DataFrame({"odd name(a=1)": [value, *others]}))
    assert satisfied(condition([("odd name(a=1)", value)]), columns, 2).tolist() == [True, False]


def test_an_address_says_a_question_and_the_other_way_round() -> None:
    question = Look(
        "s", "tag", None, "heat", "ks", "seed", "sampler", "steps < 3", ("formulation", "f(a=1,b=2)"), "max", "none",
        each=True, only=False, baseline=BASE, ticked=("seed == 1", "seed == 2"),
    )  # fmt: skip
    given = {name: value if isinstance(value, list) else [value] for name, value in question.value().items()}
    assert read(given) == question
    assert read({}) == Look()
    assert Look().value() == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"where": "smapler == 'heun'"}, "no column 'smapler'; did you mean 'sampler'?"),
        ({"where": "steps = 3"}, "write '=='"),
        ({"metric": "w2"}, "metric 'w2' is unknown; did you mean 'w1'?"),
        ({"by": "sampler,colour"}, "--by 'colour' is unknown"),
        ({"x": "step"}, "axis 'step' is unknown; did you mean 'steps'?"),
        ({"view": "pie"}, "view 'pie' is unknown"),
        ({"stat": "mode"}, "stat 'mode' is unknown"),
        ({"band": "range"}, "band 'range' is unknown"),
        ({"wher": "x"}, "parameter 'wher' is unknown; did you mean 'where'?"),
        ({"view": "heat", "y": "steps"}, "two different axes"),
        ({"view": "scatter", "x": "w1"}, "two different axes"),
        ({"view": "scatter", "x": "seed"}, "--pareto 'seed' is unknown"),
        ({"where": "w1 > 0 " * 2000}, "longer than 10000 characters"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_sentence(given: dict[str, str], words: str, store: OpenedStore) -> None:
    with pytest.raises(QueryError) as refusal:
        view(store.points(), read({name: [value] for name, value in given.items()}))
    assert words in str(refusal.value)


def test_what_matches_nothing_is_an_empty_view(store: OpenedStore) -> None:
    for kind in ("curves", "heat", "scatter"):
        shown = view(store.points(), Look(view=kind, x="nfe", where="steps > 100"))
        assert shown["table"]["total"] == 0
        json.dumps(shown, allow_nan=False)


def test_what_can_be_chosen_are_the_columns_with_their_values(store: OpenedStore) -> None:
    offered = choices(store, Look())
    assert (offered["studies"], offered["size"]) == (["tiny"], store.points().size)
    columns = {column["name"]: column for column in offered["columns"]}
    assert columns["steps"]["values"] == [1, 3]
    assert columns["formulation"]["values"] == ["edm", "exact", "vp"]
    points = store.points()
    for column in columns.values():
        for text, value in zip(column["conditions"], column["values"], strict=True):
            assert set(chosen(points, text)[column["name"]].tolist()) == {value}
    assert set(offered["statistics"]) == set(CENTRES)
    assert set(offered["bands"]) == set(BANDS)
    assert offered["first"] == {}


def test_a_store_of_several_studies_is_opened_at_one_of_them() -> None:
    """Models of the same labels may have been trained otherwise for another study, and their mean is
    that of nothing.
    """
    shipped = OpenedStore("atlas:")
    offered = choices(shipped, Look())
    assert len(offered["studies"]) > 1
    assert offered["first"]["study"] == offered["studies"][0]
    begun = read({name: [value] if isinstance(value, str) else value for name, value in offered["first"].items()})
    assert view(shipped.points(begun.study), begun)["table"]["total"] > 0
    assert choices(shipped, begun)["first"]["study"] == begun.study


def test_a_snapshot_is_read_once(store: OpenedStore) -> None:
    assert store.points() is store.points()
    assert store.points() is store.points(as_of=store.snapshot())
    decoded = store.points()["w1"]
    view(store.points(), Look())
    assert store.points()["w1"] is decoded
    assert np.isfinite(decoded).all()


def test_nothing_of_a_store_is_written(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    answer(uri, SPEC | {"samplers": ["euler"], "steps": [1]})
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    opened = OpenedStore(uri)
    choices(opened, Look())
    view(opened.points(), Look())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_behind_a_marker_are_its_points_and_behind_a_point_is_what_the_store_keeps(store: OpenedStore) -> None:
    points = store.points()
    marker = view(points, Look())["series"][0]["conditions"][1]
    behind = points_behind(points, Look(), marker)
    rows = chosen(points, marker)
    assert behind["ids"] == rows["point_id"].tolist()
    assert [row[0] for row in behind["rows"]] == rows["seed"].tolist() == [0, 1]
    for point_id in behind["ids"]:
        answers = store.answers()
        found = point(store, Look(), point_id)
        samples = answers.samples(point_id)
        assert samples is not None
        assert found["samples"]["count"] == samples.sizes["sample"] == 400
        assert found["samples"]["columns"][0] == pytest.approx(samples.values[:, 0].tolist(), rel=1e-4)
        assert found["spec"]["sampler"]["name"] == found["labels"]["sampler"]
        assert found["cell"] == answers.cell_specs[found["labels"]["cell_id"]]
        assert found["provenance"]["snapshot"] == store.snapshot()
        assert {one["name"]: one["value"] for one in found["metrics"]} == {
            name: float(points[name][points["point_id"] == point_id][0]) for name in ("ks", "w1")
        }
        json.dumps(found, allow_nan=False)


def test_a_trajectory_and_the_losses_of_its_cell_come_with_a_point_that_has_them(store: OpenedStore) -> None:
    points = store.points()
    kept = chosen(points, "sampler == 'heun' and steps == 3 and formulation == 'edm' and seed == 1")
    found = point(store, Look(), str(kept["point_id"][0]))
    path = store.answers().trajectory(found["id"])
    assert path is not None
    assert found["trajectory"]["levels"] == path.sizes["level"] == 4
    assert found["trajectory"]["paths"][5][0] == pytest.approx(path.values[:, 5, 0].tolist(), rel=1e-4)
    assert found["losses"]["x"][-1] == 10
    exact = chosen(points, "sampler == 'euler' and steps == 3 and formulation == 'exact'")
    without = point(store, Look(), str(exact["point_id"][0]))
    assert (without["trajectory"], without["losses"]) == (None, None)
    with pytest.raises(NotStored):
        point(store, Look(), "0" * 20)


def test_ticked_rows_are_told_apart_by_the_one_rule_and_their_settings_beside_each_other(store: OpenedStore) -> None:
    common = "formulation == 'edm' and seed >= 0 and "
    ticked = (common + "sampler == 'heun' and steps == 3", common + "sampler == 'euler' and steps == 1")
    found = compare_rows(store, Look(where="dataset == 'uniform'", ticked=ticked))
    values = np.array([chosen(store.points(), row)["w1"] for row in ticked])
    rule = decided(by_seed(values[:1], values[1:]))
    assert found["tests"][0]["p_corrected"] == rule.p[0]
    assert found["tests"][0]["change"] == pytest.approx(float((values[1] - values[0]).mean()))
    settings = {one["name"]: one["values"] for one in found["settings"]}
    assert settings["sampler.name"] == ["heun", "euler"]
    assert settings["steps"] == ["3", "1"]
    assert "cell.seed" not in settings
    assert found["notes"] == []
    pooled = compare_rows(store, Look(ticked=(ticked[0], "formulation == 'vp'")))
    assert "row 2 pools 4 configurations" in pooled["notes"][0]
    many = tuple(f"seed == {seed} or steps == 3" for seed in range(10))
    more = compare_rows(store, Look(ticked=read({"tick": many}).ticked))
    assert (len(more["rows"]), more["notes"][0]) == (8, "the first 8 of 10 ticked rows are compared: untick some")
    for wrong, words in ((ticked[:1], "tick two rows"), ((ticked[0], "steps == 7"), "no answered point")):
        with pytest.raises(QueryError, match=words):
            compare_rows(store, Look(ticked=wrong))


def test_what_moved_is_what_diff_says(store: OpenedStore, capsys: pytest.CaptureFixture[str]) -> None:
    first = store.history()[-3]["snapshot"]
    shown = moved(store, Look(view="moved", before=first, by=("formulation", "sampler")))
    capsys.readouterr()
    words = shlex.split(shown["asked"][0]["command"])
    assert not app([*words[1:], "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["summary"] == shown["summary"]
    assert [group["after"] for group in told["groups"]] == shown["groups"]["after"]
    assert shown["after"]["snapshot"] == store.snapshot()
    assert moved(store, Look(view="moved"))["before"]["snapshot"] == store.history()[1]["snapshot"]
    with pytest.raises(WrongReference):
        moved(store, Look(view="moved", before="never"))


def test_what_moved_of_all_points_is_one_row_whose_command_can_be_run(
    store: OpenedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = moved(store, Look(view="moved", by=()))
    assert (shown["groups"]["label"], shown["groups"]["conditions"]) == (["all points"], [""])
    assert (len(shown["table"]["rows"]), shown["table"]["conditions"]) == (1, [""])
    (asked,) = shown["asked"]
    capsys.readouterr()
    assert not app([*shlex.split(asked["command"])[1:], "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert [group["after"] for group in told["groups"]] == shown["groups"]["after"]
    assert told["summary"] == shown["summary"]
    assert not app(shlex.split(asked["command"])[1:], standalone_mode=False)  # the table, which names no group
    assert shown["metric"] in capsys.readouterr().out
    exec(asked["python"], {})  # noqa: S102 - what a reader would run
    assert capsys.readouterr().out.strip() == shown["summary"]


def test_a_run_is_as_far_as_status_says(store: OpenedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFATLAS_HOME", str(tmp_path))
    assert now(store) == {"snapshot": store.snapshot(), "running": False}
    with coordinate(Store.open(store.uri)):
        assert now(store) == {"snapshot": store.snapshot(), "running": True, "missing": 0}
        status = status_of(store.uri)
        assert status.holder is not None
        tell(status.holder.token, Live("tiny", 4, 1, 20, 5, 0, (), 61.0, 0.0))
        assert now(store)["shards_done"] == 1
        assert now(store)["seconds_left"] == 61.0
    assert not now(store)["running"]


@pytest.mark.parametrize(
    ("look", "times"),
    [
        (Look(), 3),
        (Look(where="steps <= 50", each=True), 3),
        (Look(view="scatter", x="nfe"), 3),
        (Look(view="scatter", x="nfe", each=True), 2),  # beside its front alone
    ],
    ids=["curves", "every seed", "scatter", "scatter of all points"],
)
def test_a_hundred_thousand_points_take_little_more_than_the_question_itself(look: Look, times: float) -> None:
    """In processor time, alternately in this process: a view is its question, what is said beside
    it, and a picture that stays small.
    """
    points = many_points(100_000)
    configuration = ("dataset", "formulation", "schedule", "sampler", "grid", "steps")

    def alone() -> None:
        pooled(points, look.where or None)
        if look.view == "scatter":
            if not look.each:
                pareto(points, ("w1", "nfe"), configuration)
            pareto(points, ("w1", "nfe"), ("dataset",))
        else:
            by = (*configuration, "seed") if look.each else configuration
            query(points, look.where or None, by, ["w1"], ("mean", "sem", "count"))

    def seconds(work: Callable[[], object]) -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    assert len(json.dumps(view(points, look))) < 1_000_000
    alone()
    pairs = [(seconds(lambda: view(points, look)), seconds(alone)) for _ in range(3)]
    assert min(shown / asked for shown, asked in pairs) < times, pairs


def many_points(count: int) -> PointColumns:
    """Columns of so many points with numbers from a fixed stream, as a store of them has."""
    axes: dict[str, list[Any]] = {
        "dataset": [f"d{i}" for i in range(5)],
        "formulation": ["edm", "exact", "iddpm", "ve", "vp"],
        "sampler": [f"ddim(eta={i / 10})" for i in range(10)],
        "steps": list(range(1, 101, 5)),
        "seed": list(range(20)),
    }
    sizes = [len(values) for values in axes.values()]
    places = np.unravel_index(np.arange(count), sizes)
    coded: dict[str, Any] = {}
    for (name, values), at in zip(axes.items(), places, strict=True):
        array = np.array(values)
        coded[name] = Texts(at.astype(np.int32), array.astype(str)) if array.dtype.kind == "U" else array[at]
    for name, word in (("schedule", "edm"), ("grid", "edm"), ("status", "ok"), ("error", "")):
        coded[name] = Texts(np.zeros(count, dtype=np.int32), np.array([word]))
    ids = np.array([f"{i:020d}" for i in range(count)], dtype="S20")
    coded |= {"point_id": ids, "cell_id": ids, "nfe": coded["steps"] * 2}
    numbers = {name: np.random.default_rng(0).lognormal(size=count) for name in ("w1", "w1_floor")}
    columns = coded | numbers
    attrs = {"store": "s", "snapshot": "A", "time": "", "study": ""}
    return PointColumns(
        list(coded),
        list(numbers),
        count,
        lambda name: decoded(columns[name]),
        {},
        attrs,
        columns.__getitem__,
    )
