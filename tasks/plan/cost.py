"""What an answer costs, estimated in seconds of one core: sizes shards and weighs progress."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from diffusion.caches import remembered
from diffusion.datasets import Dataset, PointSet
from diffusion.datasets.mixtures import taken_one_by_one
from diffusion.formulations import Given, Trained, Untrained
from diffusion.metrics import BaseMetric, ModelMetric
from diffusion.training import Training
from tasks.plan.cell import Cell

CELL_SECONDS = 0.01  # to make a network and its file, however small it is
POINT_SECONDS = 0.003  # to ask and to measure, however few samples there are
_FLOPS_PER_SECOND = 3e10  # of one core on matrices of a network's size; only sizes shards and weighs progress
_PAIR_SECONDS = 1.4e-9  # to go once over a pair of a sample and a point, in float64


def seconds_per_evaluation(cell: Cell) -> float:
    """For one sample, of the cell's denoiser."""
    if isinstance(cell.formulation, Given):
        return 2 * cell.formulation.parameters_held / _FLOPS_PER_SECOND + 2e-8 * cell.dataset.dim
    if isinstance(cell.formulation, Untrained):
        return cell.formulation.evaluations_each * 2 * _exact_seconds(cell.dataset.working)  # density and denoiser
    if cell.training is None:
        return _exact_seconds(cell.dataset.working)
    return _network_seconds(cell) + 2e-8 * cell.dataset.dim


def seconds_per_call(cell: Cell) -> float:
    """Of asking the cell's denoiser once, however few samples there are."""
    by_quadrature = cell.training is None and cell.dataset.dim > 1 and not isinstance(cell.dataset.working, PointSet)
    return 4e-3 if by_quadrature else 5e-4


def seconds_per_example(cell: Cell) -> float:
    """For one example of a training batch, there and back."""
    assert isinstance(cell.formulation, Trained)  # noqa: S101 - asked of trained cells only
    return 4 * _network_seconds(cell) * cell.formulation.objective.passes(cell.dataset.dim)


def metric_seconds(cell: Cell, metrics: Sequence[BaseMetric]) -> list[float]:
    """Of each metric that looks at the cell's model, measured in this order; of others nothing that
    counts.

    What several of them share is counted with the first.
    """
    found = []
    latest: Hashable = None
    for metric in metrics:
        shared = metric.shared_work if isinstance(metric, ModelMetric) else None
        again = shared is not None and shared == latest
        found.append(0.0 if again or not isinstance(metric, ModelMetric) else _metric_seconds(cell, metric))
        latest = latest if shared is None else shared
    return found


def _metric_seconds(cell: Cell, metric: ModelMetric) -> float:
    asked = metric.evaluations * seconds_per_evaluation(cell) + metric.calls * seconds_per_call(cell)
    return asked + metric.exact_evaluations * _exact_seconds(cell.dataset.working)


def _exact_seconds(dataset: Dataset) -> float:
    """For one sample, of the exact denoiser."""
    if isinstance(dataset, PointSet):
        return _points_seconds(dataset)
    own = dataset.effort * (2e-7 if dataset.dim == 1 else 5e-6)
    inner = getattr(dataset, "of", None)  # noised, moved, on a plane in more dimensions: the law within is asked
    return max(own, _exact_seconds(inner)) if isinstance(inner, Dataset) else own


def _points_seconds(dataset: PointSet) -> float:
    """The same where every sample is compared with every point (`diffusion.datasets.mixtures`).

    An answer goes several times over all pairs for exponents, exponentials and their sums, and again
    for each coordinate; in many dimensions samples are taken one by one, and products of a matrix
    and a vector go twice over the points themselves.
    """
    points, dim = dataset.points.shape
    if taken_one_by_one(points, dim):
        return 4e-5 + _PAIR_SECONDS * (8 + 0.4 * dim) * points
    return 1e-6 + _PAIR_SECONDS * (9 + 3.4 * dim) * points


def _network_seconds(cell: Cell) -> float:
    """For one pass of one sample, forwards."""
    assert isinstance(cell.formulation, Trained)  # noqa: S101 - as above
    assert cell.training is not None  # noqa: S101
    return _flops(cell.formulation, cell.dataset.working, cell.training) / _FLOPS_PER_SECOND


@remembered(4096)
def _flops(formulation: Trained, dataset: Dataset, training: Training) -> float:
    """The same for all seeds."""
    return formulation.network(dataset, training).flops()
