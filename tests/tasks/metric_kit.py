"""Hand-made points whose metrics say of themselves what those of a store do."""

from __future__ import annotations

from collections.abc import Iterable

import xarray as xr

from diffusion.metrics import metrics as registered
from tasks.columns import MetricColumns
from tasks.results.facts import metric_facts
from tasks.study.components import build


def saying(points: xr.Dataset, metrics: Iterable[str]) -> xr.Dataset:
    """The same points; the variables of each metric have the attributes that
    `tasks.results.Answers.points` gives them.
    """
    found = points.copy()
    for name, facts in metric_facts(build(registered, metric) for metric in metrics).items():
        for column in (name, *MetricColumns(name).beside):
            if column in found:
                found[column].attrs.update(better=facts.better, of=facts.of)
    return found
