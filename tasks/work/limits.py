"""The limits of exact answers: each metric of the samples that infinitely many steps would give."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffusion.analysis.flow_limit import flow_limits
from diffusion.metrics import Metric
from diffusion.models import Denoiser
from tasks.columns import MetricColumns
from tasks.plan import Point
from tasks.work.answers import Progress, Requests
from tasks.work.sampling import guided, in_own_units, start_noise
from tasks.work.stacks import Models

_MOST_NUMBERS = 1 << 16  # that move together: the solver keeps thirteen slopes of each


class Limits:
    """The limits of a shard's points, found when the first of them is asked for.

    Points of one flow (`Point.flow`) share a limit, and flows of one guidance and one number of
    samples are followed together, which costs little more than one of them where samples are few. A
    limit does not depend on what is followed beside it.
    """

    def __init__(self, points: Sequence[Point], models: Models, requests: Requests, progress: Progress) -> None:
        self._models, self._requests, self._progress = models, requests, progress
        self._left: dict[str, dict[str, Point]] = {}  # by what a stack shares, and by flow
        for point in points:
            if point.has_limit:
                self._left.setdefault(_stack(point), {}).setdefault(point.flow, point)
        self._found: dict[str, dict[str, float]] = {}

    def of(self, point: Point) -> dict[str, float]:
        """The columns of the point's limits; none where its flow cannot be followed, which the split
        tells as NaN: the answer itself is sound.
        """
        if not point.has_limit:
            return {}
        if point.flow not in self._found:
            self._follow(point)
        return self._found[point.flow]

    def _follow(self, point: Point) -> None:
        """The limit of this point, and of others along with it."""
        left = self._left.setdefault(_stack(point), {})
        most = max(1, _MOST_NUMBERS // (point.samples * point.cell.dataset.dim))
        others = [left[flow] for flow in left if flow != point.flow][: most - 1]
        try:
            self._follow_together([point, *others])
        except Exception:  # a user's data set may raise anything
            if not others:
                raise
            left.clear()  # each alone from now on: the others must not suffer
            self._follow_together([point])

    def _follow_together(self, points: Sequence[Point]) -> None:
        start = start_noise(points)
        start = start * torch.tensor([point.schedule.prior_std for point in points], dtype=torch.float64)[:, None, None]
        denoiser = guided(points, self._models([point.cell for point in points]))
        assert isinstance(denoiser, Denoiser)  # noqa: S101 - asked of exact models only
        schedules, scales = zip(*((point.schedule, point.cell.dataset.working.std) for point in points), strict=True)
        for point, samples in zip(points, flow_limits(denoiser, start, schedules, scales), strict=True):
            self._found[point.flow] = {} if samples is None else self._measured(point, samples)
            self._left[_stack(point)].pop(point.flow, None)
            self._progress(point.limit_work() + point.measuring_work(self._requests.metrics), 0, 0)

    def _measured(self, point: Point, samples: torch.Tensor) -> dict[str, float]:
        samples = in_own_units([point], samples[None])[0]
        return {
            MetricColumns(metric.column).limit: metric.evaluate(samples, point.target)
            for metric in self._requests.metrics
            if isinstance(metric, Metric) and point.refuses(metric) is None
        }


def _stack(point: Point) -> str:
    """What flows agree in that are followed together."""
    guidance = point.guidance.spec() if point.guidance else None
    return f"{point.samples} {point.start} {guidance}"
