r"""Where an error comes from: each metric of each point, split into four parts that add up.

With m(N) a metric of a point's samples after N steps, ``m_exact(N)`` the same question put to the
exact denoiser (same data set, schedule, sampler, grid, steps, seed: the same noise), ``m_limit``
the exact denoiser's flow followed without discretisation error, and the floor, what as many perfect
samples would have:

    m = network + discretisation + prior + floor

    network         m - m_exact          what the trained network adds (zero for the exact denoiser itself)
    discretisation  m_exact - m_limit    what N steps add (of a stochastic sampler: also its own law at finite N)
    prior           m_limit - floor      what is lost by starting from a normal law at t_max and ending at t_min

These are differences of numbers with sampling noise, so any of them may be negative by about the
floor; the trained and the exact row share their noise, which is why `network` is sharper than
either. Where the data set has no exact denoiser there is only the floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.columns import PARTS, MetricColumns
from tasks.texts import Coded, places

QUESTION = ("dataset", "schedule", "sampler", "grid", "steps", "seed", "samples", "start")
_MOST_PLACES = 1 << 62  # of a product of numbers of labels that fits an integer


def exact_rows(question: Sequence[Coded], candidates: np.ndarray) -> np.ndarray:
    """Of each row, the first candidate that was asked the same; -1 where there is none ``[row]``.

    Args:
        question: the columns of `QUESTION`.
        candidates: which rows are of the exact denoiser and answered ``[row]``.
    """
    key, size = np.zeros(len(candidates), dtype=np.int64), 1
    for column in question:
        codes, number = places(column)
        if size * number > _MOST_PLACES:
            labels, key = np.unique(key, return_inverse=True)
            size = len(labels)
        key, size = key * number + codes, size * number
    of_exact = np.flatnonzero(candidates)
    if not len(of_exact):
        return np.full(len(key), -1)
    known, first = np.unique(key[of_exact], return_index=True)
    place = np.minimum(np.searchsorted(known, key), len(known) - 1)
    return np.where(known[place] == key, of_exact[first[place]], -1)


def parts(metric: MetricColumns, values: Mapping[str, np.ndarray], exact: np.ndarray) -> dict[str, np.ndarray]:
    """The columns ``<metric>_<part>`` and ``<metric>_limit`` of a metric; NaN where there is no
    exact row to compare with.

    Args:
        metric: whose.
        values: the metric's column, that of its floor and the stored one of its limit.
        exact: which row each is compared with, as `exact_rows` finds it ``[row]``.
    """
    own, floor = values[metric.name], values[metric.floor]
    known = exact >= 0
    at_steps, limit = (np.where(known, values[name][exact], np.nan) for name in (metric.name, metric.limit))
    differences = [own - at_steps, at_steps - limit, limit - floor]  # in the order of `PARTS`
    found = dict(zip((*(metric.parts[part] for part in PARTS), metric.limit), (*differences, limit), strict=True))
    return {name: np.where(np.isnan(own), np.nan, column) for name, column in found.items()}


def split_metrics(names: Mapping[str, object], metrics: Sequence[str]) -> list[str]:
    """Those of the metrics that are split: what was stored has their limit."""
    return [name for name in metrics if MetricColumns(name).limit in names]


def split(table: Mapping[str, np.ndarray], metrics: Sequence[str]) -> dict[str, np.ndarray]:
    """The parts of every metric that has a limit, of a table that holds everything."""
    requested = split_metrics(table, metrics)
    if not requested:
        return {}
    candidates = (table["formulation"] == "exact") & (table["status"] == "ok")
    exact = exact_rows([table[name] for name in QUESTION], candidates)
    return {n: values for m in requested for n, values in parts(MetricColumns(m), table, exact).items()}
