"""Reading a store: labelled data for comparison. No Prefect, no Ray.

points = open_results("results", study="uniform")      # xarray.Dataset along dimension "point"
cube = points.atlas.cube("w1")                         # dataset x formulation x schedule x sampler x steps x seed
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from tasks.plan import Known, Plan, make_plan
from tasks.split import LIMIT, split
from tasks.store import Store
from tasks.study import Study

COORDINATES = (
    "dataset",
    "formulation",
    "schedule",
    "sampler",
    "grid",
    "steps",
    "nfe",
    "seed",
    "cell_id",
    "point_id",
    "status",
)
AXES = ("dataset", "formulation", "schedule", "sampler", "steps", "seed")
_HIDDEN = {"spec", "dim", "samples", "sample_row", "trajectory_row", "trajectory_samples", "start"}


def metric_names(points: xr.Dataset) -> list[str]:
    """The metrics among the variables of a dataset of points, in alphabetical order."""
    return sorted(str(name) for name in points.data_vars if f"{name}_floor" in points.data_vars)


def _plain(values: np.ndarray) -> np.ndarray:
    """Variable-length text as numpy's ordinary text, which every library understands."""
    return np.array(values.tolist(), dtype=str) if values.dtype.kind in "OT" else values


class UnknownStudy(LookupError):
    """The store knows no study of that name."""


class Answers:
    """One snapshot of a store, all of it or one study's share; everything is read when first asked for."""

    def __init__(self, store: Store, study: str | None = None, as_of: str | None = None) -> None:
        self._store, self.name, self._as_of = store, study, as_of
        with store.reading("its studies"):
            self._root = store.group(as_of)
            names = sorted(self._root["studies"].group_keys())
        if study is not None and study not in names:
            raise UnknownStudy(
                f"store {store.uri} holds no study {study!r}; it holds: {', '.join(names) or 'none yet'}"
            )
        self.studies = names

    @cached_property
    def study(self) -> dict[str, Any]:
        """The study's canonical spec; empty if the whole store was opened."""
        with self._store.reading(f"study {self.name}"):
            return dict(self._root[f"studies/{self.name}"].attrs["spec"]) if self.name else {}

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Where these numbers come from: snapshot, time, versions, device."""
        snapshot = self._store.snapshot(self._as_of)
        entry: dict[str, Any] = next(
            (e for e in self._store.history() if e["snapshot"] == snapshot), {"time": "", "metadata": {}}
        )
        told = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in entry["metadata"].items()}
        return {"snapshot": snapshot, "time": entry["time"], "store": self._store.uri, **told}

    @cached_property
    def _table(self) -> dict[str, np.ndarray]:
        with self._store.reading("its points"):
            columns = {name: self._column(f"points/{name}") for name in self._root["points"].array_keys()}
        if self.name:
            rows = {str(point): row for row, point in enumerate(columns["point_id"])}
            asked = [rows[str(p)] for p in self._column(f"studies/{self.name}/point_id") if str(p) in rows]
            columns = {name: values[asked] for name, values in columns.items()}
        return columns

    def _column(self, path: str, where: Any = slice(None)) -> np.ndarray:
        with self._store.reading(path):
            return _plain(np.asarray(self._root[path][where]))

    @cached_property
    def points(self) -> xr.Dataset:
        """One entry per point: coordinates, metrics, floors, seconds; provenance in the attributes."""
        columns = {n: v for n, v in self._table.items() if n not in _HIDDEN}
        metrics = [name for name in columns if f"{name}_floor" in columns]
        if self.name:  # a shared store may hold metrics that this study did not ask for
            from diffusion.metrics import metrics as known_metrics
            from tasks.components import build

            wanted = {build(known_metrics, metric).column for metric in self.study["metrics"]}
            for unwanted in (m for m in metrics if m not in wanted):
                for name in (unwanted, f"{unwanted}_floor", f"{unwanted}_{LIMIT}"):
                    columns.pop(name, None)
            metrics = [m for m in metrics if m in wanted]
        columns |= split(self._table, tuple(metrics))
        labels = {name: ("point", columns.pop(name)) for name in (*COORDINATES, "error")}
        data = {name: ("point", values) for name, values in sorted(columns.items())}
        return xr.Dataset(data, coords=labels, attrs={**self.provenance, "study": self.name or ""})

    def known(self) -> dict[str, Known]:
        """What the planner needs to know of every point."""
        table = self._table
        metrics = [name for name in table if f"{name}_floor" in table]
        finite = {name: np.isfinite(table[name]) for name in metrics}
        return {
            str(table["point_id"][i]): Known(
                str(table["status"][i]),
                frozenset(name for name in metrics if finite[name][i]),
                bool(table["sample_row"][i] >= 0),
                bool(table["trajectory_row"][i] >= 0),
            )
            for i in range(len(table["point_id"]))
        }

    def trained(self) -> set[str]:
        """Ids of the cells whose weights are stored."""
        with self._store.reading("its weights"):
            return set(self._root["weights"].array_keys())

    def weights(self, cell_id: str) -> bytes:
        """The safetensors file of a trained cell."""
        return bytes(self._column(f"weights/{cell_id}").tobytes())

    def _row(self, point_id: str) -> int:
        found = np.flatnonzero(self._table["point_id"] == point_id)
        if not len(found):
            raise KeyError(f"no point {point_id!r} here")
        return int(found[0])

    def samples(self, point_id: str) -> xr.DataArray | None:
        """Final samples ``[sample, coordinate]``, or None if they were not kept."""
        i = self._row(point_id)
        row = int(self._table["sample_row"][i])
        if row < 0:
            return None
        name = f"{int(self._table['samples'][i])}x{self._dim(point_id)}"
        return xr.DataArray(self._column(f"samples/{name}", row), dims=("sample", "coordinate"), name=point_id)

    def _dim(self, point_id: str) -> int:
        return int(self._table["dim"][self._row(point_id)])

    def trajectory(self, point_id: str) -> xr.DataArray | None:
        """States ``[level, sample, coordinate]`` from noise to data with time, alpha and sigma, or None if not kept."""
        i = self._row(point_id)
        row = int(self._table["trajectory_row"][i])
        if row < 0:
            return None
        levels, n = int(self._table["steps"][i]) + 1, int(self._table["trajectory_samples"][i])
        name = f"{levels}x{n}x{self._dim(point_id)}"
        times = self._column(f"trajectories/{name}_levels", row)
        return xr.DataArray(
            self._column(f"trajectories/{name}", row),
            dims=("level", "sample", "coordinate"),
            coords={key: ("level", times[k]) for k, key in enumerate(("time", "alpha", "sigma"))},
            name=point_id,
        )

    @cached_property
    def cell_specs(self) -> dict[str, dict[str, Any]]:
        """The canonical spec of every cell."""
        ids, specs = self._column("cells/cell_id"), self._column("cells/spec")
        return {str(i): json.loads(str(s)) for i, s in zip(ids, specs, strict=True)}

    def losses(self) -> xr.DataArray:
        """Mean training loss ``[cell, progress]`` of these points' trained cells, with coordinate `step`."""
        return self._curves("losses", "loss_steps", "progress", "step").rename("loss")

    def score_errors(self) -> xr.DataArray:
        """Error of the learned score by noise level ``[cell, level]``, with coordinate `nsr` (noise-to-signal ratio)."""
        return self._curves("score_errors", "score_levels", "level", "nsr").rename("score-error")

    def _curves(self, values_of: str, places_of: str, dim: str, place: str) -> xr.DataArray:
        labels: dict[str, int] = {}
        for i, cell_id in enumerate(self._table["cell_id"]):
            labels.setdefault(str(cell_id), i)
        if values_of in self._root["cells"]:
            values, places = self._column(f"cells/{values_of}"), self._column(f"cells/{places_of}")
        else:
            values, places = np.zeros((0, 0)), np.zeros((0, 0))
        known = [str(name) for name in self._column("cells/cell_id")]
        keep = [row for row in range(len(values)) if known[row] in labels and np.isfinite(values[row]).any()]
        values, places, ids = values[keep], places[keep], [known[row] for row in keep]
        at = [labels[cell] for cell in ids]
        coords = {
            key: ("cell", [self._table[key][i] for i in at]) for key in ("dataset", "formulation", "schedule", "seed")
        }
        return xr.DataArray(
            values, dims=("cell", dim), coords={**coords, "cell_id": ("cell", ids), place: (("cell", dim), places)}
        )


