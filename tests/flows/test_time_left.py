"""Time left against simulated machines, whose real times are known: no second is measured here."""

from __future__ import annotations

import random
from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import pytest

from flows.time_left import Heard, Run, TaskRun, TimeLeft

if TYPE_CHECKING:
    from collections.abc import Sequence

Timetable = dict[Run, tuple[float, float]]
"""When each task run starts and when it ends."""


def carried_out(chains: Sequence[Sequence[TaskRun]], slots: int, paces: dict[str, float]) -> Timetable:
    """What a machine does that needs `paces` seconds for a planned second of each kind."""
    free = [0.0] * slots
    heapify(free)
    times: Timetable = {}
    for tasks in chains:
        now = heappop(free)
        for task in tasks:
            times[task.run] = now, now + task.seconds * paces[task.kind]
            now = times[task.run][1]
        heappush(free, now)
    return times


def seen_at(now: float, chains: Sequence[Sequence[TaskRun]], times: Timetable) -> tuple[dict[Run, Heard], set[Run]]:
    """What the board has at a moment, from workers that report each tenth of their work."""
    seen, ended = {}, set()
    for tasks in chains:
        for task in tasks:
            begun, end = times[task.run]
            if begun <= now:
                tenths = min(int(10 * (now - begun) / (end - begun)), 10)
                heard = tenths / 10 * (end - begun)
                seen[task.run] = Heard(tenths / 10 * task.seconds, heard, min(now, end) - begun)
            if end <= now:
                ended.add(task.run)
    return seen, ended


def chains_of(kinds: Sequence[str], rng: random.Random) -> list[list[TaskRun]]:
    """Shards of several kinds, longest first: training and a sweep, or a sweep alone."""
    chains = []
    for number, kind in enumerate(kinds):
        sweep = TaskRun(("sweep", number), f"sweep {kind}", rng.uniform(5, 30))
        train = TaskRun(("train", number), f"train {kind}", rng.uniform(5, 30))
        chains.append([train, sweep] if kind != "exact" else [sweep])
    return sorted(chains, key=lambda tasks: -sum(task.seconds for task in tasks))


@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize("seed", range(5))
def test_once_each_kind_has_told_something_it_is_right_within_30_percent_whatever_the_machine(
    slots: int, seed: int
) -> None:
    """Each kind is up to five times slower or faster than planned, and no two alike."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    kinds = [rng.choice(["mlp", "unet", "exact"]) for _ in range(30 * slots)]
    paces = {f"{stage} {kind}": 5 ** rng.uniform(-1, 1) for stage in ("train", "sweep") for kind in set(kinds)}
    chains = chains_of(kinds, rng)
    times = carried_out(chains, slots, paces)
    end = max(end for _, end in times.values())
    estimate = TimeLeft(chains, slots)
    first: dict[str, float] = {}
    for task in sorted((task for tasks in chains for task in tasks), key=lambda task: times[task.run]):
        begun, ends = times[task.run]
        first.setdefault(task.kind, begun + 0.2 * (ends - begun))
    moment = max(60.0, *first.values())  # and each kind has told something
    while moment < 0.9 * end:
        left = estimate(*seen_at(moment, chains, times))
        assert left == pytest.approx(end - moment, rel=0.3)
        moment += (end - moment) / 4


def test_before_anything_was_measured_it_says_nothing() -> None:
    estimate = TimeLeft([[TaskRun(("sweep", 0), "mlp", 10.0)]], 1)
    assert estimate({}, ()) is None
    assert estimate({("sweep", 0): Heard(0.0, 0.0, 3.0)}, ()) is None


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_measured_on_the_device_makes_it_right_from_the_first_moment(slots: int, seed: int) -> None:
    """A device a hundred times faster in some kinds, measured to 19 %; then task runs tell."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    kinds = [rng.choice(["mlp", "unet"]) for _ in range(20 * slots)]
    chains = [
        [TaskRun(("train", n), kind, rng.uniform(5, 30)), TaskRun(("sweep", n), kind, rng.uniform(5, 30))]
        for n, kind in enumerate(kinds)
    ]
    truth = {kind: {stage: 10 ** rng.uniform(-2, 0) for stage in ("train", "sweep")} for kind in set(kinds)}
    exact = [[replace(one, seconds=one.seconds * truth[one.kind][one.run[0]]) for one in tasks] for tasks in chains]
    times = carried_out(exact, slots, dict.fromkeys(truth, 1.0))
    end = max(end for _, end in times.values())
    measured = {
        kind: {stage: pace * 2 ** rng.uniform(-0.25, 0.25) for stage, pace in of.items()} for kind, of in truth.items()
    }
    estimate = TimeLeft(chains, slots, measured)
    assert TimeLeft(chains, slots)({}, ()) is None
    for moment in (0.0, 0.2 * end, 0.5 * end):
        seen, ended = seen_at(moment, chains, times) if moment else ({}, set())
        assert estimate(seen, ended) == pytest.approx(end - moment, rel=0.3)


def test_a_kind_that_was_not_seen_is_as_slow_as_what_was() -> None:
    chains = [[TaskRun(("sweep", 0), "mlp", 100.0)], [TaskRun(("sweep", 1), "unet", 100.0)]]
    seen = {("sweep", 0): Heard(100.0, 300.0, 300.0)}
    left = TimeLeft(chains, 1)(seen, {("sweep", 0)})
    assert left == pytest.approx(300, rel=0.05)


def test_the_longest_of_the_last_shards_decides() -> None:
    """Two workers, one of which has nothing left to do."""
    chains = [[TaskRun(("sweep", n), "mlp", seconds)] for n, seconds in enumerate((100.0, 10.0))]
    seen = {("sweep", 0): Heard(50.0, 50.0, 50.0), ("sweep", 1): Heard(10.0, 10.0, 10.0)}
    assert TimeLeft(chains, 2)(seen, {("sweep", 1)}) == pytest.approx(50.0)


def test_a_task_run_that_is_silent_for_longer_than_it_should_be_is_nearly_done() -> None:
    chains = [[TaskRun(("sweep", 0), "mlp", 10.0)], [TaskRun(("sweep", 1), "mlp", 10.0)]]
    seen = {("sweep", 0): Heard(10.0, 10.0, 10.0), ("sweep", 1): Heard(0.0, 0.0, 60.0)}
    left = TimeLeft(chains, 1)(seen, {("sweep", 0)})
    assert left is not None
    assert 0 < left < 1
