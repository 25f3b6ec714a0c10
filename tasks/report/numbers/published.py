"""Numbers that others have published, beside those of a study that asks the same.

The package has one such table: `c2st` of the benchmark of simulation-based inference, by task,
observation and budget of simulations (`tasks/report/published/c2st.csv`; `docs/posteriors.md` says
where it is from). A row of it is looked up by what was asked, the target's class, its observation
and the simulations of `observation-conditional`; labels are never read.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from diffusion.datasets import SimulatorPosterior
from diffusion.formulations import ObservationConditional
from diffusion.metrics import ClassifierTwoSample
from tasks.report.lookup.points import Row
from tasks.report.numbers.curves import Mean, Series, Tabulation
from tasks.report.text import plus_minus

ALGORITHMS = ("NPE", "SNPE", "NLE", "SNLE", "NRE", "SNRE", "REJ-ABC", "SMC-ABC")
SOURCE = (
    "Lueckmann, Boelts, Greenberg, Goncalves and Macke, Benchmarking Simulation-Based Inference, AISTATS 2021, by the results "
    "that its authors publish; rows of the mixture are those of the corrected task"
)
_SUFFIX = "_posterior"
_RUNS = ("corrected", "paper")  # a row of the corrected task takes the place of the paper's

Key = tuple[str, int, int]  # task, simulations, observation


@dataclass(frozen=True)
class BesidePublished:
    """One of our numbers, and the published ones of the same task, observation and budget.

    Args:
        task: The benchmark's name of it.
        simulations: The budget; None of exact denoisers, which need none.
        observation: The number of it.
        way: Sampler and steps.
        series: What was asked.
        ours: Our seeds.
        floor: What perfect samples have.
        published: By algorithm; empty where nobody has published it.
    """

    task: str
    simulations: int | None
    observation: int
    way: str
    series: Series
    ours: Mean
    floor: float
    published: Mapping[str, float]

    @property
    def text(self) -> str:
        """Our mean and its standard error over seeds."""
        return plus_minus(self.ours.mean, self.ours.sem)


@cache
def published() -> dict[Key, dict[str, float]]:
    """The table: accuracy by task, simulations and observation, and by algorithm."""
    text = files("tasks.report").joinpath("published", "c2st.csv").read_text(encoding="utf-8")
    found: dict[Key, dict[str, tuple[int, float]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        key = row["task"], int(row["simulations"]), int(row["observation"])
        rank = _RUNS.index(row["run"])
        known = found.setdefault(key, {})
        if row["algorithm"] not in known or rank < known[row["algorithm"]][0]:
            known[row["algorithm"]] = rank, float(row["c2st"])
    return {key: {name: value for name, (_, value) in own.items()} for key, own in found.items()}


def beside_published(table: Tabulation) -> list[BesidePublished]:
    """Every answer of a study to which there is a published one, and exact denoisers of the same
    targets; by task, observation and budget.
    """
    columns = [name for name, metric in table.known.items() if isinstance(metric, ClassifierTwoSample)]
    groups: dict[tuple[str, tuple[Key, Series, str, int]], list[Row]] = {}
    for point in table.points:
        key, series = _key(point), table.series_of(point.formulation, point.schedule)
        if key is None or series is None or point.status != "ok":
            continue
        for column in columns:
            if math.isfinite(point.values[column]):
                way = key, series, table.panel_of(point).title, point.steps
                groups.setdefault((column, way), []).append(point)
    found = [_beside(column, *way, points) for (column, way), points in groups.items()]
    known = {(one.task, one.observation) for one in found if one.published}
    shown = [one for one in found if one.published or (not one.simulations and (one.task, one.observation) in known)]
    return sorted(shown, key=lambda one: (one.task, one.observation, one.simulations or 0, one.series.key, one.way))


def _key(point: Row) -> Key | None:
    """Task, budget (0 of exact denoisers), observation; None of what the benchmark does not have."""
    target, asked = point.requested.dataset.component, point.requested.formulation.component
    if not isinstance(target, SimulatorPosterior):
        return None
    task = target.registered_name.removesuffix(_SUFFIX)
    if point.exact:
        return task, 0, target.observation
    return (task, asked.simulations, target.observation) if isinstance(asked, ObservationConditional) else None


def _beside(column: str, key: Key, series: Series, sampler: str, steps: int, points: list[Row]) -> BesidePublished:
    task, simulations, observation = key
    values = sorted((point.seed, point.values[column]) for point in points)
    mean = Mean(steps, points[0].nfe, tuple(value for _, value in values), tuple(seed for seed, _ in values))
    known = published().get(key, {})
    return BesidePublished(
        task,
        simulations or None,
        observation,
        f"{sampler}, N = {steps}",
        series,
        mean,
        points[0].floor(column),
        {name: known[name] for name in ALGORITHMS if name in known},
    )