def plan_against(store: Store, study: Study, *, retry_failed: bool = False) -> Plan:
    """The plan of a study given all that a store holds."""
    known = Answers(store)
    return make_plan(study, known.known(), known.trained(), retry_failed=retry_failed)


def is_recorded(store: Store, plan: Plan) -> bool:
    """Whether the store knows the study as it is, with all its impossible points."""
    answers = Answers(store)
    if plan.study.name not in answers.studies or plan.unrecorded:
        return False
    return Answers(store, plan.study.name).study == plan.study.spec()


def open_results(store: str = "results", study: str | None = None, as_of: str | None = None) -> xr.Dataset:
    """All points of a store, or of one study, as a labelled dataset along dimension ``point``.

    `as_of` is a snapshot's id, a tag or a time. Raises `tasks.store.StoreUnavailable` or `UnknownStudy`.
    """
    return Answers(Store.open(store), study, as_of).points


def open_samples(store: str, point_id: str, as_of: str | None = None) -> xr.DataArray:
    """The final samples of a point. Raises KeyError if there are none."""
    found = Answers(Store.open(store), None, as_of).samples(point_id)
    if found is None:
        raise KeyError(f"the samples of point {point_id!r} were not kept (keep: {{samples: true}} in the study)")
    return found


@xr.register_dataset_accessor("atlas")
class Atlas:
    """Views of a dataset of points."""

    def __init__(self, points: xr.Dataset) -> None:
        self._points = points

    def cube(self, metric: str, axes: Sequence[str] = AXES) -> xr.DataArray:
        """One metric over labelled axes; NaN where nothing was asked (or the point failed).

        Raises KeyError for an unknown metric and ValueError if two points fall on one place (name more axes then).
        """
        if metric not in self._points:
            raise KeyError(f"no metric {metric!r}; there are {', '.join(metric_names(self._points))}")
        ok = self._points.isel(point=np.flatnonzero(self._points["status"].values == "ok"))
        labels = {axis: np.unique(ok[axis].values) for axis in axes}
        places = tuple(np.searchsorted(labels[axis], ok[axis].values) for axis in axes)
        values = np.full([len(label) for label in labels.values()], np.nan)
        if ok.sizes["point"] != len(set(zip(*places, strict=True))):
            raise ValueError(
                f"several points share a place along {', '.join(axes)}: add an axis, such as grid, or select"
            )
        values[places] = ok[metric].values
        return xr.DataArray(values, coords=labels, dims=tuple(axes), name=metric, attrs=self._points.attrs)
