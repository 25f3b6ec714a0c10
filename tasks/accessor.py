"""``points.atlas``: what a dataset of points offers besides being a dataset.

points.atlas.cube("w1")                                # dataset x formulation x schedule x sampler x steps x seed
points.atlas.best("sampler", at="nfe <= 20")           # who is first, and who cannot be told from it
points.atlas.pareto(("w1", "nfe"))                     # what nothing else beats
points.atlas.compare(later)                            # which numbers moved
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import pandas as pd
import xarray as xr

from diffusion.errors import WrongValue

if TYPE_CHECKING:
    from tasks.compare import Comparison

AXES = ("dataset", "formulation", "schedule", "sampler", "steps", "seed")
MOST_PLACES = 1 << 27  # of a cube: a gigabyte


class _Selection(TypedDict, total=False):
    """What rankings take besides what they rank."""

    by: Sequence[str]
    where: str | None


class _Comparing(TypedDict, total=False):
    """What a comparison takes besides the two sides."""

    metrics: Sequence[str] | None
    by: Sequence[str]
    level: float
    correction: str


@xr.register_dataset_accessor("atlas")
class Atlas:
    """Views of a dataset of points."""

    def __init__(self, points: xr.Dataset) -> None:
        self._points = points

    def cube(self, metric: str, axes: Sequence[str] = AXES) -> xr.DataArray:
        """One metric over labelled axes; NaN where nothing was asked (or the point failed).

        Raises:
            UnknownColumn: an unknown metric or axis.
            WrongValue: two points fall on one place (name more axes then), or the axes span more
                than `MOST_PLACES` places.
        """
        from tasks.columns import metric_names
        from tasks.where.columns import factorize, of_points
        from tasks.where.language import UnknownColumn

        if metric not in self._points:
            raise UnknownColumn(f"no metric {metric!r}; there are {', '.join(metric_names(self._points))}")
        columns = of_points(self._points)
        for axis in axes:
            if axis not in columns:
                raise UnknownColumn(f"no axis {axis!r}; there are {', '.join(columns)}")
        ok = columns.rows(columns["status"] == "ok")
        coded = {axis: factorize(ok[axis]) for axis in axes}
        shape = tuple(len(labels) for _, labels in coded.values())
        if math.prod(shape) > MOST_PLACES:
            raise WrongValue(
                f"{' x '.join(map(str, shape))} places are too many for a cube: select, or name fewer axes"
            )
        places = np.zeros(ok.size, dtype=np.int64)
        for codes, labels in coded.values():
            places = places * len(labels) + codes
        if len(np.unique(places)) < ok.size:
            raise WrongValue(
                f"several points share a place along {', '.join(axes)}: add an axis, such as grid, or select"
            )
        values = np.full(math.prod(shape), np.nan)
        values[places] = ok[metric]
        coords = {axis: labels for axis, (_, labels) in coded.items()}
        return xr.DataArray(
            values.reshape(shape), coords=coords, dims=tuple(axes), name=metric, attrs=self._points.attrs
        )

    def best(
        self, of: str = "sampler", metric: str | None = None, at: str | None = None, **more: Unpack[_Selection]
    ) -> pd.DataFrame:
        """The values of an axis in the order of their best configuration: `tasks.query.rank`, which
        takes `more`.
        """
        from tasks.query import rank

        return rank(self._points, of, metric, at, **more)

    def pareto(self, objectives: Sequence[str] = ("w1", "nfe"), **more: Unpack[_Selection]) -> pd.DataFrame:
        """The configurations that no other beats in all objectives: `tasks.query.pareto`, which
        takes `more`.
        """
        from tasks.query import pareto

        return pareto(self._points, objectives, **more)

    def compare(self, other: xr.Dataset, **more: Unpack[_Comparing]) -> Comparison:
        """Which numbers moved from these points to `other`: `tasks.compare.compare`, which takes
        `more`.
        """
        from tasks.compare import compare

        return compare(self._points, other, **more)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per point and all columns: labels first, then numbers."""
        from tasks.where.columns import frame_of, of_points

        return frame_of(of_points(self._points))
