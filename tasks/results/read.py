"""Reading a store: labelled data for comparison. No Prefect, no Ray.

points = open_results("results", study="uniform")      # xarray.Dataset along dimension "point"
samples = open_samples("results", point_id)            # xarray.DataArray [sample, coordinate]
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

from diffusion.errors import WrongInput
from tasks.plain import Spec
from tasks.results import kept
from tasks.results.points import EXACT_ROW, Layout, columns_of, dataset_of, devices_of, layout_of, row_of_the_exact
from tasks.store import (
    NO_ROW,
    Derived,
    MetricFacts,
    NotStored,
    Snapshot,
    Store,
    has_facts,
    read_cells,
    read_coded_points,
    read_curves,
    read_metrics,
    read_places,
    read_points,
    read_samples,
    read_samples_of,
    read_study,
    read_trajectory,
    read_weights,
    study_names,
    trained_cells,
)
from tasks.texts import Coded, decoded, taken
from tasks.where.columns import Columns, PointColumns

if TYPE_CHECKING:
    import xarray as xr


class UnknownStudy(WrongInput, LookupError):
    """The store knows no study of that name."""

    kind = "unknown-study"


class _Parsed(Mapping[str, Spec]):
    """Specs by id, kept as JSON text: parsed ones take ten times the memory."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def __getitem__(self, key: str) -> Spec:
        return cast("Spec", json.loads(self._texts[key]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


class Answers:
    """One snapshot of a store, all of it or one study's share; everything is read when first asked
    for.
    """

    def __init__(self, store: Store, study: str | None = None, as_of: str | None = None) -> None:
        self._store, self.name = store, study
        with store.reading("its studies"):
            self._root, self.snapshot = store.opened(as_of)
            names = study_names(self._root)
        if study is not None and study not in names:
            raise UnknownStudy(
                f"store {store.uri} holds no study {study!r}; it holds: {', '.join(names) or 'none yet'}"
            )
        self.studies = names

    @cached_property
    def study(self) -> Spec:
        """The study's canonical spec; empty if the whole store was opened."""
        return self.described(self.name)[0] if self.name else {}

    def described(self, study: str) -> tuple[Spec, np.ndarray]:
        """The canonical spec of a study and the ids of its points."""
        with self._store.reading(f"study {study}"):
            return read_study(self._root, study)

    def asked(self, study: str) -> list[str]:
        """The ids of all points that a study asks for, answered or not."""
        return cast("list[str]", self.described(study)[1].tolist())

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Where these numbers come from: snapshot, time, versions, device."""
        return provenance_of(self._store.uri, self.snapshot)

    @cached_property
    def coded(self) -> Mapping[str, Coded]:
        """The stored columns of these points, not decoded."""
        with self._store.reading("its points"):
            columns = read_coded_points(self._root)
            if self._derived is not None:
                columns |= {name: np.array(texts, dtype=str) for name, texts in self._derived.points.items()}
            columns |= devices_of(columns["cell_id"], read_cells(self._root, ["cell_id", "device"]))
        if self.name:
            rows = {point: row for row, point in enumerate(decoded(columns["point_id"]).tolist())}
            requested = np.array([rows[point] for point in self.asked(self.name) if point in rows], dtype=np.intp)
            columns = {name: taken(column, requested) for name, column in columns.items()}
        return columns

    @cached_property
    def _table(self) -> Columns:
        coded = self.coded
        return Columns(list(coded), len(coded["point_id"]), lambda name: decoded(coded[name]))

    def table(self) -> Mapping[str, np.ndarray]:
        """The stored columns of these points, text as text; what is for the planner rather than for
        readers.
        """
        return self._table

    @cached_property
    def layout(self) -> Layout:
        """What there is in `points`."""
        # a shared store may hold metrics that this study did not ask for
        return layout_of(self.coded, self._asks if self.name else lambda _: True, self.metrics)

    @cached_property
    def columns(self) -> PointColumns:
        """The columns of `points`, without xarray."""
        return columns_of(self.layout, self.column, {**self.provenance, "study": self.name or ""})

    def column(self, name: str) -> Coded:
        """One of `Layout.stored`."""
        return self._exact_row if name == EXACT_ROW else self.coded[name]

    @cached_property
    def _exact_row(self) -> np.ndarray:
        return row_of_the_exact(self.coded)

    @cached_property
    def points(self) -> xr.Dataset:
        """One entry per point: coordinates, metrics, floors, seconds; provenance in the attributes."""
        return dataset_of(self.columns, self.layout.types)

    def _asks(self, metric: str) -> bool:
        """Whether the study asks for the metric of that column, or may: of a class that is not
        known here nothing is known.
        """
        facts = self.metrics.get(metric)
        return facts is None or facts.spec in self.study["metrics"]

    @cached_property
    def metrics(self) -> dict[str, MetricFacts]:
        """What is known of the metrics of the store, by the names of their columns."""
        if self._derived is not None:
            return dict(self._derived.metrics)
        with self._store.reading("what is known of its metrics"):
            return read_metrics(self._root)

    @property
    def derived(self) -> bool:
        """Whether a part of the points is not in the store, which is of an older schema, but worked
        out.
        """
        return self._derived is not None

    @cached_property
    def _derived(self) -> Derived | None:
        """What a store of an older schema does not say itself; None of a newer one."""
        if has_facts(self._root):
            return None
        from tasks.results.facts import derived  # with torch, which readers of a newer store do not wait for

        with self._store.reading("the specs of its points"):
            return derived(self._root)

    def trained(self) -> set[str]:
        """Ids of the cells whose weights are stored."""
        with self._store.reading("its weights"):
            return trained_cells(self._root)

    def sources_of_cells(self) -> dict[str, str]:
        """What is stored of the own sources that trained each cell, by id; of others nothing."""
        with self._store.reading("its cells"):
            cells = read_cells(self._root)
        told = zip(cells["cell_id"].tolist(), cells["sources"].tolist(), strict=True) if "sources" in cells else ()
        return {cell: text for cell, text in told if text}

    def train_seconds(self) -> dict[str, float]:
        """How long each trained cell took to train, by id; of an exact one 0."""
        by_cell = dict(zip(self._table["cell_id"].tolist(), self._table["train_seconds"].tolist(), strict=True))
        with self._store.reading("its cells"):
            cells = read_cells(self._root, ["cell_id", "train_seconds"])
        seconds = zip(cells["cell_id"].tolist(), cells["train_seconds"].tolist(), strict=True)
        return {**by_cell, **{cell: value for cell, value in seconds if value == value}}

    def weights(self, cell_id: str) -> bytes:
        """The safetensors file of a trained cell."""
        with self._store.reading(f"the weights of cell {cell_id}"):
            return read_weights(self._root, cell_id)

    @cached_property
    def _places(self) -> tuple[dict[str, int], dict[str, np.ndarray]]:
        """Where the arrays of points are: the row of each point here, and the table of all."""
        with self._store.reading("its points"):
            places = read_places(self._root)
        here = set(self._table["point_id"].tolist())
        return {one: row for row, one in enumerate(places["point_id"].tolist()) if one in here}, places

    def _rows_of(self, point_ids: Collection[str]) -> np.ndarray:
        """The rows of some points."""
        rows = self._places[0]
        if absent := [one for one in point_ids if one not in rows]:
            raise NotStored(f"no point {absent[0]!r} here")
        return np.array([rows[one] for one in point_ids], dtype=np.int64)

    def _place(self, point_id: str) -> dict[str, np.ndarray]:
        """The row of one point."""
        at = self._rows_of([point_id])
        return {name: values[at] for name, values in self._places[1].items()}

    def samples(self, point_id: str) -> xr.DataArray | None:
        """Final samples ``[sample, coordinate]``, or None if they were not kept."""
        import xarray as xr

        place = self._place(point_id)
        with self._store.reading(f"the samples of point {point_id}"):
            values = read_samples(self._root, point_id, place)
        return None if values is None else xr.DataArray(values, dims=("sample", "coordinate"), name=point_id)

    def samples_of(self, point_ids: Collection[str]) -> dict[str, np.ndarray]:
        """The samples ``[sample, coordinate]`` of those points that have kept some, by id: many of
        them in one reading.

        Raises:
            NotStored: a point is not here.
        """
        at = self._rows_of(point_ids)
        with self._store.reading(f"the samples of {len(at)} points"):
            return read_samples_of(self._root, {name: values[at] for name, values in self._places[1].items()})

    def trajectory_shape(self, point_id: str) -> tuple[int, int, int] | None:
        """How many levels, samples and coordinates a trajectory has, not read; None if not kept."""
        place = {name: int(values[0]) for name, values in self._place(point_id).items() if name != "point_id"}
        if place["trajectory_row"] == NO_ROW:
            return None
        return place["steps"] + 1, place["trajectory_samples"], place["dim"]

    def trajectory(self, point_id: str) -> xr.DataArray | None:
        """States ``[level, sample, coordinate]`` from noise to data with time, alpha and sigma, or
        None if not kept.
        """
        import xarray as xr

        place = self._place(point_id)
        if place["trajectory_row"][0] == NO_ROW:
            return None
        with self._store.reading(f"the trajectory of point {point_id}"):
            found = read_trajectory(self._root, point_id, place)
        if found is None:
            return None
        states, levels = found
        coords = {key: ("level", levels[k]) for k, key in enumerate(("time", "alpha", "sigma"))}
        return xr.DataArray(states, dims=("level", "sample", "coordinate"), coords=coords, name=point_id)

    def point_specs(self) -> dict[str, str]:
        """The canonical spec of every stored point, as JSON text by id."""
        with self._store.reading("the specs of its points"):
            columns = read_points(self._root, ["point_id", "spec"])
        return dict(zip(columns["point_id"].tolist(), columns["spec"].tolist(), strict=True))

    def specs_of(self, point_ids: Collection[str]) -> dict[str, Spec]:
        """The canonical specs of some points, by id; of no others is anything read.

        Raises:
            NotStored: a point is not here.
        """
        at = np.sort(self._rows_of(point_ids))
        with self._store.reading("the specs of its points"):
            columns = read_points(self._root, ["point_id", "spec"], at)
        found = zip(columns["point_id"].tolist(), columns["spec"].tolist(), strict=True)
        return {str(one): json.loads(text or "{}") for one, text in found}

    @cached_property
    def cell_specs(self) -> Mapping[str, Spec]:
        """The canonical spec of every cell, by id."""
        with self._store.reading("its cells"):
            cells = read_cells(self._root, ["cell_id", "spec"])
        return _Parsed({str(i): str(s) for i, s in zip(cells["cell_id"], cells["spec"], strict=True)})

    def losses(self) -> xr.DataArray:
        """Mean training loss ``[cell, progress]`` of these points' trained cells, with coordinate
        `step`.
        """
        return self._curves("losses", "loss_steps", "progress", "step").rename("loss")

    def score_errors(self) -> xr.DataArray:
        """Error of the learned score by noise level ``[cell, level]``, with coordinate `nsr`
        (noise-to-signal ratio).
        """
        return self._curves("score_errors", "score_levels", "level", "nsr").rename("score-error")

    def _curves(self, values_of: str, places_of: str, dim: str, place: str) -> xr.DataArray:
        import xarray as xr

        labels: dict[str, int] = {}
        for i, cell_id in enumerate(self._table["cell_id"]):
            labels.setdefault(str(cell_id), i)
        with self._store.reading("its curves"):
            curves = read_curves(self._root)
            known = [str(name) for name in read_cells(self._root, ["cell_id"])["cell_id"]]
        values, places = curves[values_of], curves[places_of]
        keep = [row for row in range(len(values)) if known[row] in labels and np.isfinite(values[row]).any()]
        values, places, ids = values[keep], places[keep], [known[row] for row in keep]
        at = [labels[cell] for cell in ids]
        coords = {
            key: ("cell", [self._table[key][i] for i in at]) for key in ("dataset", "formulation", "schedule", "seed")
        }
        return xr.DataArray(
            values, dims=("cell", dim), coords={**coords, "cell_id": ("cell", ids), place: (("cell", dim), places)}
        )


def provenance_of(store: str, snapshot: Snapshot) -> dict[str, str]:
    """Where the numbers of a snapshot come from, as the attributes of its points."""
    texts = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in snapshot.metadata.items()}
    return {"snapshot": snapshot.id, "time": snapshot.time.isoformat(timespec="seconds"), "store": store, **texts}


def open_columns(store: str = "results", study: str | None = None, as_of: str | None = None) -> PointColumns:
    """The columns of `open_results`, without xarray. Arguments and errors are the same."""
    return _opened(store, study, as_of)[0]


def open_results(store: str = "results", study: str | None = None, as_of: str | None = None) -> xr.Dataset:
    """All points of a store, or of one study, as a labelled dataset along dimension ``point``, whose
    variables are read when they are first looked at.

    What was read of a snapshot is kept (`tasks.results.kept`): the next time it comes from there.

    `as_of` is a snapshot's id, a tag or a time.

    Raises:
        StoreUnavailable: there is no store, or it cannot be read.
        UnknownStudy: the store holds no study of that name.
    """
    columns, layout = _opened(store, study, as_of)
    return dataset_of(columns, layout.types)


def _opened(uri: str, study: str | None, as_of: str | None) -> tuple[PointColumns, Layout]:
    """The points of a snapshot: kept ones, or read from the store and kept."""
    store = Store.found(uri)
    snapshot = store.look(as_of)

    again = cache(lambda: Answers(store, study, snapshot.id))
    if (found := kept.find(kept.Key(store.address, snapshot, study), lambda name: again().column(name))) is not None:
        attrs = {**provenance_of(uri, snapshot), "study": study or ""}
        return columns_of(found.layout, found.column, attrs), found.layout
    store.check()
    answers = Answers(store, study, as_of)
    layout = answers.layout
    if not answers.derived:  # which depends on what can be imported today
        kept.keep(kept.Key(store.address, answers.snapshot, study), layout, answers.column)
    return answers.columns, layout


def open_samples(store: str, point_id: str, as_of: str | None = None) -> xr.DataArray:
    """The final samples of a point.

    Raises:
        NotStored: the store holds no samples of the point.
    """
    found = Answers(Store.open(store), None, as_of).samples(point_id)
    if found is None:
        raise NotStored(f"the samples of point {point_id!r} were not kept (keep: {{samples: true}} in the study)")
    return found


def open_trajectory(store: str, point_id: str, as_of: str | None = None) -> xr.DataArray:
    """The states of a point from noise to data.

    Raises:
        NotStored: the store holds no trajectory of the point.
    """
    found = Answers(Store.open(store), None, as_of).trajectory(point_id)
    if found is None:
        remedy = "keep: {trajectories: [sampler@steps]} in the study"
        raise NotStored(f"the trajectory of point {point_id!r} was not kept ({remedy})")
    return found
