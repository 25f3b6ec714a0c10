"""What a run costs beside its work, in seconds of a core: the constants of `flows.scale`, and whether
it foretells a real run.

    python -m tests.benchmarks.scale costs
    python -m tests.benchmarks.scale check
    python -m tests.benchmarks.scale trivial
    python -m tests.benchmarks.scale memory

The third takes studies of 10, 1,000 and 10,000 cells that cost next to nothing through the whole pipeline,
or of as many as are named after it. The last follows the coordinator's memory through one run of a
few hundred points: with the answers that it took, the rows below its bars, and what Prefect and Ray
keep of task runs.

Seconds of processor are measured, not of the clock, so other work on the machine matters little. A
cost is the slope between a small and a large case: what is paid once for a run falls out.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.services import prefect_server, quiet_environment, ray_cluster

quiet_environment()

TICKS = os.sysconf("SC_CLK_TCK")
FEW, MANY, AT_ONCE = 40, 240, 6
SMALL, LARGE = 4, 24  # networks of so many widths
SETTLED = 4.0  # seconds in which a server has written what it was told


def processors() -> dict[str, float]:
    """Seconds of processor that this process and those that it has started took, by kind."""
    rows = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_text(errors="replace")
                rows[int(entry.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS, command)
        except OSError:
            continue
    found = {"coordinator": time.process_time(), "server": 0.0, "workers": 0.0, "ray": 0.0}
    ours = {os.getpid()}
    while new := {pid for pid, (parent, _, _) in rows.items() if parent in ours and pid not in ours}:
        ours |= new
    for pid in ours - {os.getpid()}:
        command = rows[pid][2]
        worker = command.startswith("ray::") and "Agent" not in command
        found["server" if "server_process" in command else "workers" if worker else "ray"] += rows[pid][1]
    return found


@contextmanager
def counted() -> Iterator[dict[str, float]]:
    """Seconds of processor in a block, by kind."""
    before = processors()
    found: dict[str, float] = {}
    yield found
    time.sleep(SETTLED)
    found |= {kind: seconds - before[kind] for kind, seconds in processors().items()}


def of_task_runs() -> dict[str, float]:
    """Of a task run that does nothing, and of a commit of nothing."""
    with prefect_server(), ray_cluster(None, 2, {}):
        from tests.benchmarks.nothing import many

        many(FEW, FEW, AT_ONCE)  # what is imported once
        measured = {}
        for name, count, commits in (("few", FEW, 0), ("many", MANY, 0), ("commits", MANY, MANY)):
            with counted() as seconds:
                many(count, commits, AT_ONCE)
            measured[name] = seconds

    def slope(kind: str) -> float:
        return (measured["many"][kind] - measured["few"][kind]) / (MANY - FEW)

    def more(kind: str) -> float:
        return (measured["commits"][kind] - measured["many"][kind]) / MANY

    return {
        "hand_over": slope("coordinator"),
        "told": slope("server"),
        "worker": slope("workers"),
        "ray": slope("ray"),
        "commit of nothing": more("coordinator"),
        "told_commit": more("server"),
    }


def of_plans() -> dict[str, float]:
    """Of a cell and a point of a plan that is made and packed: seconds, and bytes."""
    from tasks.plan import make_plan
    from tests.benchmarks.cells import trivial

    def planned(cells: int, points: int) -> tuple[float, float]:
        study = trivial(cells, steps=list(range(1, points + 1)))
        before, start = _memory(), time.process_time()
        made = make_plan(study, {}, ())
        kept.append((made, made.shards(100)))
        return time.process_time() - start, _memory() - before

    kept: list[Any] = []
    planned(2_000, 1)
    one, ten = planned(10_000, 1), planned(10_000, 10)
    point = [(many - few) / 90_000 for few, many in zip(one, ten, strict=True)]
    cell = [few / 10_000 - each for few, each in zip(one, point, strict=True)]
    return {"plan_cell": cell[0], "plan_point": point[0], "cell_bytes": cell[1], "point_bytes": point[1]}


def of_commits() -> dict[str, float]:
    """Of a commit to a folder, and of its cells and points."""
    from tasks.plan import make_plan
    from tasks.plan.shards import Shard
    from tasks.results.rows import swept_rows, trained_rows
    from tasks.store import Store
    from tasks.work import Requests, data_key, sweep_shard, train_shard, training_sets
    from tests.benchmarks.cells import trivial

    def committed(cells: int, points: int, each: int) -> tuple[float, float]:
        study = trivial(cells, steps=list(range(1, points + 1)))
        requests, seconds = Requests(study.metrics, False, frozenset()), [0.0, 0.0]
        jobs = make_plan(study, {}, ()).jobs
        with tempfile.TemporaryDirectory() as folder:
            store = Store.create(str(Path(folder) / "store"))
            with store.coordinate() as coordinator:
                for i in range(0, cells, each):
                    shard = Shard(jobs[i : i + each])
                    trained = train_shard(shard, training_sets({data_key(job.cell): job.cell for job in shard.jobs}))
                    swept = sweep_shard(shard, trained.weights, requests)
                    for number, rows in enumerate((trained_rows(trained), swept_rows(swept, {}))):
                        start = time.process_time()
                        coordinator.commit(rows, "rows", {})
                        seconds[number] += time.process_time() - start
        return seconds[0] / (cells // each), seconds[1] / (cells // each)

    small, large = committed(100, 1, 5), committed(800, 10, 160)
    cell, point = (large[0] - small[0]) / 155, (large[1] - small[1]) / 1_595
    return {"commit": (small[0] + small[1]) / 2 - 2.5 * (cell + point), "commit_cell": cell, "commit_point": point}


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


STUDY = """
name: many
datasets: [uniform]
grids: [{grids}]
seeds: 2
training: {{steps: 20, batch: 32, width: 8, depth: 2, data: 500}}
samplers: [euler]
steps: [1, 2]
samples: 50
metrics: [w1]
"""


def check() -> None:
    """Two studies of small shards on two workers of this machine, and on two nodes of a cluster: how
    much more the large one takes, foretold and measured.
    """
    from flows.request import RunRequest
    from flows.scale import Timeline, predict
    from flows.start import start
    from tasks.plan import make_plan
    from tasks.store import Store
    from tasks.study import load_study

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def study(widths: int) -> str:
            each = [f"{{formulations: [edm, ddpm], training: {{width: {8 + i}}}}}" for i in range(widths)]
            (folder / f"{widths}.yaml").write_text(STUDY.format(grids=", ".join(each)))
            return str(folder / f"{widths}.yaml")

        def foretold(widths: int) -> Timeline:
            found = predict(make_plan(load_study(study(widths)), {}, ()), 2)
            assert found is not None
            return found.line

        few, many = foretold(SMALL), foretold(LARGE)
        for nodes in (1, 2):
            taken, commits = [], 0
            with prefect_server(), _ray(nodes) as address:
                for i, widths in enumerate((SMALL, SMALL, LARGE)):  # the first imports what is imported once
                    store, page = str(folder / f"store-{nodes}-{i}"), str(folder / "page.html")
                    with counted() as seconds:
                        start(RunRequest(study(widths), store, (), address, 2, quiet=True, report=page))
                    taken.append(seconds)
                    messages = [str(entry["message"]) for entry in Store.open(store).history()]
                    commits = sum(": trained" in text or ": swept" in text for text in messages)
            _say(f"nodes: {nodes}; commits of the large study: foretold {len(many.commits)}, there {commits}")
            more = {
                "coordinator": many.coordinator - few.coordinator,
                "server": many.server - few.server,
                "workers": many.work - few.work,
            }
            for kind, said in more.items():
                took = taken[2][kind] - taken[1][kind]
                _say(f"  {kind}: foretold {said:.1f} s more, took {took:.1f} s more, {said / took:.2f}")


CELLS = (10, 1_000, 10_000)


def whole(counts: Sequence[int] = CELLS) -> None:
    """Studies of so many trivial cells from the request to the page, with two workers: the clock, the
    first commit, seconds of a core by kind, the coordinator's memory, and what one more cell costs.
    """
    from flows.request import RunRequest
    from flows.start import start
    from tasks.store import Store
    from tests.benchmarks.cells import trivial

    rows: list[tuple[int, float, float, dict[str, float], float]] = []
    with tempfile.TemporaryDirectory() as name, prefect_server(), ray_cluster(None, 2, {}):
        folder = Path(name)
        for number, cells in enumerate((counts[0], *counts)):  # the first imports what is imported once
            study, store = folder / f"{number}.yaml", str(folder / f"store-{number}")
            study.write_text(json.dumps(trivial(cells).spec()))
            before, begun, clock = _memory(), datetime.now(UTC), time.perf_counter()
            with counted() as seconds:
                start(RunRequest(str(study), store, (), None, 2, quiet=True, report=str(folder / "page.html")))
                took = time.perf_counter() - clock
            commits = [one for one in Store.open(store).history() if ": trained" in str(one["message"])]
            first = min(datetime.fromisoformat(str(one["time"])) for one in commits) - begun
            rows.append((cells, took, first.total_seconds(), seconds, (_memory() - before) / 1e6))
    _say("| cells | seconds | first commit | coordinator | server | workers | Ray | memory, MB |")
    _say("|---|---|---|---|---|---|---|---|")
    for cells, took, first_commit, seconds, memory in rows[1:]:
        of_cores = " | ".join(f"{seconds[kind]:.1f}" for kind in ("coordinator", "server", "workers", "ray"))
        _say(f"| {cells:,} | {took:.1f} | {first_commit:.1f} | {of_cores} | {memory:.0f} |")
    for few, many in itertools.pairwise(rows[1:]):
        more = many[0] - few[0]
        clock, cores = (many[1] - few[1]) / more, (sum(many[3].values()) - sum(few[3].values())) / more
        kept = 1e3 * (many[4] - few[4]) / more
        _say(
            f"one more cell between {few[0]:,} and {many[0]:,}: {1e3 * clock:.1f} ms of the clock, {1e3 * cores:.1f} ms of cores, "
            f"{kept:.1f} kB of the coordinator"
        )


def memory() -> None:
    """A run of many small shards on two workers: what the coordinator holds after each commit, and what
    a point more adds to it.
    """
    import gc
    import tracemalloc

    import flows.orchestration
    from flows.events import Committed, Event
    from flows.listeners import Tally
    from flows.request import RunRequest
    from flows.start import start

    seen: list[tuple[int, int, float, float]] = []

    class Weighing(Tally):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, Committed) and self.computed:
                gc.collect()
                traced, _ = tracemalloc.get_traced_memory()
                seen.append((self.committed, self.computed, traced / 1e3, _memory() / 1e3))

    vars(flows.orchestration)["Tally"] = Weighing
    each = [f"{{formulations: [edm, ddpm], training: {{width: {8 + i}}}}}" for i in range(LARGE)]
    text = STUDY.format(grids=", ".join(each)).replace("steps: [1, 2]", f"steps: {list(range(1, 11))}")
    with tempfile.TemporaryDirectory() as name, prefect_server(), ray_cluster(None, 2, {}):
        study, folder = Path(name) / "many.yaml", Path(name)
        study.write_text(text)
        tracemalloc.start()
        start(RunRequest(str(study), str(folder / "store"), (), None, 2, quiet=True, report=str(folder / "page.html")))
        tracemalloc.stop()
    _say("| commits | points | traced, kB | resident, kB |")
    _say("|---|---|---|---|")
    for commits, points, traced, resident in seen[:: max(len(seen) // 12, 1)]:
        _say(f"| {commits} | {points} | {traced:,.0f} | {resident:,.0f} |")
    late = seen[len(seen) // 4 :]  # what is made once is made by then
    traced_each = statistics.linear_regression([row[1] for row in late], [row[2] for row in late]).slope
    resident_each = statistics.linear_regression([row[0] for row in late], [row[3] for row in late]).slope
    _say(f"a point more: {traced_each:.2f} kB traced; a commit more: {resident_each:.0f} kB resident")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def _ray(nodes: int) -> Iterator[str | None]:
    """Two workers here, or a node for each."""
    if nodes == 1:
        with ray_cluster(None, 2, {}):
            yield None
        return
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    try:
        with ray_cluster(cluster.address, None, {}):
            yield cluster.address
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        check()
    elif sys.argv[1:] == ["memory"]:
        memory()
    elif sys.argv[1:2] == ["trivial"]:
        whole([int(count) for count in sys.argv[2:]] or CELLS)
    else:
        for name, cost in {**of_plans(), **of_commits(), **of_task_runs()}.items():
            _say(f"{name} {cost:.2g}")
