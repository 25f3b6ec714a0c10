"""Where the steps of a study are too far apart: what a look at its neighbouring step counts answers.

A *group* is data set, formulation, schedule, sampler and grid; its step counts are an axis. Two
neighbours are refined where they are told apart (`tasks.statistics.bisection`) and one of them is
still above the floor: its mean exceeds `FLOORS` times the mean sampling floor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.columns import CONFIGURATION, MetricColumns
from tasks.plain import Spec
from tasks.query.ranking import metric_of
from tasks.statistics.bisection import FLOORS, CanAsk, Group, Pair, StepTree, middle, step_tree, told_apart
from tasks.statistics.decision import FEWEST
from tasks.statistics.sequential import interval_of
from tasks.where.columns import Columns, Groups, PointColumns, Points, of_points
from tasks.where.language import QueryError

GROUP = tuple(name for name in CONFIGURATION if name != "steps")
REFINED, ALIKE, FLOOR, OPEN = "refined", "alike", "floor", "open"


@dataclass(frozen=True)
class GroupSteps:
    """The steps of one group, as a study asks them.

    Args:
        steps: all step counts, in order.
        seeds: how many the group has.
        fixed: whether seeds change nothing: an exact denoiser, a deterministic sampler, quantiles to
            start from.
        can_ask: whether the question has an answer with another number of steps.
    """

    steps: tuple[int, ...]
    seeds: int
    fixed: bool
    can_ask: CanAsk


@dataclass(frozen=True)
class StepsTaken:
    """What a look at neighbouring step counts found: a row for each pair, and which were left out.

    A row has the group's labels, the pair (`from`, `to`) with its means and floors, the paired
    `difference` of the larger against the smaller number of steps with the ends of its interval at
    the level of its test (a factor, where `scale` is logarithmic), the `verdict` and the `middle` that
    is added, if one is.
    """

    look: int
    level: float
    rows: tuple[Spec, ...]
    left_out: tuple[Spec, ...] = ()

    @property
    def added(self) -> dict[Group, tuple[int, ...]]:
        """The step counts that the next look needs, by group."""
        found: dict[Group, tuple[int, ...]] = {}
        for row in self.rows:
            if row["verdict"] == REFINED:
                group = group_of(row)
                found[group] = (*found.get(group, ()), row["middle"])
        return found

    @property
    def open(self) -> int:
        """How many pairs would be refined, had not the looks been spent."""
        return sum(row["verdict"] == OPEN for row in self.rows)

    def value(self) -> Spec:
        """As plain values."""
        rows, left_out = ([dict(row) for row in part] for part in (self.rows, self.left_out))
        return {"look": self.look, "level": self.level, "pairs": rows, "left_out": left_out}


def group_of(labels: Mapping[str, object]) -> Group:
    """The group of what has labels: a point, a row."""
    return tuple(str(labels[name]) for name in GROUP)


def refinable(
    ahead: PointColumns, metric: str | None, axes: Mapping[Group, GroupSteps], looks: int
) -> tuple[str, StepTree]:
    """The metric and the tree of pairs, if there is something to refine: asked before anything is
    computed.

    Args:
        ahead: the points that will be, as `tasks.results.foreseen` gives them.
        metric: by which; as for `tasks.query.ranking.metric_of`.
        axes: the steps of each group.
        looks: how many there are at most.

    Raises:
        QueryError: an unknown metric, or one that has no floor to come down to; no two step counts
            with another one between; or a single seed.
    """
    metric = metric_of(ahead, metric)
    if ahead.higher_is_better(metric) or ahead.of_models(metric):
        why = "is better the larger it is" if ahead.higher_is_better(metric) else "looks at models, whatever the steps"
        raise QueryError(f"--steps-until floor: {metric} {why}; choose another one by --metric")
    announced = step_tree(
        {group: axis.steps for group, axis in axes.items()},
        lambda group, steps: axes[group].can_ask(steps),
        looks,
    )
    first = {group for group, pairs in announced.pairs[0].items() if pairs}
    if not first:
        raise QueryError(
            "--steps-until floor: nothing to refine: no sampler of the study has two step counts with another one between"
        )
    alone = [group for group in axes if group in first and axes[group].seeds < FEWEST and not axes[group].fixed]
    if alone:
        raise QueryError(
            f"--steps-until floor: found one seed ({', '.join(alone[0])}); neighbours are compared by seeds, of which "
            f"{FEWEST} are needed at least and 5 are better (--set seeds=5)"
        )
    return metric, announced


@dataclass(frozen=True)
class _Asked:
    """A configuration's values and floors by seed, or why it has none."""

    seeds: np.ndarray
    values: np.ndarray
    floors: np.ndarray
    lacks: str | None

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def floor(self) -> float:
        return float(self.floors.mean())

    @property
    def above(self) -> bool:
        """Whether it is above the floor by more than the rule lets pass."""
        return self.mean > FLOORS * self.floor


