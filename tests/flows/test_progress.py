"""What a person at the terminal is told while a run works."""

from __future__ import annotations

import re
import time
from io import StringIO

import pytest
from rich.console import Console

from flows.board import Board
from flows.events import (
    Event,
    Hindered,
    MetricNotMeasured,
    PointsFailed,
    Progressed,
    Running,
    ShardDone,
    ShardSwept,
    ShardTrained,
    Started,
    Swept,
    failures,
)
from flows.progress import Display
from flows.rows_so_far import RowsSoFar
from tasks.plan import Plan, Point, Shard, make_plan
from tasks.query.tables import brief, row_name
from tasks.study import Study
from tasks.work import (
    PointAnswer,
    Requests,
    SweepAnswer,
    data_key,
    lost_sweep,
    lost_training,
    sweep_shard,
    train_shard,
    training_set,
)
from tests.tasks.in_one_process import run_shard
from tests.tasks.tiny_store import SPEC


@pytest.fixture
def plan() -> Plan:
    return make_plan(Study.from_spec(SPEC), {}, ())


def trained_and_exact(plan: Plan) -> tuple[Shard, Shard]:
    first, second = plan.shards(1)
    return (first, second) if first.trained else (second, first)


def test_a_task_run_that_starts_again_counts_from_nothing() -> None:
    board = Board()
    board.begin(("train", 0))
    board.add(("train", 0), 5.0, 1, 10)
    board.add(("sweep", 0), 1.0, 0, 2)
    board.begin(("train", 0))
    board.add(("train", 0), 2.0, 0, 4)
    found = board.read().totals
    counted = {run: (total.whole, total.work, total.cells, total.points) for run, total in found.items()}
    assert counted == {("train", 0): (True, 2.0, 0, 4), ("sweep", 0): (False, 1.0, 0, 2)}
    assert all(0 <= total.heard <= total.running for total in found.values())


def test_a_worker_says_at_each_step_what_it_does(plan: Plan) -> None:
    shard, exact = trained_and_exact(plan)
    board, told = Board(), []

    def heard(seconds: float, cells: int, points: int, doing: str = "", /) -> None:
        board.add(("train", 0), seconds, cells, points, doing)
        told.append(board.read().totals["train", 0].doing)

    data = {data_key(job.cell): training_set(job.cell) for job in shard.jobs}
    answer = train_shard(shard, data, heard)
    lines = [
        re.fullmatch(r"step (\d+) of 10, loss ([\d.e-]+), on cpu", line) for line in dict.fromkeys(filter(None, told))
    ]
    steps = [int(line[1]) for line in lines if line]
    assert len(steps) == len(lines) > 1
    assert steps == sorted(steps)
    assert steps[-1] == 10
    last = sum(cell.losses[-1] for cell in answer.cells) / len(answer.cells)
    (loss,) = (float(line[2]) for line in lines[-1:] if line)
    assert loss == pytest.approx(last, rel=0.06)  # told with two digits

    told.clear()
    sweep_shard(exact, {}, Requests(plan.study.metrics, False, frozenset()), heard)
    asked = {f"{sampler}, {steps} steps, on cpu" for sampler in ("euler", "heun") for steps in (1, 3)}
    assert set(told) == asked


