"""What one worker does with one shard. Values in, values out: it knows neither the store nor Prefect nor Ray.

- `data`: the training sets; `stacks`: the denoisers, trained, stored or exact;
- `sampling`: from start noise to samples; `measuring`: the metrics of an answer;
- `shard`: all of these in order, for the cells of one shard; `answers`: what goes in and what comes out.

A cell that fails is reported and the others go on.
"""

from __future__ import annotations

from tasks.work.answers import CellAnswer, PointAnswer, Progress, Requests, ShardAnswer
from tasks.work.data import DataKey, data_key, training_set
from tasks.work.sampling import states
from tasks.work.shard import run_shard
from tasks.work.stacks import stack_of

__all__ = [
    "CellAnswer",
    "DataKey",
    "PointAnswer",
    "Progress",
    "Requests",
    "ShardAnswer",
    "data_key",
    "run_shard",
    "stack_of",
    "states",
    "training_set",
]
