"""Both stages of a shard, one after the other in this process: no services needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion.metrics import Profile
from tasks.plan import Shard
from tasks.results.rows import swept_rows, trained_rows
from tasks.store import Rows
from tasks.work import (
    CellAnswer,
    PointAnswer,
    Requests,
    SweepAnswer,
    TrainingAnswer,
    left_to_sweep,
    sweep_shard,
    train_shard,
)


@dataclass(frozen=True)
class ShardAnswer:
    """What training gave, if anything was trained, and what the sweep gave, if anything was left to
    be asked.
    """

    trained: TrainingAnswer | None
    swept: SweepAnswer | None

    @property
    def cells(self) -> list[CellAnswer]:
        return [cell for stage in (self.trained, self.swept) if stage for cell in stage.cells]

    @property
    def points(self) -> list[PointAnswer]:
        return [point for stage in (self.trained, self.swept) if stage for point in stage.points]

    @property
    def profiles(self) -> dict[str, Profile]:
        return self.swept.profiles if self.swept else {}

    @property
    def unanswered(self) -> tuple[str, ...]:
        return self.swept.unanswered if self.swept else ()

    def rows(self) -> Iterator[Rows]:
        """The rows of each stage."""
        seconds = {cell.cell.id: cell.seconds for cell in self.cells}
        if self.trained:
            yield trained_rows(self.trained)
        if self.swept:
            yield swept_rows(self.swept, seconds)


def run_shard(
    shard: Shard, data: Mapping[Any, np.ndarray], weights: Mapping[str, bytes], requests: Requests
) -> ShardAnswer:
    """Train what is to be trained and ask every question of the shard; `weights` are of cells
    trained before.
    """
    trained = train_shard(shard, data) if shard.trained else None
    left = left_to_sweep(shard, trained) if trained else shard
    known = {**weights, **(trained.weights if trained else {})}
    return ShardAnswer(trained, sweep_shard(left, known, requests) if left else None)