def test_a_shard_that_is_done_is_told_with_the_time_that_is_left(
    plan: Plan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    trained, exact = trained_and_exact(plan)
    with Display() as display:
        display(Started(plan, (trained, exact), 2, ("nobody asks for this",)))
        clock[0] = 10.0  # workers have started
        display(Progressed(0.001, 0, 0, 1e-5, (Running("train uniform: edm", 0.0, 1.0),), None))
        clock[0] = 30.0
        display(Progressed(25.0, 1, 5, 0.25, (Running("sweep uniform: exact on edm", 0.5, 2.0),), 60.0))
        display(ShardSwept(1, exact, lost_sweep(exact, "dead")))
        display(ShardDone(1, exact))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(
        "study tiny: 16 points to compute, 2 cells to train, 0 points done; 2 shards on 2 workers"
    )
    assert "warning: nobody asks for this" in captured.err
    assert re.search(
        r"shard 1/2 committed: uniform: exact on edm x2 \(8 points, 8 failed\) after 0:30, about 1:00 left",
        captured.err,
    )


def test_what_failed_in_training_is_counted_with_the_shard(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    trained, _ = trained_and_exact(plan)
    with Display() as display:
        display(Started(plan, (trained,), 1, ()))
        display(ShardTrained(0, trained, lost_training(trained, "dead")))
        display(ShardDone(0, trained))
    assert "shard 1/1 committed: uniform: edm x2 (8 points, 8 failed) after 0:00\n" in capsys.readouterr().err


def test_points_of_one_cell_and_sampler_that_failed_for_one_reason_are_told_once(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    _, exact = trained_and_exact(plan)
    found = list(failures(lost_sweep(exact, "dead").points))
    assert len(found) == 4  # two seeds, two samplers; each of two step counts
    assert all(len(failed.points) == 2 for failed in found)
    with Display() as display:
        display(found[0])
    assert capsys.readouterr().err == "  failed: uniform exact on edm, seed 0, euler (2 points): dead\n"


def test_a_quiet_display_says_nothing(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    _, exact = trained_and_exact(plan)
    found: list[Event] = [Started(plan, (exact,), 1, ()), PointsFailed((exact.questions[0],), "dead")]
    with Display(quiet=True) as display:
        for event in found:
            display(event)
    assert capsys.readouterr() == ("", "")


def swept(shard: Shard) -> SweepAnswer:
    """What a worker really answers."""
    requests = Requests(Study.from_spec(SPEC).metrics, False, frozenset())
    data = {data_key(job.cell): training_set(job.cell) for job in shard.jobs if job.train}
    answer = run_shard(shard, data, {}, requests).swept
    assert answer is not None
    return answer


def shown(table: object) -> str:
    file = StringIO()
    Console(width=100, file=file).print(table)
    return file.getvalue()


def named(point: Point) -> str:
    labels = {name: str(value) for name, value in point.labels.items()}
    return f"{row_name(labels['formulation'], labels['schedule'])}, {labels['sampler']}"


def test_the_numbers_so_far_are_the_means_of_what_is_committed_and_the_latest_stand_first(plan: Plan) -> None:
    rows, answers = RowsSoFar(plan.study), []
    assert rows.table(100, 10) is None
    for shard in plan.shards(1):
        answer = swept(shard).points
        rows.add(answer)
        answers.append(answer)
        text = shown(rows.table(100, 10))
        last = answer[-1].point
        (line,) = (line for line in text.splitlines() if line.startswith(named(last)))
        mine = [a for a in answer if named(a.point) == named(last)]
        for steps in {a.point.steps for a in mine}:
            values = [a.metrics["w1"] for a in mine if a.point.steps == steps]
            assert len(values) > 1  # seeds
            assert brief(sum(values) / len(values)) in line.split()
        assert text.splitlines()[3].startswith(named(last))
    every = {named(a.point) for answer in answers for a in answer}
    lines = shown(rows.table(100, 10)).splitlines()[3:]
    assert len(lines) == len(every) == sum(any(line.startswith(name) for name in every) for line in lines)
    assert f"(and {len(every) - 1} rows before)" in shown(rows.table(100, 1))
    assert rows.table(100, 0) is None


def test_schedules_and_grids_are_not_pooled_and_are_named_where_there_are_several() -> None:
    grids = [{"name": "heun", "grid": "uniform-t"}, "heun"]
    spec = {**SPEC, "schedules": ["edm", "ve-geometric"], "samplers": grids, "steps": [3], "metrics": ["w1"]}
    plan = make_plan(Study.from_spec(spec), {}, ())
    rows = RowsSoFar(plan.study)
    found: dict[tuple[str, ...], list[float]] = {}
    for shard in plan.shards(1):
        answers = swept(shard).points
        rows.add(answers)
        for answer in answers:
            key = tuple(str(answer.point.labels[axis]) for axis in ("formulation", "schedule", "grid"))
            found.setdefault(key, []).append(answer.metrics["w1"])
    assert len({grid for _, schedule, grid in found if schedule == "edm"}) == 2
    lines = shown(rows.table(100, 20)).splitlines()[3:]
    assert len(lines) == len(found)
    for (formulation, schedule, grid), values in found.items():
        name = f"exact {schedule}" if formulation == "exact" else f"edm on {schedule}"
        several = sum((formulation, schedule) == other[:2] for other in found) > 1
        name = f"{name}, heun, {grid}" if several else f"{name}, heun "
        (line,) = (line for line in lines if line.startswith(name))
        assert line.split()[-1] == brief(sum(values) / len(values))


def test_on_a_terminal_they_stand_below_the_bars_and_are_gone_at_the_end(
    plan: Plan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "40")
    shards = tuple(plan.shards(1))
    with Display() as display:
        display(Started(plan, shards, 2, ()))
        display(ShardSwept(0, shards[0], swept(shards[0])))
        doing = "step 20 of 400, loss 0.31, on cpu"
        display(Progressed(0.001, 0, 0, 1e-5, (Running("train uniform: edm", 0.0, 1.0, doing),), None))
        display._live.refresh()
        told = capsys.readouterr().err
        assert doing in told
        assert "w1 so far, mean over seeds" in told
        display(Swept())
    assert "so far" not in capsys.readouterr().err.rpartition("\x1b[2K")[2]


@pytest.mark.parametrize("height", [8, 10, 24, 60])
def test_hundreds_of_task_runs_keep_to_the_terminals_height_and_it_is_said_how_many_more(
    height: int, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", str(height))
    _, exact = trained_and_exact(plan)
    with Display() as display:
        display(Started(plan, (exact,) * 300, 300, ()))
        display(ShardSwept(0, exact, swept(exact)))
        for count in (300, 40, 3, 0):
            runs = tuple(
                Running(f"train uniform [0, 1]: edm x{i}, and others of its width", i / count, 70.0, f"step {i} of 400")
                for i in range(count)
            )
            display(Progressed(1.0, 1, 5, 0.1, runs, 60.0))
            lines = shown(display._shown()).splitlines()
            assert len(lines) < height
            assert max(map(len, lines)) <= 100
            named = [line for line in lines if line.startswith("  train uniform [0, 1]: edm x")]
            assert len(named) == min(count, 8, (height - 6) // 2)
            assert all(f"1:10 step {i} of 400" in line for i, line in enumerate(named))
            more = [line for line in lines if line.startswith(f"  and {count - len(named)} more task run")]
            assert len(more) == (count > len(named))
            assert ("w1 so far, mean over seeds" in "\n".join(lines)) == (height - len(named) - len(more) > 6)
        for number in range(300):
            display(ShardDone(number, exact))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 + 300
    assert told[-1].startswith("shard 300/300 committed: uniform: exact on edm x2 (0 points) after 0:0")


def test_of_hundreds_of_failures_after_one_answer_some_are_told_and_the_others_are_counted(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    _, exact = trained_and_exact(plan)
    points = tuple(exact.questions[:2])
    with Display() as display:
        for reason in range(300):
            display(PointsFailed(points, f"reason {reason}"))
        for cell in range(10):
            display(MetricNotMeasured(f"nll of cell {cell}"))
        display(Hindered("something else"))
        display(PointsFailed(points, "the next answer"))
        for _ in range(8):
            display(PointsFailed(points[:1], "the last one"))
    told = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in told[:8]] == [f"reason {reason}" for reason in range(8)]
    assert told[8:16] == [f"  not measured: nll of cell {cell}" for cell in range(8)]
    assert told[16:19] == [
        "  failed: 584 more points; `diffatlas status` says why",
        "  not measured: 2 more times; the run's log has all",
        "warning: something else",
    ]
    assert told[-1] == "  failed: 1 more point; `diffatlas status` says why"
    assert len(told) == 19 + 8 + 1


def test_five_hundred_rows_are_the_latest_few_and_how_many_stand_before() -> None:
    spec = {
        **SPEC,
        "datasets": [{"name": "gaussian", "means": float(mean)} for mean in range(25)],
        "formulations": ["edm", "vp", "ve", "iddpm", "ddpm"],
        "seeds": 1,
        "steps": [1, 2],
        "keep": {},
    }
    plan = make_plan(Study.from_spec(spec), {}, ())
    asked = [point for job in plan.jobs for point in job.points]
    rows = RowsSoFar(plan.study)
    keys: list[tuple[str, ...]] = []
    for number, point in enumerate(asked):
        rows.add([PointAnswer(point, None, metrics={"w1": 1 + number / len(asked)})])
        key = tuple(str(point.labels[axis]) for axis in ("formulation", "schedule", "sampler", "grid", "dataset"))
        keys = [other for other in keys if other != key] + [key]
    assert len(keys) >= 500
    for most, width in ((1, 60), (5, 100), (12, 80), (1000, 100)):
        text = StringIO()
        Console(width=width, file=text).print(rows.table(width, most))
        lines = text.getvalue().splitlines()
        kept = min(most, len(keys))
        assert len(lines) == 3 + kept  # an empty line, the title, the step counts
        assert (f"(and {len(keys) - kept} rows before)" in lines[1]) == (kept < len(keys))
        assert max(map(len, lines)) <= width
        for line, key in zip(lines[3:], reversed(keys[-kept:]), strict=True):
            assert line.startswith(row_name(key[0], key[1]))
