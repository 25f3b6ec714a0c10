"""What a store holds of each study, and who writes to it now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.results.live import Live, told
from tasks.results.read import Answers
from tasks.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from tasks.store import Snapshot
    from tasks.store.holder import Holder


@dataclass(frozen=True)
class FailedPoints:
    """All points of a study that failed for one reason; what they ask: ``uniform: edm with heun``."""

    reason: str
    questions: tuple[str, ...]
    point_ids: tuple[str, ...]


@dataclass(frozen=True)
class StudyStatus:
    """How many points a study asks for, and what became of them."""

    study: str
    asked: int
    ok: int
    failed: int
    skipped: int  # they have no answer
    failures: tuple[FailedPoints, ...] = ()  # the most frequent reason first

    @property
    def missing(self) -> int:
        """Points that nobody has computed yet."""
        return self.asked - self.ok - self.failed - self.skipped


@dataclass(frozen=True)
class Status:
    """A store as its newest snapshot has it."""

    store: str
    snapshot: Snapshot
    studies: tuple[StudyStatus, ...]
    holder: Holder | None  # whose note says that it writes
    live: Live | None  # how far that run is; known on its own machine

    @property
    def abandoned(self) -> bool:
        """Whether the holder is known to have ended without giving the store back."""
        return self.holder is not None and self.holder.gone


def status_of(uri: str) -> Status:
    """The status of a store; nothing is locked and nothing is waited for.

    Raises:
        StoreUnavailable: there is no store, or it cannot be read.
    """
    store = Store.open(uri)
    holder = store.holder()
    answers = Answers(store)
    table = answers.table()
    found = dict(zip(table["point_id"].tolist(), table["status"].tolist(), strict=True))
    failed = {point for point, word in found.items() if word == "failed"}
    studies = []
    for name in answers.studies:
        ids = answers.asked(name)
        counts = Counter(found[point] for point in ids if point in found)
        failures = _failures(table, failed.intersection(ids))
        studies.append(StudyStatus(name, len(ids), counts["ok"], counts["failed"], counts["skipped"], failures))
    live = told(holder.token) if holder is not None and not holder.gone else None
    return Status(uri, answers.snapshot, tuple(studies), holder, live)


def _failures(table: Mapping[str, np.ndarray], failed: Iterable[str]) -> tuple[FailedPoints, ...]:
    wanted = set(failed)
    if not wanted:
        return ()  # columns are decoded only where something failed
    names = ("point_id", "error", "dataset", "formulation", "sampler")
    groups: dict[str, list[tuple[str, str]]] = {}
    for point, error, dataset, formulation, sampler in zip(*(table[name].tolist() for name in names), strict=True):
        if point in wanted:
            question = (point, f"{dataset}: {formulation} with {sampler}")
            groups.setdefault(error or "no reason was recorded", []).append(question)
    found = [
        FailedPoints(reason, tuple(sorted({question for _, question in points})), tuple(point for point, _ in points))
        for reason, points in groups.items()
    ]
    return tuple(sorted(found, key=lambda one: -len(one.point_ids)))
