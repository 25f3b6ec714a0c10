"""How long a run still takes, from what its task runs have taken so far.

A task run has a kind: the stage, and the network or the target it computes with. Plans say in advance
how long each takes; what the machine really needs of that is measured for each kind as soon as
one of it has done something, and until then taken from its stage, and from all that was
measured. What is left is then handed to the workers as Ray will do it, longest first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from itertools import chain
from types import MappingProxyType

Run = tuple[str, int]
"""A task run: its stage, and the number of its shard."""

_TRUSTED_SECONDS = 0.2
"""So many planned seconds weigh as much as what is known in general."""

_LEAST_LEFT = 0.05
"""Of what was planned and not told yet, for a task run that has taken its time already."""


@dataclass(frozen=True)
class TaskRun:
    """A task run before it starts."""

    run: Run
    kind: str
    seconds: float  # of one core, as planned


@dataclass(frozen=True)
class Heard:
    """What is known of a task run that a worker has taken up."""

    done: float  # of its planned seconds
    heard: float  # seconds from its start until it told that
    running: float  # seconds from its start until now


class TimeLeft:
    """The estimate for one run.

    Args:
        chains: for each shard its task runs, one after the other; longest shards first.
        slots: how many task runs go on at once.
        paces: by kind and stage what the device that computes it needs for a planned second, as far
            as it was measured; else one.
    """

    def __init__(
        self,
        chains: Sequence[Sequence[TaskRun]],
        slots: int,
        paces: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    ) -> None:
        def pace_of(task: TaskRun) -> float:
            return paces.get(task.kind, {}).get(task.run[0], 1.0)

        self._chains = [[replace(task, seconds=task.seconds * pace_of(task)) for task in tasks] for tasks in chains]
        self._slots = slots
        self._planned = {task.run: task for task in chain.from_iterable(self._chains)}
        self._paces = {task.run: pace_of(task) for task in chain.from_iterable(chains)}
        kinds = {task.kind for task in self._planned.values()}
        self._calibrated = bool(kinds) and kinds <= set(paces)

    def __call__(self, seen: Mapping[Run, Heard], ended: Collection[Run]) -> float | None:
        """Seconds until all have ended; None before anything was measured, by task runs or on the
        devices beforehand.

        Args:
            seen: the task runs that were taken up.
            ended: those of them that have given their answer.
        """
        seen = {run: replace(one, done=one.done * self._paces.get(run, 1.0)) for run, one in seen.items()}
        pace = _Pace([(self._planned[run], one) for run, one in seen.items() if run in self._planned])
        if not (pace.measured or self._calibrated):
            return None
        running, waiting = [], []
        for tasks in self._chains:
            seconds = sum(_left(task, seen.get(task.run), pace) for task in tasks if task.run not in ended)
            if any(task.run in seen and task.run not in ended for task in tasks):
                running.append(seconds)
            elif seconds:
                waiting.append(seconds)
        return _makespan(running, waiting, self._slots)


class _Pace:
    """Seconds for a planned second, by kind."""

    def __init__(self, seen: Sequence[tuple[TaskRun, Heard]]) -> None:
        self._sums: dict[tuple[str, ...], list[float]] = {}
        for task, one in seen:
            if one.done > 0:
                for group in _groups(task):
                    sums = self._sums.setdefault(group, [0.0, 0.0])
                    sums[0] += one.heard
                    sums[1] += one.done

    @property
    def measured(self) -> bool:
        return bool(self._sums)

    def of(self, task: TaskRun) -> float:
        ratio = 1.0
        for group in _groups(task):  # from all to its own kind
            seconds, planned = self._sums.get(group, (0.0, 0.0))
            ratio = (seconds + _TRUSTED_SECONDS * ratio) / (planned + _TRUSTED_SECONDS)
        return ratio


def _groups(task: TaskRun) -> tuple[tuple[str, ...], ...]:
    stage, _ = task.run
    return (), (stage,), (stage, task.kind)


def _left(task: TaskRun, seen: Heard | None, pace: _Pace) -> float:
    if seen is None:
        return task.seconds * pace.of(task)
    untold = max(task.seconds - seen.done, 0.0) * pace.of(task)
    return max(untold - (seen.running - seen.heard), _LEAST_LEFT * untold)


def _makespan(running: Sequence[float], waiting: Sequence[float], slots: int) -> float:
    """When the last one ends, if whoever is free takes the next one that waits."""
    busy = sorted(running) or [0.0]
    busy += [0.0] * (slots - len(busy))
    heapify(busy)
    for seconds in waiting:
        heapreplace(busy, busy[0] + seconds)
    return max(busy)
