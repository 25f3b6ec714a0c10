"""What is asked of a run, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from diffusion.errors import DiffatlasError, WrongValue

LEAST_SHARD_LIMIT = 0.05
"""Minutes; a worker that is ended sooner has not begun."""


def default_page(study: str) -> Path:
    """Where a study's page goes by default."""
    return Path("reports") / f"{study}.html"


def check_shard_limit(minutes: float | None) -> None:
    """Refuse a limit of a shard that cannot be one.

    Raises:
        WrongValue: it is no number, or too short.
    """
    good = isinstance(minutes, int | float) and not isinstance(minutes, bool) and minutes >= LEAST_SHARD_LIMIT
    if minutes is not None and not good:
        raise WrongValue(
            f"shard_limit: found {minutes!r}; accepted: minutes, {LEAST_SHARD_LIMIT:g} or more, or None: ten times what "
            "is planned, and ten at least"
        )


@dataclass(frozen=True)
class RunRequest:
    """The parameters of the flow `run-study`, which tells what each means."""

    study: str
    store: str = "results"
    overrides: tuple[str, ...] = ()
    ray_address: str | None = None
    workers: int | None = None
    retry_failed: bool = False
    force: str | None = None
    force_unlock: bool = False
    report: str | None = None
    quiet: bool = False
    resources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    device: str = "cpu"
    wait: float = 0.0
    shard_limit: float | None = None

    def parameters(self) -> dict[str, Any]:
        """By name, as plain values that Prefect records."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        resources = {stage: dict(requested) for stage, requested in self.resources.items()}
        return {**given, "overrides": list(self.overrides), "resources": resources}


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    study: str
    store: str
    snapshot: str
    computed: int  # points
    trained: int  # cells
    committed: int  # transactions
    failed: Mapping[str, str]  # point id: reason, of the whole study
    report: str
    moved: str  # what changed since the study was last run, in one sentence; empty the first time
    untold: str = ""  # what Prefect's pages lack, in one sentence


class PointsHaveFailed(DiffatlasError):
    """A run that has committed all it could, of a study with failed points: `outcome` says which."""

    kind = "points-failed"

    def __init__(self, text: str, outcome: Outcome) -> None:
        super().__init__(text)
        self.outcome = outcome

    def __reduce__(self) -> tuple[type[PointsHaveFailed], tuple[str, Outcome]]:
        return type(self), (str(self), self.outcome)
