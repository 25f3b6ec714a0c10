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

from collections.abc import Mapping

import numpy as np

from tasks.columns import PARTS, MetricColumns

_QUESTION = ("dataset", "schedule", "sampler", "grid", "steps", "seed", "samples", "start")


def split(table: Mapping[str, np.ndarray], metrics: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The columns ``<metric>_<part>`` and ``<metric>_limit`` of every metric; NaN where there is no
    exact row to compare with.
    """
    split_metrics = [m for m in map(MetricColumns, metrics) if m.limit in table]
    if not split_metrics:
        return {}
    import pandas as pd

    names = [name for m in split_metrics for name in (m.name, m.limit)]
    frame = pd.DataFrame({name: table[name] for name in (*_QUESTION, *names)})
    exact = frame[(table["formulation"] == "exact") & (table["status"] == "ok")].drop_duplicates(list(_QUESTION))
    paired = frame[list(_QUESTION)].merge(exact, on=list(_QUESTION), how="left")
    columns: dict[str, np.ndarray] = {}
    for m in split_metrics:
        own, floor = table[m.name], table[m.floor]
        at_steps, limit = paired[m.name].to_numpy(), paired[m.limit].to_numpy()
        known = [own - at_steps, at_steps - limit, limit - floor]  # in the order of `PARTS`
        found = dict(zip((*(m.parts[part] for part in PARTS), m.limit), (*known, limit), strict=True))
        columns |= {name: np.where(np.isnan(own), np.nan, values) for name, values in found.items()}
    return columns
