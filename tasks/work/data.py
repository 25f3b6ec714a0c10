"""The training sets: each a pure function of target, seed and size."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch

from diffusion.datasets import Dataset, SimulatorPosterior
from diffusion.formulations import Trained
from diffusion.randomness import stream
from tasks.plan import Cell, without_signed_zeros
from tasks.plan.cell import digest
from tasks.work.answers import reason_of

DataKey = tuple[str | int, ...]
DataAnswer = Mapping[DataKey, np.ndarray | str]
"""Training sets by their `data_key`, or why there is none."""


def data_key(cell: Cell) -> DataKey:
    """What a trained cell's training set is known by: dataset label, seed and size, what stands
    beside the points, and a digest of the dataset's identity, as a label is a text for people and two
    data sets may have the same.
    """
    return (cell.dataset.label(), cell.seed, _size(cell), _kind(cell), digest(cell.spec["dataset"]))


def training_set(cell: Cell) -> np.ndarray:
    """The data that a trained cell learns from, those of its `data_key`."""
    make = {"": generate, "labelled": generate_labelled, "joint": generate_joint}[_kind(cell)]
    return make(cell.dataset, cell.seed, _size(cell))


def training_sets(cells: Mapping[DataKey, Cell]) -> DataAnswer:
    """The training set of each key, a cell that learns from it given; of a target that cannot be
    sampled the reason, so that the others go on.
    """
    return {key: _attempted(cell) for key, cell in cells.items()}


def _attempted(cell: Cell) -> np.ndarray | str:
    try:
        return training_set(cell)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's data set may raise anything
        return reason_of(error)


def generate(dataset: Dataset, seed: int, n: int) -> np.ndarray:
    """The training set of a target, in a model's coordinates: a pure function of spec, seed and
    size. ``[n, dim]`` float64.
    """
    return np.asarray(dataset.working.sample(n, stream("data", stream_name(dataset), seed, n)))


def generate_labelled(dataset: Dataset, seed: int, n: int) -> np.ndarray:
    """The same data with their labels as a last column, ``[n, dim + 1]`` float64."""
    x, labels = dataset.working.sample_labelled(n, stream("data", stream_name(dataset), seed, n))
    return np.asarray(torch.cat([x, labels[:, None].double()], 1))


def generate_joint(dataset: Dataset, seed: int, n: int) -> np.ndarray:
    """Parameters of a posterior's task with their outcomes, ``[n, dim + m]`` float64."""
    assert isinstance(dataset, SimulatorPosterior)  # noqa: S101 - the formulations that ask for it refuse others
    return np.asarray(dataset.sample_joint(n, stream("data", stream_name(dataset), seed, n)))


def _kind(cell: Cell) -> str:
    """What its training set has beside the points."""
    if not isinstance(cell.formulation, Trained):
        return ""
    return "joint" if cell.formulation.simulates else "labelled" if cell.formulation.labelled else ""


def _size(cell: Cell) -> int:
    assert cell.training is not None  # noqa: S101 - asked of trained cells only
    return cell.formulation.examples(cell.training) if isinstance(cell.formulation, Trained) else cell.training.data


def stream_name(dataset: Dataset) -> str:
    """What the random streams of a target are named by."""
    return json.dumps(without_signed_zeros(dataset.identity()), sort_keys=True)
