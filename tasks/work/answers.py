"""What a shard is asked and what it gives: plain values that travel between processes."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from diffusion.metrics import BaseMetric, Profile
from tasks.plan import Cell, Point


class Progress(Protocol):
    """Whoever follows the work: planned seconds, cells and points that were done since the last call,
    and what is being done, for a person; empty if nothing new is to be said.
    """

    def __call__(self, seconds: float, cells: int, points: int, doing: str = "", /) -> object: ...


Models = Callable[[Sequence[Cell]], object]
"""The models of some cells, to be asked together; what they can be asked is their type:
`diffusion.models`.
"""


@dataclass(frozen=True)
class Requests:
    """What the study wants of each point, besides its id."""

    metrics: tuple[BaseMetric, ...]
    samples: bool
    trajectories: frozenset[str]  # ids of the points whose path is kept


@dataclass
class CellAnswer:
    """A trained (or failed) cell."""

    cell: Cell
    error: str | None
    seconds: float
    losses: list[float]
    loss_steps: list[int]
    weights: bytes | None
    device: str = ""  # on what it was trained; empty: where the whole answer was computed


@dataclass
class PointAnswer:
    """An answered (or failed) question."""

    point: Point
    error: str | None
    nfe: int = -1
    seconds: float = float("nan")
    metrics: dict[str, float] = field(default_factory=dict)
    samples: np.ndarray | None = None
    trajectory: tuple[np.ndarray, np.ndarray] | None = None


@dataclass
class TrainingAnswer:
    """What training a shard gives: its trained cells, and the points of those that failed, which
    nobody asks any more.
    """

    cells: list[CellAnswer]
    points: list[PointAnswer]
    device: str
    seconds: float

    @property
    def weights(self) -> dict[str, bytes]:
        """The safetensors files by cell id."""
        return {answer.cell.id: answer.weights for answer in self.cells if answer.weights is not None}


@dataclass
class SweepAnswer:
    """What asking a shard's questions gives."""

    cells: list[CellAnswer]  # the exact ones, which nothing trains
    points: list[PointAnswer]
    profiles: dict[str, Profile]  # by cell id: the error of the score at noise levels
    device: str
    seconds: float
    unanswered: tuple[str, ...] = ()  # metrics of a model that cannot be measured, each with cell and reason


def reason_of(error: BaseException) -> str:
    """What was raised, and where, on one line."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.name}, line {where.lineno} of {where.filename.rsplit('/', 1)[-1]})"
