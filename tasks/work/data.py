"""The training sets: each a pure function of target, seed and size."""

from __future__ import annotations

import json

import numpy as np
import torch

from diffusion.datasets import Dataset
from diffusion.formulations import Trained
from diffusion.randomness import stream
from tasks.plan import Cell, without_signed_zeros

DataKey = tuple[str | int, ...]


def data_key(cell: Cell) -> DataKey:
    """What a trained cell's training set is known by: dataset label, seed and size, and whether it
    has labels.
    """
    assert cell.training is not None  # noqa: S101 - asked of trained cells only
    named = (cell.dataset.label(), cell.seed, cell.training.data)
    return (*named, "labelled") if _labelled(cell) else named


def training_set(cell: Cell) -> np.ndarray:
    """The data that a trained cell learns from, those of its `data_key`."""
    assert cell.training is not None  # noqa: S101
    make = generate_labelled if _labelled(cell) else generate
    return make(cell.dataset, cell.seed, cell.training.data)


def generate(dataset: Dataset, seed: int, n: int) -> np.ndarray:
    """The training set of a target: a pure function of spec, seed and size. ``[n, dim]`` float64."""
    return np.asarray(dataset.sample(n, stream("data", stream_name(dataset), seed, n)))


def generate_labelled(dataset: Dataset, seed: int, n: int) -> np.ndarray:
    """The same data with their labels as a last column, ``[n, dim + 1]`` float64."""
    x, labels = dataset.sample_labelled(n, stream("data", stream_name(dataset), seed, n))
    return np.asarray(torch.cat([x, labels[:, None].double()], 1))


def _labelled(cell: Cell) -> bool:
    return isinstance(cell.formulation, Trained) and cell.formulation.labelled


def stream_name(dataset: Dataset) -> str:
    """What the random streams of a target are named by."""
    return json.dumps(without_signed_zeros(dataset.identity()), sort_keys=True)
