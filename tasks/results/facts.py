"""What a store says of points and metrics so that its readers need no component: written from
components, or from stored specs.

Of a point, beside its labels:

    guidance             the label of what guides its sampler, empty where nothing does
    sampling_schedule    the label of the schedule that is sampled on, the cell's own unless the sampler has another one
    process              what its rows do, which decides what they compare with:
                         ``generation``   samples of the data from the schedule's noise
                         ``restoration``  from an observation of data
                         ``forward``      from data to noise; no model is asked
                         ``dynamics``     whatever else: from data, or ending in noise

Rows of older schemas lack them. `derived` finds them in the specs that such rows have, never in
their labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import zarr

from diffusion.formulations import formulations
from diffusion.guidance import guidances
from diffusion.metrics import BaseMetric
from diffusion.metrics import metrics as registered_metrics
from diffusion.samplers import Sampler, samplers
from diffusion.schedules import schedules
from tasks.columns import DYNAMICS, FORWARD, GENERATION, RESTORATION, metrics_among
from tasks.plain import Spec
from tasks.plan import Point
from tasks.store import Derived, MetricFacts, point_columns, read_cells, read_points, read_study, study_names
from tasks.study.identity import class_named, label_of, rebuilt

_LITTLE = 0.02  # noise beside the data's deviation up to which samples are told as if there were none
_NOISE = ("random", "quantiles", "prior")  # layouts of the start noise, where a spec is too old to name its own


def start_of(point: Point, *, answered: bool) -> str:
    """What samples set out from and, where they end in noise, how much of it: answers are compared
    with those that have the same.
    """
    if point.cell.formulation.restores:
        return f"observation: {point.cell.formulation.observation}"
    if (law := point.cell.formulation.start_distribution) is not None:
        return f"draws: {law.label()}"
    start = "data" if point.sampler.from_data else point.start
    noise = point.noise_left if answered else 0.0
    return f"{start} to sigma/alpha = {noise:.3g}" if noise > _LITTLE * point.cell.dataset.working.std else start


def process_of(point: Point, start: str) -> str:
    """What the point's rows do; `start` is that of `start_of`."""
    formulation = point.cell.formulation
    generates = start == point.start or formulation.start_distribution is not None
    return _process(type(point.sampler), restores=formulation.restores, from_noise=generates)


def _process(sampler: type[Sampler] | None, *, restores: bool, from_noise: bool) -> str:
    if restores:
        return RESTORATION
    if sampler is not None and sampler.to_noise:
        return FORWARD
    return GENERATION if from_noise else DYNAMICS


def metric_facts(metrics: Iterable[BaseMetric]) -> dict[str, MetricFacts]:
    """What is known of metrics, by the names of their columns."""
    return {
        metric.column: MetricFacts(
            metric.of,
            "higher" if metric.higher_is_better else "lower",
            metric.version,
            json.loads(json.dumps(metric.spec())),
        )
        for metric in metrics
    }


def derived(root: zarr.Group) -> Derived:
    """What the rows of a store of an older schema do not say. Classes that cannot be imported any
    more are no hindrance.
    """
    rows = read_points(root, ["cell_id", "schedule", "start", "spec"])
    cells = read_cells(root, ["cell_id", "spec"])
    restoring = {
        str(cell)
        for cell, spec in zip(cells["cell_id"], cells["spec"], strict=True)
        if spec and _restores(json.loads(spec))
    }
    known: dict[str, tuple[str, str, str]] = {}
    found: dict[str, list[str]] = {"guidance": [], "sampling_schedule": [], "process": []}
    for cell, schedule, start, text in zip(*(values.tolist() for values in rows.values()), strict=True):
        spec = json.loads(text or "{}")
        requested = [spec.get(key) for key in ("sampler", "guidance", "schedule", "start")]
        key = json.dumps([*requested, schedule, start, cell in restoring], sort_keys=True)
        if key not in known:
            known[key] = _facts(spec, schedule, start, restores=cell in restoring)
        for name, value in zip(found, known[key], strict=True):
            found[name].append(value)
    return Derived(found, _metrics_of(root))


def _restores(cell: Spec) -> bool:
    identity = cell.get("formulation", {})
    found = rebuilt(formulations, identity) if "name" in identity else None
    return found is not None and bool(found.restores)  # of some it depends on a parameter


def _facts(spec: Spec, schedule: str, start: str, *, restores: bool) -> tuple[str, str, str]:
    guidance, sampling_schedule, sampler = (spec.get(key) for key in ("guidance", "schedule", "sampler"))
    cls = class_named(samplers, sampler["name"]) if sampler else None
    return (
        label_of(guidances, guidance) if guidance else "",
        label_of(schedules, sampling_schedule) if sampling_schedule else schedule,
        _process(cls, restores=restores, from_noise=start in (spec.get("start"), *_NOISE)),
    )


def _metrics_of(root: zarr.Group) -> dict[str, MetricFacts]:
    """The metrics that the store's studies ask, and those of its columns that a name alone tells."""
    requested = [spec for name in study_names(root) for spec in read_study(root, name)[0].get("metrics", ())]
    by_name = metric_facts(_built({"name": name} for name in metrics_among(point_columns(root)) if "(" not in name))
    return {name: facts for name, facts in by_name.items() if name in point_columns(root)} | metric_facts(
        _built(requested)
    )


def _built(specs: Iterable[Mapping[str, object]]) -> Iterator[BaseMetric]:
    for spec in specs:
        metric = rebuilt(registered_metrics, spec)
        if isinstance(metric, BaseMetric):  # a name of somebody's own may lead to anything
            yield metric
