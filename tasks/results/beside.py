"""What another store has of a study's questions: those that ship with the package, a colleague's, last
year's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from tasks.columns import PLACE
from tasks.plain import Spec
from tasks.plan import NEW, Plan
from tasks.results.explain import Reason, explain
from tasks.results.read import Answers, open_results
from tasks.results.stored import plan_against, plan_for
from tasks.store import Store
from tasks.study import Study
from tasks.study.axes import Keep
from tasks.where.language import QueryError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class HeldElsewhere:
    """What another store has of a study's points that have an answer.

    Args:
        study: the study's name.
        store: the other store.
        asked: how many points the study has.
        answered: how many of them the store has answered, measured as now.
        failed: how many have failed there.
        differing: why others are not the same there: versions, settings, metrics.
        studies: those that the store has.
    """

    study: str
    store: str
    asked: int
    answered: int
    failed: int
    differing: tuple[Reason, ...]
    studies: tuple[str, ...]

    @property
    def different(self) -> int:
        """How many points stand there in another form."""
        return sum(len(reason.points) for reason in self.differing)

    @property
    def absent(self) -> int:
        """How many points are not there."""
        return self.asked - self.answered - self.failed - self.different

    def value(self) -> Spec:
        """As plain values."""
        return {
            "store": self.store,
            "points": {
                "asked": self.asked,
                "answered": self.answered,
                "different": self.different,
                "failed": self.failed,
                "absent": self.absent,
            },
            "differences": [reason.value() for reason in self.differing],
        }


def held_elsewhere(study: Study, store: str) -> HeldElsewhere:
    """What another store has of a study; samples and trajectories, which it may have left behind, are
    not asked for.

    Raises:
        StoreUnavailable: there is no store that can be read.
    """
    opened = Store.open(store)
    plan = plan_against(opened, study.model_copy(update={"keep": Keep()}))
    answers = Answers(opened)
    reasons = explain(plan, answers)
    return HeldElsewhere(
        study.name,
        store,
        len(plan.points) - len(plan.impossible),
        len(plan.done),
        len(plan.failed),
        tuple(reason for reason in reasons if reason.text != NEW),
        tuple(answers.studies),
    )


@overload
def planned(
    source: Study | str | Path,
    store: str = "results",
    overrides: Sequence[str] = (),
    *,
    retry_failed: bool = False,
    against: None = None,
) -> Plan: ...


@overload
def planned(
    source: Study | str | Path,
    store: str = "results",
    overrides: Sequence[str] = (),
    *,
    retry_failed: bool = False,
    against: str,
) -> tuple[Plan, HeldElsewhere]: ...


def planned(
    source: Study | str | Path,
    store: str = "results",
    overrides: Sequence[str] = (),
    *,
    retry_failed: bool = False,
    against: str | None = None,
) -> Plan | tuple[Plan, HeldElsewhere]:
    """What a run of a study would do: which points are done, missing, failed or impossible, and
    why.

    Nothing is written.

    Args:
        source: a file, the name of a shipped study, or a study that was loaded.
        store: a folder, or ``s3://bucket/prefix``; it need not be there.
        overrides: changes to what is loaded, such as ``"steps=[1, 2, 4]"``.
        retry_failed: points that failed before are to be computed again.
        against: another store, such as ``"atlas:"``.

    Returns:
        The plan; with `against` also what that store has of the study.

    Raises:
        StudyError: the study cannot be used, or asks nothing.
        StoreUnavailable: a store cannot be read.
        QueryError: the other store has none of the study's points.
    """
    made = plan_for(source, store, overrides, retry_failed=retry_failed)
    if against is None:
        return made
    held = held_elsewhere(made.study, against)
    refuse_strangers("against", [held])
    return made, held


def refuse_strangers(option: str, held: Sequence[HeldElsewhere]) -> None:
    """Another store that has nothing of what is asked cannot be held against it.

    Raises:
        QueryError: it has no point of any of the studies.
    """
    if all(one.absent == one.asked for one in held):
        names, some = ", ".join(one.study for one in held), held[0]
        there = f"its studies: {', '.join(some.studies)}" if some.studies else "it has no study"
        raise QueryError(f"{option} {some.store}: it has none of the points of {names} ({there})")


def points_beside(points: xr.Dataset, store: str, as_of: str | None = None) -> xr.Dataset:
    """The points of another store that stand for the same questions as some of one's own: of the same
    id, or, where it has none of that, of the same labels and seed.

    Args:
        points: one's own, as `tasks.results.open_results` gives them.
        store: the other store.
        as_of: a snapshot, a tag or a time of it.
    """
    other = open_results(store, as_of=as_of)
    own, there = (one["point_id"].values.astype(str) for one in (points, other))
    lacking = ~np.isin(own, there)
    places = [_places(one) for one in (points, other)]
    sought = {place for place, lacks in zip(places[0], lacking.tolist(), strict=True) if lacks}
    keep = np.isin(there, own) | np.array([place in sought for place in places[1]], dtype=bool)
    return other.isel(point=np.flatnonzero(keep))


def _places(points: xr.Dataset) -> list[tuple[str, ...]]:
    columns = [map(str, points[name].values.tolist()) for name in PLACE]
    return list(zip(*columns, strict=True))
