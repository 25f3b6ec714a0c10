"""The law of x_t along a kept trajectory on the line: histograms, and the exact density beside them.

Where no formula of the noised law is known, and on the way from the data to the noise as a second
opinion, the Fokker-Planck equation gives it (`lookup.targets.solved`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.report.lookup.targets import solved
from tasks.report.numbers.levels import edges_around, histogram, levels_of, scales_of, stays
from tasks.report.text import number

if TYPE_CHECKING:
    import xarray as xr

    from diffusion.schedules import Schedule
    from tasks.report.lookup.targets import Target

Array = NDArray[np.float64]
_BINS = 80
_BINS_OF_ONE = 60


@dataclass(frozen=True)
class StoredMarginals:
    """Histograms of a trajectory at some levels, all in the same bins.

    Args:
        levels: Which levels, ``[level]``.
        values: The states less `shift` divided by `scales`, ``[level, sample]``.
        sigmas: The noise at each level.
        scales: What x is divided by: see `levels.scales_of`.
        standard: Whether that is its standard deviation; else 1.
        shift: The data's mean where x is divided by its deviation and keeps that mean at all levels
            (`Target.shift`); else 0.
        edges: Of the bins, of x as divided.
        densities: Of the samples, ``[level, bin]``.
        exact: The exact mean density in each bin, ``[level, bin]``; None where one is not known.
    """

    levels: NDArray[np.int64]
    values: Array
    sigmas: Array
    scales: Array
    standard: bool
    shift: float
    edges: Array
    densities: Array
    exact: Array | None
    known: Array  # the exact densities that are known, ``[some levels, bin]``

    def named(self, x: str, deviation: str) -> str:
        """What `values` and `edges` are, for an axis: x, or x divided by its deviation."""
        if not self.standard:
            return x
        return f"({x} − {number(self.shift, 3)}) / {deviation}" if self.shift else f"{x} / {deviation}"

    @property
    def fixed(self) -> bool:
        """Whether all moves are made at one noise level."""
        return stays(self.sigmas)

    @property
    def forward(self) -> bool:
        """Whether the data are its start."""
        return bool(self.sigmas[0] < self.sigmas[-1])

    def farthest(self) -> float:
        """The largest L1 distance of a histogram from the exact density, but at the start; 0 where
        it is not known. Two laws that share nothing are 2 apart.
        """
        if self.exact is None:
            return 0.0
        apart = np.abs(self.densities[1:] - self.exact[1:]).sum(axis=1)
        return max((float(total * np.diff(self.edges)[0]) for total in apart), default=0.0)


def marginals_along(kept: xr.DataArray, target: Target, most: int) -> StoredMarginals:
    """The histograms of a kept trajectory at up to `most` levels."""
    chosen, values, alphas, sigmas = levels_of(kept, most)
    scales, standard = scales_of(target, alphas, sigmas)
    shift = float(target.shift[0]) if standard else 0.0
    scaled = (values - shift) / scales[:, None]
    edges = edges_around(scaled, _BINS)
    exact = [
        target.density(shift + edges * s, a, b)
        for s, a, b in zip(scales, alphas.tolist(), sigmas.tolist(), strict=True)
    ]
    known = np.array([density * s for density, s in zip(exact, scales, strict=True) if density is not None])
    densities = np.array([histogram(row, edges) for row in scaled])
    whole = known if len(known) == len(scaled) else None
    return StoredMarginals(chosen, scaled, sigmas, scales, standard, shift, edges, densities, whole, known)


@dataclass(frozen=True)
class MarginalAtLevel:
    """The histogram of a trajectory at one level, in bins of its own.

    Args:
        level: The level, or the move where all are made at one noise level.
        alpha: The amplitude of the data.
        sigma: The noise.
        mean: Of the samples; NaN where none is finite.
        edges: Of the bins.
        density: Of the samples.
        exact: The exact mean density in each bin; None where it is not known.
        by_equation: The same by the Fokker-Planck equation; None where that is not asked.
    """

    level: int
    alpha: float
    sigma: float
    mean: float
    edges: Array
    density: Array
    exact: Array | None
    by_equation: Array | None


def marginals_at(kept: xr.DataArray, target: Target, schedule: Schedule | None, most: int) -> list[MarginalAtLevel]:
    """The histograms of a kept trajectory at up to `most` levels, each as wide as its samples."""
    chosen, values, alphas, sigmas = levels_of(kept, most)
    times = np.broadcast_to(kept["time"].values.astype(float), kept.sizes["level"])[chosen]
    forward = sigmas[0] < sigmas[-1]
    found = []
    for level, time, row, alpha, sigma in zip(
        chosen.tolist(), times.tolist(), values, alphas.tolist(), sigmas.tolist(), strict=True
    ):
        finite = row[np.isfinite(row)]
        low, high = (np.quantile(finite, [0.001, 0.999]) if finite.size else np.array([0.0, 1.0])).tolist()
        margin = 0.15 * (high - low) or 0.5
        edges = np.linspace(low - margin, high + margin, _BINS_OF_ONE + 1)
        exact = target.density(edges, alpha, sigma)
        by_equation = (
            solved(target, schedule, time, edges)
            if schedule is not None and sigma > 0 and (forward or exact is None)
            else None
        )
        mean = float(np.mean(finite)) if finite.size else float("nan")
        found.append(MarginalAtLevel(level, alpha, sigma, mean, edges, histogram(row, edges), exact, by_equation))
    return found
