"""Where samples in the plane, or in more dimensions, are looked at from: a plane, a window, bins.

Two-dimensional samples are seen as they are. Of more than three dimensions the plane of the first
two principal axes of the target is seen (of the samples, where the target is not known): the one on
which the target's projection has the largest variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.report.numbers.kept import Kept

if TYPE_CHECKING:
    from tasks.report.lookup.targets import Target

Array = NDArray[np.float64]
BINS = 60
_FROM_TARGET = 20_000


@dataclass(frozen=True)
class Outlook:
    """Where samples are looked at from: two axes in their space, a window and the density that is
    darkest.
    """

    names: tuple[str, str]
    axes: Array  # [2, dim]
    edges: tuple[Array, Array]
    top: float
    note: str
    target: Array | None  # the target's own sample, [n, 2]

    def of(self, values: Array) -> Array:
        """Samples ``[n, dim]`` in the plane ``[n, 2]``, without those that are not finite; huge
        ones are far outside anyway.
        """
        finite = values[np.isfinite(values).all(axis=1)]
        with np.errstate(over="ignore", invalid="ignore"):
            found: Array = finite @ self.axes.T
        return found[np.isfinite(found).all(axis=1)]

    def density(self, values: Array) -> tuple[Array, float]:
        """The share of samples ``[n, dim]`` per bin and area, and the share of them outside the
        window.
        """
        flat = self.of(values)
        counts: Array = np.histogram2d(flat[:, 0], flat[:, 1], [self.edges[0], self.edges[1]])[0]
        area = np.diff(self.edges[0])[0] * np.diff(self.edges[1])[0]
        return counts / max(len(values), 1) / area, 1 - counts.sum() / max(len(values), 1)


def outlook_on(target: Target, kept: Sequence[Kept], dim: int) -> Outlook:
    """The outlook on a data set: on its target, or on the samples of the largest step counts where
    that is not known.
    """
    known = target.sample(_FROM_TARGET)
    shown = known if known is not None else np.concatenate([one.values[max(one.values)] for one in kept])
    shown = shown[np.isfinite(shown).all(axis=1)]
    names, axes, note = ("x", "y"), np.eye(2), ""
    if dim > 2:
        axes, share = principal_axes(shown, dim)
        names = ("first principal axis", "second principal axis")
        whose = "the target" if known is not None else "the samples"
        note = f" Of {dim} dimensions the plane of the first two principal axes of {whose} is drawn: {share:.0%} of the variance."
    flat = shown @ axes.T
    low, high = np.quantile(flat, [0.005, 0.995], axis=0) if len(flat) else (np.full(2, -1.0), np.ones(2))
    centre, half = (low + high) / 2, 0.68 * float(np.max(high - low)) or 0.5
    edges = (centre[0] + np.linspace(-half, half, BINS + 1), centre[1] + np.linspace(-half, half, BINS + 1))
    view = Outlook(names, axes, edges, 1.0, note, flat if known is not None else None)
    density, _ = view.density(shown)
    top = 1.2 * float(np.quantile(density[density > 0], 0.98)) if (density > 0).any() else 1.0
    return Outlook(names, axes, edges, top, note, view.target)


def principal_axes(values: Array, dim: int) -> tuple[Array, float]:
    """The first two principal axes ``[2, dim]`` of ``values [n, dim]``, and the share of the
    variance that lies in their plane.

    The sign of an axis is such that its largest component is positive.
    """
    if len(values) < 2:
        return np.eye(dim)[:2], 1.0
    variances, vectors = np.linalg.eigh(np.cov(values.T))
    axes = vectors[:, ::-1][:, :2].T
    axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
    total = float(variances.sum())
    return axes, float(variances[-2:].sum()) / total if total > 0 else 1.0
