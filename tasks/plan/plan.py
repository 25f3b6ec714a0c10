"""What a study asks for, what is known already, and what is therefore to be done.

Everything here is a pure function of the study and of what the store says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tasks.plan.cell import Cell
from tasks.plan.expansion import keeps_trajectory, points_of
from tasks.plan.pace import AS_PLANNED, Paces
from tasks.plan.point import Point
from tasks.plan.shards import Job, Shard, aimed_at, packed, stack_key
from tasks.study import Study


@dataclass(frozen=True)
class StoredPoint:
    """What a store says of one point."""

    status: str  # ok, failed or skipped
    metrics: Mapping[str, int]  # column: version of the metric that it was measured by
    samples: bool
    trajectory: bool
    sources: frozenset[tuple[str, str]] = frozenset()  # own modules that computed it, and digits of their source


@dataclass(frozen=True)
class Plan:
    """Every point of a study, sorted by what is to happen to it."""

    study: Study
    points: tuple[Point, ...]
    impossible: Mapping[str, str]  # point id: reason
    done: frozenset[str]
    failed: frozenset[str]  # failed before, left alone
    jobs: tuple[Job, ...]
    unrecorded: frozenset[str]  # impossible, and the store does not say so yet
    reasons: Mapping[str, str] = field(default_factory=dict)  # id of a point to be computed: why
    other_sources: Mapping[str, int] = field(
        default_factory=dict
    )  # own module: done points that another text of it computed

    @property
    def missing(self) -> int:
        """Number of points to be computed."""
        return sum(len(job.points) for job in self.jobs)

    @property
    def cells(self) -> dict[str, Cell]:
        """All cells by id, in the study's order."""
        return {point.cell.id: point.cell for point in self.points}

    def shards(self, workers: int, paces: Paces = MappingProxyType({})) -> list[Shard]:
        """The jobs packed for a number of workers: the shortest first, so that there is something to
        look at soon, then the longest first. Packing changes no number on processors; on a GPU the
        last bits are those of a bucket, which follows from the number of workers and of jobs left,
        and from the pace of the device.

        Args:
            workers: how many shards are computed at once.
            paces: what the devices that compute them need for it; none: as planned, for one core each.
        """
        groups: dict[str, list[Job]] = {}
        for job in self.jobs:
            groups.setdefault(stack_key(job.cell), []).append(job)
        pace_of = {kind: paces.get(kind, AS_PLANNED) for kind in groups}
        total = sum(pace_of[kind].seconds(job) for kind, group in groups.items() for job in group)
        target = aimed_at(total, workers)
        shards = [shard for kind, group in groups.items() for shard in packed(group, target, pace_of[kind])]
        shards.sort(key=lambda shard: -shard.seconds(paces))
        return shards[-1:] + shards[:-1]


NEW, FORCED, FAILED_BEFORE = "new", "forced", "failed before"


def make_plan(
    study: Study,
    known: Mapping[str, StoredPoint],
    trained: Iterable[str],
    *,
    retry_failed: bool = False,
    forced: Collection[str] = (),
    sources: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """What is done, failed, impossible and missing, and why.

    `known` is what the store says of points by id, `trained` the ids of cells whose weights it
    holds. A point is done if it is stored with all that the study wants of it: its metrics as they
    are now, its samples, its trajectory. The points in `forced` are computed in any case, and their
    cells trained again. `sources` are the digits of each own module's source as it is now: who
    changes one without raising a version is told, and nothing is computed again for it.
    """
    points = points_of(study)
    weights, again = set(trained), set(forced)
    impossible = {point.id: reason for point in points if (reason := point.impossible())}
    done, failed, missing, reasons = set(), set(), [], {}
    for point in points:
        before = known.get(point.id)
        if point.id in impossible:
            continue
        if before is not None and before.status == "failed" and not retry_failed and point.id not in again:
            failed.add(point.id)
            continue
        if point.id in again:
            reason = FORCED
        elif before is None:
            reason = NEW
        elif before.status == "failed":
            reason = FAILED_BEFORE
        else:
            lacking = _lacking(before, {m.column: m.version for m in study.metrics if point.refuses(m) is None})
            lacking += ["samples not kept"] if study.keep.samples and not before.samples else []
            lacking += ["trajectory not kept"] if keeps_trajectory(study, point) and not before.trajectory else []
            reason = "; ".join(lacking)
        if reason:
            missing.append(point)
            reasons[point.id] = reason
        else:
            done.add(point.id)
    by_cell: dict[str, list[Point]] = {}
    for point in missing:
        by_cell.setdefault(point.cell.id, []).append(point)
    jobs = tuple(
        Job(
            group[0].cell,
            tuple(group),
            train=group[0].cell.training is not None
            and (cell_id not in weights or any(point.id in again for point in group)),
            metrics=study.metrics,
        )
        for cell_id, group in by_cell.items()
    )
    unrecorded = frozenset(i for i in impossible if i not in known)
    other = Counter(
        module
        for point in done
        for module in {name for name, digits in known[point].sources if sources.get(name, digits) != digits}
    )
    return Plan(study, tuple(points), impossible, frozenset(done), frozenset(failed), jobs, unrecorded, reasons, other)


def _lacking(before: StoredPoint, wanted: Mapping[str, int]) -> list[str]:
    """What of the wanted metrics the store does not know, or knows by another version."""
    new = sorted(column for column in wanted if column not in before.metrics)
    changed = [
        f"version of {column} changed from {before.metrics[column]} to {version}"
        for column, version in sorted(wanted.items())
        if before.metrics.get(column, version) != version
    ]
    return [*([f"{', '.join(new)} not measured"] if new else []), *changed]
