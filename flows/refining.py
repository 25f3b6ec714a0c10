"""Steps that are refined: step counts are added between neighbours that differ, until they come down
to the floor.

    run -> look -> record what it decided -> nothing to add, or the last look? -> add -> run ...

As in `flows.growing` a look is a function of the study, the rule and the numbers that are committed
by then, and nothing is remembered but in the store: a second call only looks.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffusion.plugins import typed
from flows.growing import asked_all, other_designs, with_override
from tasks.plan.more_steps import blocks_with_steps
from tasks.plan.point import Point
from tasks.query.refining import (
    GroupSteps,
    StepsTaken,
    floors_reached,
    group_of,
    look_at_steps,
    refinable,
)
from tasks.results.foreseen import foreseen
from tasks.results.provenance import provenance
from tasks.results.read import open_results
from tasks.results.stored import plan_for, record_look, refuse_changes
from tasks.statistics.bisection import FLOORS, LARGEST_LOOKS, RULE, Group, Pair, StepTree, halves
from tasks.store import Store
from tasks.study import Study, load_study
from tasks.where.language import QueryError

if TYPE_CHECKING:
    from flows.request import RunRequest
    from tasks.plain import Spec
    from tasks.plan import Plan

UNTIL_FLOOR = "floor"


@dataclass(frozen=True)
class Refinement:
    """How the steps of a study were refined: by how many seeds, its looks, where each group is within
    the floor, and how many points have failed.
    """

    study: str
    store: str
    metric: str
    announced: StepTree
    seeds: tuple[int, ...]
    looks: tuple[StepsTaken, ...]
    groups: tuple[Spec, ...]
    failed: int

    @property
    def decided(self) -> bool:
        """Whether no pair is left that the rule would refine, of all that were to be looked at."""
        return not self.looks[-1].open and not self.left_out

    @property
    def left_out(self) -> tuple[Spec, ...]:
        """The pairs that could not be looked at: what lies between them is not known."""
        return tuple(row for look in self.looks for row in look.left_out)

    def value(self) -> Spec:
        """As plain values: the same whenever the numbers are."""
        return {
            **_said_of(self.study, self.metric, self.announced, self.seeds),
            "store": self.store,
            "looks": [look.value() for look in self.looks],
            "decided": self.decided,
            "groups": [dict(row) for row in self.groups],
            "failed": self.failed,
        }


def checked_looks(until: str, max_looks: int) -> int:
    """The number of looks that is announced.

    Raises:
        QueryError: steps are refined until something else than the floor, or by no look.
    """
    if until != UNTIL_FLOOR:
        raise QueryError(f"--steps-until: found {until!r}, expected {UNTIL_FLOOR}")
    if not 1 <= max_looks <= LARGEST_LOOKS:
        raise QueryError(f"--max-looks: found {max_looks}, expected 1 to {LARGEST_LOOKS}")
    return max_looks


def refined(
    request: RunRequest,
    metric: str | None,
    max_looks: int,
    run: Callable[[RunRequest], object],
    tell: Callable[[StepsTaken], object] = lambda _: None,
    loaded: Study | None = None,
    warn: Callable[[str], object] = lambda _: None,
    announce: Callable[[str], object] = lambda _: None,
) -> Refinement:
    """Run, look, record, and add step counts until nothing is left to add or the looks are spent.

    What cannot be answered, or written, is refused before anything is computed.

    Args:
        request: the run of the study whose steps are refined.
        metric: by which; `w1` if it is measured, otherwise the only one.
        max_looks: how many there are at most.
        run: computes what a request lacks; called where a look's points are not all in the store.
        tell: is given each look.
        loaded: the study, where it is none that the request's `study` names.
        warn: is given, in a sentence, what makes the stated level doubtful, and why one waits.
        announce: is given, in a sentence, what is looked at, once nothing is left to refuse.

    Returns:
        All looks that were made.

    Raises:
        QueryError: there is nothing to refine, or nothing to hold it against.
        StudyError: the study cannot be used.
    """
    given = loaded
    if loaded is None:
        with typed(request.study):
            loaded = load_study(request.study, request.overrides)
    else:
        refuse_changes(loaded, request.overrides)
    plan = plan_for(loaded, request.store)
    axes = steps_of(plan)
    metric, announced = refinable(foreseen(plan), metric, axes, max_looks)
    seeds = tuple(sorted({axis.seeds for axis in axes.values()}))
    said = _said_of(loaded.name, metric, announced, seeds)
    Store.check_writable(request.store)
    pairs: Mapping[Group, tuple[Pair, ...]] = announced.pairs[0]
    announce(
        f"{metric} at {sum(map(len, pairs.values()))} pairs of neighbouring step counts, in at most {max_looks} looks"
    )
    for other in other_designs(request.store, said, "steps_until", _design_said):
        warn(other)
    added: dict[Group, tuple[int, ...]] = {}
    looks: list[StepsTaken] = []
    for look in range(max_looks):
        study, override = loaded, ""
        if added:
            blocks = blocks_with_steps(loaded, added, lambda point: group_of(point.labels))
            override = f"grids={json.dumps(blocks)}"
            study = Study.from_spec({**loaded.spec(), "grids": blocks})
        plan = plan_for(study, request.store, retry_failed=request.retry_failed)
        if plan.jobs or not asked_all(request.store, plan):
            with tempfile.TemporaryDirectory() as folder:
                run(with_override(request, None if given is None else study, override, Path(folder)))
        points = open_results(request.store, study.name)
        points = points.isel(point=np.isin(points["point_id"].values.astype(str), [point.id for point in plan.points]))
        looks.append(look_at_steps(points, metric, announced, look, pairs, axes))
        record_look(
            Store.open(request.store),
            study.name,
            json.dumps({**said, **looks[-1].value()}, sort_keys=True),
            provenance(study.name),
            force_unlock=request.force_unlock,
            wait=60 * request.wait,
            waiting=lambda locked: warn(f"waiting: {locked}"),
        )
        tell(looks[-1])
        if not looks[-1].added:
            break
        for group, more in looks[-1].added.items():
            added[group] = (*added.get(group, ()), *more)
        pairs = _halved(looks[-1], axes)
    failed = int((points["status"].values == "failed").sum())
    groups = floors_reached(points, metric, [group for group, own in announced.pairs[0].items() if own])
    return Refinement(loaded.name, request.store, metric, announced, seeds, tuple(looks), tuple(groups), failed)


def _halved(look: StepsTaken, axes: Mapping[Group, GroupSteps]) -> dict[Group, tuple[Pair, ...]]:
    """The pairs that the next look is at."""
    found: dict[Group, tuple[Pair, ...]] = {}
    for row in look.rows:
        if row["middle"] is not None:
            group = group_of(row)
            found[group] = (*found.get(group, ()), *halves((row["from"], row["to"]), axes[group].can_ask))
    return found


def steps_of(plan: Plan) -> dict[Group, GroupSteps]:
    """The steps of every group of a plan, without points that have no answer."""
    found: dict[Group, tuple[Point, set[int], set[int]]] = {}
    for point in plan.points:
        if point.id not in plan.impossible:
            _, steps, seeds = found.setdefault(group_of(point.labels), (point, set(), set()))
            steps.add(point.steps)
            seeds.add(point.cell.seed)
    return {
        group: GroupSteps(tuple(sorted(steps)), len(seeds), _fixed(point), partial(_can_ask, point))
        for group, (point, steps, seeds) in found.items()
    }


def _fixed(point: Point) -> bool:
    return point.cell.exact and not point.sampler.stochastic and point.start == "quantiles"


def _can_ask(point: Point, steps: int) -> bool:
    return Point(point.cell, replace(point.settings, steps=steps)).impossible() is None


def _design_said(one: Spec) -> str:
    seeds = " or ".join(map(str, one["seeds"] or ()))
    pairs = ", ".join(map(str, one["announced_pairs"]))
    return f"the steps of {one['study']} by another design: {one['metric']}, {seeds} seeds, at {pairs} pairs"


def _said_of(study: str, metric: str, announced: StepTree, seeds: Sequence[int]) -> Spec:
    return {
        "study": study,
        "steps_until": UNTIL_FLOOR,
        "floors": FLOORS,
        "metric": metric,
        "seeds": list(seeds),
        "level_of_all": announced.level,
        "announced_pairs": [sum(map(len, pairs.values())) for pairs in announced.pairs],
        "rule": RULE,
    }
