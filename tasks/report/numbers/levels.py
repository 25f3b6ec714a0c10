"""A kept trajectory on the line, level by level: which levels are drawn, and how wide x is at each
of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

    from tasks.report.lookup.targets import Target

Array = NDArray[np.float64]


def levels_of(kept: xr.DataArray, most: int) -> tuple[NDArray[np.int64], Array, Array, Array]:
    """Indices of at most `most` levels, ends included, with their values ``[level, sample]``, alpha
    and sigma.
    """
    n = kept.sizes["level"]
    chosen = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
    values = kept.transpose("level", "sample", ...).values.astype(float).reshape(n, -1)[chosen]
    alpha, sigma = (np.broadcast_to(kept[name].values.astype(float), n)[chosen] for name in ("alpha", "sigma"))
    return chosen, values, alpha, sigma


def stays(sigma: Array) -> bool:
    """Whether all moves, but perhaps a last one to the data, are made at one noise level."""
    return len(sigma) > 2 and bool(np.ptp(sigma[:-1]) <= 1e-9 * sigma[0])


def scales_of(target: Target, alphas: Array, sigmas: Array) -> tuple[Array, bool]:
    """What x is divided by at each level: its standard deviation, if that changes by more than ten,
    which is told; else 1.
    """
    scales = np.array([target.standard_deviation(a, s) for a, s in zip(alphas, sigmas, strict=True)])
    standard = bool(scales.max() > 10 * scales.min())
    return (scales if standard else np.ones_like(scales)), standard


def edges_around(values: Array, bins: int) -> Array:
    """Even bins around nearly all of the values."""
    finite = values[np.isfinite(values)]
    low, high = (np.quantile(finite, [0.002, 0.998]) if finite.size else np.array([0.0, 1.0])).tolist()
    margin = 0.1 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, bins + 1)


def histogram(values: Array, edges: Array) -> Array:
    """The density of values in each bin; those that are not finite, or outside, count among all."""
    counts = np.histogram(values[np.isfinite(values)], edges)[0]
    found: Array = counts / max(values.size, 1) / np.diff(edges)
    return found
