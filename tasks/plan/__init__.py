"""What a study asks for, what is known already, and what is therefore to be done.

- `cell`: one denoiser: dataset x formulation x schedule x seed x training settings;
- `settings`: sampler x grid x guidance x steps (x number of samples and layout of the start noise);
  `point`: one question to a cell;
- `expansion`: from a study's axes to its points;
- `cost`: what an answer costs; `shards`: cells packed for one worker;
- `plan`: what is done, failed, impossible and missing, and why; `warnings`: what a plan asks
  without use.

Ids are hashes of the canonical spec, defaults written out, and of the version of every component;
they do not depend on order, spelling, worker or time. Everything here is a pure function.
"""

from __future__ import annotations

from tasks.plan.cell import ENGINE_VERSION, Cell, without_signed_zeros
from tasks.plan.expansion import keeps_trajectory, points_of
from tasks.plan.plan import NEW, Plan, StoredPoint, make_plan
from tasks.plan.point import Point
from tasks.plan.settings import SamplingSettings
from tasks.plan.shards import Job, Shard

__all__ = [
    "ENGINE_VERSION",
    "NEW",
    "Cell",
    "Job",
    "Plan",
    "Point",
    "SamplingSettings",
    "Shard",
    "StoredPoint",
    "keeps_trajectory",
    "make_plan",
    "points_of",
    "without_signed_zeros",
]
