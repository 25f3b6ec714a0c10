"""From stored columns to what people ask: coordinates, metrics and what stands beside them, each
decoded or worked out when it is first looked at.

Most of the time that 100,000 points take to open goes into texts and differences that nobody asks
for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.columns import COORDINATES, DEVICE, FACTS, MetricColumns, metrics_among
from tasks.results.error_decomposition import QUESTION, exact_rows, parts, split_metrics
from tasks.texts import Coded, Texts, decoded, decoded_type
from tasks.where.columns import PointColumns

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from tasks.plain import Plain
    from tasks.store import MetricFacts

HIDDEN = frozenset({"spec", "sources", "dim", "samples", "sample_row", "trajectory_row", "trajectory_samples"})
EXACT_ROW = "row of the exact denoiser"
"""A column beside the stored ones: with which row each is compared (`error_decomposition`)."""

_LABELS = (*COORDINATES, *FACTS, DEVICE, "error")


@dataclass(frozen=True)
class Layout:
    """What there is in a dataset of points, but for its values.

    Args:
        size: how many points.
        labels: its coordinates.
        numbers: its other variables, in alphabetical order.
        split: the metrics that have parts.
        types: of each variable, numpy's name of its type.
        said: of some variables, their attributes.
    """

    size: int
    labels: tuple[str, ...]
    numbers: tuple[str, ...]
    split: tuple[str, ...]
    types: Mapping[str, str]
    said: Mapping[str, Mapping[str, str]]

    def value(self) -> dict[str, Plain]:
        """As plain values."""
        return {
            "size": self.size,
            "labels": list(self.labels),
            "numbers": list(self.numbers),
            "split": list(self.split),
            "types": dict(self.types),
            "said": {name: dict(said) for name, said in self.said.items()},
        }

    @classmethod
    def of(cls, value: Mapping[str, Plain]) -> Layout:
        """From plain values."""
        labels, numbers, split = (tuple(value[name]) for name in ("labels", "numbers", "split"))
        return cls(int(value["size"]), labels, numbers, split, value["types"], value["said"])

    def stored(self) -> list[str]:
        """The columns that all of it is made of, and `EXACT_ROW` where it is needed."""
        derived = {part for metric in self.split for part in MetricColumns(metric).parts.values()}
        own = [name for name in (*self.labels, *self.numbers) if name not in derived]
        return [*own, EXACT_ROW] if self.split else own


def layout_of(columns: Mapping[str, Coded], asks: Callable[[str], bool], facts: Mapping[str, MetricFacts]) -> Layout:
    """The layout of stored columns.

    Args:
        columns: all of them, by name.
        asks: whether a metric is to be there.
        facts: what is known of metrics.
    """
    there = metrics_among(columns)
    versions = {MetricColumns(metric).version for metric in there}
    unwanted = {name for m in there if not asks(m) for name in (m, *MetricColumns(m).beside)}
    names = [name for name in columns if name not in HIDDEN | versions | unwanted]
    metrics = [metric for metric in there if metric in names]
    split = split_metrics(columns, metrics)
    types = {name: decoded_type(columns[name]).str for name in names}
    types |= {part: "<f8" for m in split for part in (*MetricColumns(m).parts.values(), MetricColumns(m).limit)}
    said = {name: _said(facts[m]) for m in metrics if m in facts for name in (m, *MetricColumns(m).beside)}
    numbers = sorted(types.keys() - set(_LABELS))
    size = len(columns["point_id"])
    return Layout(size, _LABELS, tuple(numbers), tuple(split), types, {n: said[n] for n in numbers if n in said})


def _said(facts: MetricFacts) -> dict[str, str]:
    """What a variable says of itself: which of its values are better, and what its metric looks at."""
    return {"better": facts.better, "of": facts.of}


def devices_of(cell_ids: Coded, cells: Mapping[str, np.ndarray]) -> dict[str, Coded]:
    """The column of each point's cell's device, from the ids and devices of cells; empty of a cell
    that is not there.
    """
    known = dict(zip(cells["cell_id"].tolist(), cells["device"].tolist(), strict=True))
    ids, places = np.unique(decoded(cell_ids), return_inverse=True)
    words, codes = np.unique(np.array([known.get(one, "") for one in ids.tolist()], dtype=str), return_inverse=True)
    return {DEVICE: Texts(codes[places].astype(np.int32), words)}


def row_of_the_exact(columns: Mapping[str, Coded]) -> np.ndarray:
    """The column `EXACT_ROW` of stored columns."""
    candidates = (decoded(columns["formulation"]) == "exact") & (decoded(columns["status"]) == "ok")
    return exact_rows([columns[name] for name in QUESTION], candidates)


def columns_of(layout: Layout, stored: Callable[[str], Coded], attrs: Mapping[str, str]) -> PointColumns:
    """The columns of a dataset of points; `stored` gives each of `Layout.stored` by its name."""
    owners = {name: m for m in layout.split for name in (*MetricColumns(m).parts.values(), MetricColumns(m).limit)}
    derived: dict[str, dict[str, np.ndarray]] = {}

    def read(name: str) -> np.ndarray:
        if name not in owners:
            return decoded(stored(name))
        if (metric := owners[name]) not in derived:
            of = MetricColumns(metric)
            values = {column: decoded(stored(column)) for column in (of.name, of.floor, of.limit)}
            derived[metric] = parts(of, values, decoded(stored(EXACT_ROW)))
        return derived[metric][name]

    columns: dict[str, Coded] = {}

    def coded(name: str) -> Coded:
        if name not in columns:
            columns[name] = read(name) if name in owners else stored(name)
        return columns[name]

    return PointColumns(layout.labels, layout.numbers, layout.size, read, layout.said, attrs, coded)


def dataset_of(columns: PointColumns, types: Mapping[str, str]) -> xr.Dataset:
    """The same as a dataset, whose variables are read when they are first looked at."""
    import xarray as xr

    from tasks.results.lazy import variable

    labels = {name: variable(columns, name, types[name], {}) for name in columns.labels}
    numbers = {name: variable(columns, name, types[name], columns.said.get(name, {})) for name in columns.numbers}
    return xr.Dataset(numbers, coords=labels, attrs=columns.attrs)