def look_at_steps(
    points: Points,
    metric: str,
    announced: StepTree,
    look: int,
    pairs: Mapping[Group, Sequence[Pair]],
    axes: Mapping[Group, GroupSteps],
) -> StepsTaken:
    """What the rule says of pairs: a function of the study and of their numbers alone.

    Args:
        points: those of a study.
        metric: by which.
        announced: the tree.
        look: from 0; at the last one nothing is refined any more.
        pairs: the pairs that are looked at, by group.
        axes: the steps of each group as the study asks them.

    Returns:
        A row for each pair whose points all have values.
    """
    asked = _asked(of_points(points), metric)
    level = announced.level_at(look)
    rows: list[Spec] = []
    left_out: list[Spec] = []
    tested: list[tuple[Group, Pair, _Asked, _Asked]] = []
    for group, of_group in pairs.items():
        for pair in of_group:
            ends = [asked.get((group, steps)) for steps in pair]
            reason = _lacking(ends, pair, fixed=axes[group].fixed)
            if reason is None and ends[0] is not None and ends[1] is not None:
                tested.append((group, pair, ends[0], ends[1]))
            else:
                left_out.append({**_labels(group), "from": pair[0], "to": pair[1], "reason": reason})
    if tested:
        width = max(len(end.seeds) for _, _, *ends in tested for end in ends)
        first, second = np.full((2, len(tested), width), np.nan)
        for i, (_, _, a, b) in enumerate(tested):
            shared, at, other = np.intersect1d(a.seeds, b.seeds, return_indices=True)
            first[i, : len(shared)], second[i, : len(shared)] = a.values[at], b.values[other]
        told = told_apart(first, second, level, np.array([axes[group].fixed for group, *_ in tested]))
        counts = np.isfinite(first).sum(axis=1)
        low, high = interval_of(told.contrasts, counts, np.full(len(tested), level))
        last = look == len(announced.pairs) - 1
        for i, (group, pair, a, b) in enumerate(tested):
            verdict = FLOOR if not (a.above or b.above) else ALIKE if not told.apart[i] else OPEN if last else REFINED
            log = bool(told.contrasts.logarithmic[i])
            rows.append(
                {
                    **_labels(group),
                    "from": pair[0],
                    "to": pair[1],
                    "from_mean": a.mean,
                    "to_mean": b.mean,
                    "from_floor": a.floor,
                    "to_floor": b.floor,
                    "scale": "logarithmic" if log else "linear",
                    "difference": _number((told.contrasts.factor if log else told.contrasts.change)[i]),
                    "low": _number(low[i]),
                    "high": _number(high[i]),
                    "verdict": verdict,
                    "middle": middle(pair, axes[group].can_ask) if verdict == REFINED else None,
                }
            )
    return StepsTaken(look + 1, level, tuple(rows), tuple(left_out))


def floors_reached(points: Points, metric: str, groups: Sequence[Group]) -> list[Spec]:
    """Where each group comes down to the floor.

    Returns:
        Its labels, its `steps`, and `reached`: the smallest of them from which on every mean is at
        most `FLOORS` floors, None where the largest is not.
    """
    asked = _asked(of_points(points), metric)
    rows: list[Spec] = []
    for group in groups:
        of_group = {steps: one for (mine, steps), one in asked.items() if mine == group}
        reached = None
        for steps in sorted(of_group, reverse=True):
            if of_group[steps].lacks or of_group[steps].above:
                break
            reached = steps
        rows.append({**_labels(group), "steps": sorted(of_group), "reached": reached})
    return rows


def _asked(columns: Columns, metric: str) -> dict[tuple[Group, int], _Asked]:
    """The configurations of all points that have an answer."""
    columns = columns.rows(columns["status"] != "skipped")
    groups = Groups(columns, CONFIGURATION, columns.size)
    values, seeds, ok = columns[metric], columns["seed"].astype(np.int64), columns["status"] == "ok"
    floors = columns[MetricColumns(metric).floor]
    found: dict[tuple[Group, int], _Asked] = {}
    order = np.argsort(groups.codes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups.codes[order])) + 1) if columns.size else ():
        labels = {name: groups.labels[name][groups.codes[rows[0]]] for name in CONFIGURATION}
        lacks = _without(metric, ok[rows], values[rows], floors[rows], seeds[rows])
        found[group_of(labels), int(labels["steps"])] = _Asked(seeds[rows], values[rows], floors[rows], lacks)
    return found


def _without(metric: str, ok: np.ndarray, values: np.ndarray, floors: np.ndarray, seeds: np.ndarray) -> str | None:
    """Why a configuration takes no part, or None."""
    reasons: tuple[tuple[np.ndarray, Callable[[str], str]], ...] = (
        (~ok, lambda at: f"failed at seed {at}"),
        (~np.isfinite(values), lambda at: f"no value of {metric} at seed {at}"),
        (~np.isfinite(floors), lambda _: f"no floor of {metric}"),
    )
    for lacking, say in reasons:
        if lacking.any():
            return say(", ".join(map(str, sorted(map(int, seeds[lacking])))))
    return None


def _lacking(ends: Sequence[_Asked | None], pair: Pair, *, fixed: bool) -> str | None:
    """Why a pair is not looked at, or None."""
    seeds: list[np.ndarray] = []
    for end, steps in zip(ends, pair, strict=True):
        if end is None or end.lacks:
            return f"{steps} steps: {end.lacks if end else 'not asked'}"
        seeds.append(end.seeds)
    shared = np.intersect1d(seeds[0], seeds[1]).size
    return None if shared >= FEWEST or (fixed and shared) else "fewer than two seeds in common"


def _labels(group: Group) -> dict[str, str]:
    return dict(zip(GROUP, group, strict=True))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
