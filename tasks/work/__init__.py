"""What one worker does with one shard. Values in, values out: it knows neither the store nor
Prefect nor Ray.

- `data`: the training sets; `stacks`: the denoisers, trained, stored or exact;
- `sampling`: from start noise to samples; `measuring`: the metrics of an answer;
- `shard`: the two stages, training and the sweep; `answers`: what goes in and what comes out.
- `guilty`: a shard whose worker ended, done `apart` in watched processes, each a `child`;
  `deadline`: how long a shard may take; `code`: whether a worker has the code of the run;
  `raised`: what is the work's own error.

A cell that fails is reported and the others go on.
"""

from __future__ import annotations

from tasks.work.answers import CellAnswer, PointAnswer, Progress, Requests, SweepAnswer, TrainingAnswer
from tasks.work.data import DataAnswer, DataKey, data_key, training_set, training_sets
from tasks.work.sampling import states
from tasks.work.shard import left_to_sweep, lost_sweep, lost_training, sweep_shard, train_shard
from tasks.work.stacks import stack_of

__all__ = [
    "CellAnswer",
    "DataAnswer",
    "DataKey",
    "PointAnswer",
    "Progress",
    "Requests",
    "SweepAnswer",
    "TrainingAnswer",
    "data_key",
    "left_to_sweep",
    "lost_sweep",
    "lost_training",
    "stack_of",
    "states",
    "sweep_shard",
    "train_shard",
    "training_set",
    "training_sets",
]
