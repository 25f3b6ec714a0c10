"""What a run tells the outside: events of the Prefect server in force, which its automations answer
(`deployments/automations.yaml`).

Telling never decides about a run: whatever goes wrong here is a line in its log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from prefect import get_run_logger
from prefect.events import emit_event

from diffusion.errors import DiffatlasError
from flows.events import Compared, Event
from tasks.compare import moves
from tasks.messages import counted
from tasks.study import load_study

if TYPE_CHECKING:
    from flows.request import Outcome, RunRequest
    from tasks.plain import Spec

FINISHED = "diffatlas.study.finished"
"""A run came to its end: all that could be computed is committed. `failed` counts the points that
could not.
"""

FAILED = "diffatlas.study.failed"
"""Points of a study have failed, or an error ended the run."""

MOVED = "diffatlas.metric.moved"
"""Numbers are not what they were before the run; `tasks.compare.told` says which it names."""

POINTS_FAILED = "diffatlas.points-failed"
"""Label of the resource of `FINISHED`: how many, as text; triggers can match labels and no payload.
"""

_LONGEST = 2000  # characters of a reason
_REASONS = 10


class MovesTold:
    """Tells which numbers moved, once for a run, if any did."""

    def __init__(self, store: str) -> None:
        self._store = store

    def __call__(self, event: Event) -> None:
        if isinstance(event, Compared):
            _safely(lambda: self._tell(event))

    def _tell(self, event: Compared) -> None:
        found = moves(event.comparison)
        if found["moved"]:
            snapshots = {"before": event.since, "after": event.comparison.provenance[1].get("snapshot", "")}
            _emit(MOVED, event.study, self._store, {**snapshots, "summary": event.summary, **found})


@contextmanager
def end_told(request: RunRequest) -> Iterator[Callable[[Outcome], None]]:
    """Tell how the run in the block ends: with the outcome that it is given, or with an error.

    A run that somebody cancels tells nothing.
    """
    try:
        yield lambda outcome: _safely(lambda: _tell_end(outcome))
    except Exception as error:
        reason = _reason(error)
        _safely(lambda: _emit(FAILED, _name(request), request.store, {**reason, "points": []}))
        raise


def _tell_end(outcome: Outcome) -> None:
    counts = {"computed": outcome.computed, "trained": outcome.trained, "committed": outcome.committed}
    about = {**counts, "failed": len(outcome.failed), "snapshot": outcome.snapshot, "report": outcome.report}
    labels = {POINTS_FAILED: str(len(outcome.failed))}
    _emit(FINISHED, outcome.study, outcome.store, {**about, "moved": outcome.moved}, labels)
    if outcome.failed:
        reasons = sorted(set(outcome.failed.values()))
        first = "\n".join(reason.strip().split("\n")[0] for reason in reasons[:_REASONS])
        more = f"\nand {len(reasons) - _REASONS} more reasons" if len(reasons) > _REASONS else ""
        reason = {
            "kind": "points-failed",
            "reason": _short(f"{counted(len(outcome.failed), 'point')} failed:\n{first}{more}"),
        }
        _emit(FAILED, outcome.study, outcome.store, {**about, **reason, "points": sorted(outcome.failed)[:_REASONS]})


def _reason(error: Exception) -> Spec:
    if isinstance(error, DiffatlasError):
        return {"kind": error.kind, "reason": _short(str(error))}
    return {"kind": type(error).__name__, "reason": _short(f"{type(error).__name__}: {error}")}


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _name(request: RunRequest) -> str:
    """The study's own name; that of its file where it cannot be read."""
    try:
        return load_study(request.study, request.overrides).name
    except DiffatlasError:
        return Path(request.study).stem


def _emit(event: str, study: str, store: str, payload: Spec, labels: Mapping[str, str] = MappingProxyType({})) -> None:
    """Hand an event over to Prefect, which sends it besides what the run does."""
    resource = {
        "prefect.resource.id": f"diffatlas.study.{study}",
        "prefect.resource.name": study,
        "diffatlas.store": store,
        **labels,
    }
    emit_event(event, resource, payload={"study": study, "store": store, **payload})


def _safely(tell: Callable[[], object]) -> None:
    try:
        tell()
    except Exception as error:  # noqa: BLE001 - whatever it is, the run has done its work
        get_run_logger().warning("not told: %s: %s", type(error).__name__, error)
