"""A run foretold: against sums and bounds that are known in advance, and against what a real run has
committed.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from flows.scale import TOLD_SECONDS, WAITING_FOR_EACH, Costs, Load, follow, predict, predicted
from tasks.plan import make_plan
from tasks.plan.shards import COORDINATOR_SECONDS, SHARD_SECONDS, aimed_at
from tasks.study import load_study
from tests.benchmarks import foretold

COSTS = Costs()
NONE = Costs(*[0.0] * 13)


def test_one_shard_takes_the_sum_of_its_parts() -> None:
    load, c = Load(5.0, 3.0, 4, 40), COSTS
    line = follow([load], 1, c)
    swept = c.hand_over + c.worker + load.train + c.told + c.hand_over + c.worker + load.sweep
    # its commit of the training goes on while it is swept; the server is told of that commit meanwhile
    assert line.seconds == pytest.approx(swept + c.told + c.commit + 40 * c.commit_point)
    assert line.work == pytest.approx(8.0 + 2 * c.worker)
    assert line.coordinator == pytest.approx(2 * c.hand_over + 2 * c.commit + 4 * c.commit_cell + 40 * c.commit_point)
    assert line.server == pytest.approx(2 * c.told + 2 * c.told_commit)


@pytest.mark.parametrize(("shards", "workers"), [(12, 1), (12, 4), (13, 4), (3, 8)])
def test_without_costs_equal_shards_take_their_rounds(shards: int, workers: int) -> None:
    line = follow([Load(0.0, 7.0, 0, 5)] * shards, workers, NONE)
    assert line.seconds == pytest.approx(7.0 * math.ceil(shards / workers))
    assert line.busy == pytest.approx(shards / (workers * math.ceil(shards / workers)))


def test_any_shards_end_within_the_bounds_of_list_scheduling() -> None:
    loads = [Load(3.0 + i % 5, 1.0 + i % 7, 2, 9) for i in range(200)]
    total, longest = sum(x.train + x.sweep for x in loads), max(x.train + x.sweep for x in loads)
    for workers in (1, 3, 16, 64):
        line = follow(loads, workers, NONE)
        # Graham's bound for chains handed out in order, R. L. Graham, 1969, theorem 1
        assert total / workers - 1e-9 <= line.seconds <= total / workers + longest
        assert line.most_waiting <= WAITING_FOR_EACH * workers
        ends = {(one.stage, one.shard): one.seconds for one in line.commits}
        assert len(ends) == len(line.commits) == 2 * len(loads)
        assert all(ends["train", i] <= ends["sweep", i] for i in range(len(loads)))


def test_what_serves_in_turn_bounds_the_run() -> None:
    loads = [Load(0.0, 0.5, 0, 10)] * 2_000
    line = follow(loads, 500, COSTS)
    assert line.coordinator <= line.seconds <= 1.02 * line.coordinator + 2.0
    slow = follow(loads, 500, replace(NONE, told=0.3))
    # workers wait for a server that is behind for a while, and then go on without
    assert slow.seconds == pytest.approx((0.5 + TOLD_SECONDS) * 4, rel=0.05)
    assert slow.server == pytest.approx(600.0)


@pytest.mark.parametrize(
    ("loads", "workers", "costs", "limit"),
    [
        ([Load(20.0, 10.0, 3, 30)] * 1_200, 20, COSTS, "workers"),
        ([Load(20.0, 10.0, 3, 30)] * 1_200, 1_000, COSTS, "coordinator"),
        ([Load(0.0, 1.0, 0, 30)] * 2_000, 20, replace(NONE, told=0.08), "server"),
        ([Load(0.0, 500.0, 0, 30), *[Load(0.0, 1.0, 0, 30)] * 50], 20, COSTS, "longest shard"),
    ],
)
def test_the_limit_is_what_limits(loads: list[Load], workers: int, costs: Costs, limit: str) -> None:
    found = predicted(loads, workers, costs)
    assert found.limit == limit
    assert all(seconds >= 0.49 * found.seconds for seconds in found.changed.values())


def test_shards_grow_with_the_workers_as_far_as_one_coordinator_needs_it() -> None:
    for workers in (1, 2, 16, 64, 85):
        assert aimed_at(1e6, workers) == SHARD_SECONDS
    assert aimed_at(60.0, 4) == 15.0
    assert aimed_at(1e7, 1_000) == COORDINATOR_SECONDS * 1_000

    def seconds(cells: int, target: float) -> float:
        each = max(round(target / 6.6), 1)
        return follow([Load(6.0 * each, 0.6 * each, each, 12 * each)] * math.ceil(cells / each), 1_000, COSTS).seconds

    for cells, times in ((1_000, 2.0), (10_000, 1.5), (40_000, 2.5)):
        before = min(SHARD_SECONDS, 6.6 * cells / 1_000)
        assert seconds(cells, aimed_at(6.6 * cells, 1_000)) < seconds(cells, before) / times


def test_a_plan_says_how_long_it_takes_on_so_many_workers(tmp_path: Path) -> None:
    def said(*more: str) -> str:
        result = CliRunner().invoke(app, ["plan", "smoke", "--store", str(tmp_path / "none"), "--on", "50", *more])
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())

    values = json.loads(said("--json"))["on"]
    assert values["workers"] == 50
    assert values["limit"] in values["seconds_if_half"]
    assert min(values["seconds_if_half"].values()) < values["seconds"]
    text = said()
    assert f"on 50 workers: about 0:{round(values['seconds']):02d}" in text
    assert "limited by the start of Prefect's server and of Ray" in text


@pytest.mark.parametrize(
    ("named", "starts", "before"),
    [
        ((), ["server", "ray"], 15.0),
        (("PREFECT_API_URL",), ["ray"], 5.0),
        (("RAY_ADDRESS",), ["server"], 10.0),
        (("PREFECT_API_URL", "RAY_ADDRESS"), [], 0.0),
        (("RAY_ADDRESS=local",), ["server", "ray"], 15.0),
    ],
)
def test_what_runs_already_is_not_counted(
    named: tuple[str, ...], starts: list[str], before: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PREFECT_API_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name in named:
        variable, _, value = name.partition("=")
        monkeypatch.setenv(variable, value or "http://127.0.0.1:9/api")  # which nobody asks
    asked = ["plan", "smoke", "--store", str(tmp_path / "none"), "--on", "50"]
    values = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)["on"]
    assert values["starts"] == starts
    assert values["before_the_first_shard"] == pytest.approx(before, abs=0.1)  # and planning
    if starts == ["ray"]:
        assert "limited by the start of Ray: " in " ".join(CliRunner().invoke(app, asked).stdout.split())


def test_the_table_of_the_guide_is_what_is_foretold() -> None:
    """As far as that is a matter of a second; `python -m tests.benchmarks.foretold` makes all of it."""
    guide = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    lines = [
        [part.strip() for part in line.strip("| ").split("|")] for line in guide.splitlines() if line.startswith("|")
    ]
    begin = lines.index(list(foretold.HEADINGS))
    table = lines[begin + 2 : begin + 2 + len(foretold.CELLS)]
    assert [line[0] for line in table] == [f"{cells:,}" for cells in foretold.CELLS]
    assert [line[-1] for line in table] == [f"{foretold.memory(cells) / 1e9:.1f} GB" for cells in foretold.CELLS]
    for line, cells in zip(table[:2], foretold.CELLS, strict=False):
        assert line == foretold.row(cells)
    assert table[2][4] == f"{foretold.seconds(100_000, 1_000):,.0f}"


def test_what_the_guide_says_of_the_limits_follows_from_the_costs() -> None:
    guide = " ".join((Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8").split())
    coordinator, server = 2 * (COSTS.hand_over + COSTS.commit), 2 * (COSTS.told + COSTS.told_commit)
    assert f"It needs {coordinator:.2f} s for a shard of two task runs" in guide
    assert f"busy all the time from {SHARD_SECONDS / coordinator:.0f} workers on" in guide
    assert (
        f"more than {math.floor(SHARD_SECONDS / COORDINATOR_SECONDS)} workers, {COORDINATOR_SECONDS} s for each"
        in guide
    )
    assert f"does {server:.2f} s of work for a shard" in guide
    shards = foretold.loads(1_000, 1_000)
    assert f"1,000 cells on 1,000 workers are {len(shards)} shards of seven cells" in guide
    assert {load.cells for load in shards[:-1]} == {7}


def test_a_finished_plan_takes_nothing() -> None:
    study = load_study("smoke")
    plan = make_plan(study, {}, ())
    assert predict(replace(plan, jobs=()), 3) is None
